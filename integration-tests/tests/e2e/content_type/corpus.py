"""Writes a corpus of many kinds of files to a directory and prints what the package `magika` says of each, as JSON:
`answers` of file name to label, MIME type, score and the label of the model itself (`undefined` where it did not ask its
model), and `model`, the SHA-256 of the files that the package works with.

Everything is made here: texts from templates, binaries with the standard library. Beside the whole files there are some of
their beginnings, files with white space around, names that lie, noise, and next to nothing.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import marshal
import pathlib
import pickle
import random
import sqlite3
import struct
import sys
import tarfile
import tempfile
import wave
import zipfile
import zlib

import magika

dice = random.Random(7)
WORDS = "order invoice customer delivery amount total price quantity address street number account partner".split()


def some(n):
    return " ".join(dice.choice(WORDS) for _ in range(n))


def repeated(template, times=6):
    """The template several times, with other words and numbers: `@w`, `@x` and `@n`."""
    blocks = []
    for number in range(1, times + 1):
        block = template
        for mark in ("@w", "@x"):
            block = block.replace(mark, f"{dice.choice(WORDS)}_{number}")
        blocks.append(block.replace("@n", str(dice.randrange(10, 9999))))
    return "".join(blocks)


TEXTS = {
    "python": "import os\nimport sys\nfrom dataclasses import dataclass\n\n"
    + repeated("@dataclass\nclass C@n:\n    name: str = '@w'\n\n    def @x(self, value: int) -> str:\n        if value > @n:\n            raise ValueError(f'{value} is too large')\n        return self.name * value\n\n"),
    "rust": "use std::collections::HashMap;\n\n"
    + repeated("#[derive(Debug, Clone)]\npub struct S@n {\n    map: HashMap<String, u64>,\n}\n\nimpl S@n {\n    pub fn @w(&mut self, key: &str) -> Option<&u64> {\n        self.map.insert(key.to_owned(), @n);\n        self.map.get(key)\n    }\n}\n\n"),
    "go": "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\n"
    + repeated("func @w(value int) (string, error) {\n\tif value > @n {\n\t\treturn \"\", fmt.Errorf(\"too large: %d\", value)\n\t}\n\tfmt.Fprintln(os.Stderr, value)\n\treturn \"@x\", nil\n}\n\n"),
    "java": "package com.example.orders;\n\nimport java.util.List;\nimport java.util.ArrayList;\n\npublic class Orders {\n"
    + repeated("    private final List<String> @w = new ArrayList<>();\n\n    public int @x(String name) {\n        if (name == null) {\n            throw new IllegalArgumentException(\"@n\");\n        }\n        return name.length() + @n;\n    }\n\n")
    + "}\n",
    "c": "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n"
    + repeated("static int @w(const char *name, size_t length)\n{\n\tchar *copy = malloc(length + 1);\n\tif (!copy)\n\t\treturn -@n;\n\tmemcpy(copy, name, length);\n\tprintf(\"%s\\n\", copy);\n\tfree(copy);\n\treturn 0;\n}\n\n"),
    "cpp": "#include <iostream>\n#include <memory>\n#include <vector>\n\nnamespace orders {\n\n"
    + repeated("template <typename T>\nclass C@n : public Base<T> {\npublic:\n    explicit C@n(const std::vector<T>& values) : values_(values) {}\n    virtual ~C@n() = default;\n    void @w() const { for (const auto& v : values_) std::cout << v << std::endl; }\nprivate:\n    std::vector<T> values_;\n};\n\n")
    + "}  // namespace orders\n",
    "csharp": "using System;\nusing System.Collections.Generic;\nusing System.Linq;\n\nnamespace Orders\n{\n"
    + repeated("    public class C@n : IDisposable\n    {\n        public string Name { get; set; } = \"@w\";\n\n        public async Task<int> @x(IEnumerable<int> values)\n        {\n            var sum = values.Where(v => v > @n).Sum();\n            Console.WriteLine($\"{Name}: {sum}\");\n            return await Task.FromResult(sum);\n        }\n    }\n\n")
    + "}\n",
    "javascript": "'use strict';\n\nconst fs = require('fs');\nconst path = require('path');\n\n"
    + repeated("async function @w(value) {\n  const result = await fs.promises.readFile(path.join(__dirname, `${value}.json`));\n  if (!result || result.length > @n) {\n    throw new Error('@x');\n  }\n  return JSON.parse(result).map((x) => x * 2);\n}\n\nmodule.exports = { @w };\n\n"),
    "typescript": "import { Injectable } from '@angular/core';\nimport type { Observable } from 'rxjs';\n\n"
    + repeated("export interface I@n {\n  readonly id: number;\n  name?: string;\n}\n\nexport class C@n<T extends I@n> {\n  private items: Map<number, T> = new Map();\n\n  public get(id: number): T | undefined {\n    return this.items.get(id) as T;\n  }\n}\n\n"),
    "php": "<?php\n\nnamespace App\\Orders;\n\nuse DateTime;\n\n"
    + repeated("class C@n\n{\n    private $@w = [];\n\n    public function @x(array $values)\n    {\n        foreach ($values as $key => $value) {\n            $this->@w[$key] = htmlspecialchars($value);\n        }\n        echo count($this->@w) . \"\\n\";\n        return $this;\n    }\n}\n\n"),
    "ruby": "require 'json'\nrequire 'set'\n\nmodule Orders\n"
    + repeated("  class C@n < Base\n    attr_reader :name\n\n    def initialize(name)\n      @name = name\n    end\n\n    def @w\n      raise ArgumentError, \"too large\" unless name.length < @n\n      %w[a b].each { |x| puts \"#{x}: #{name}\" }\n    end\n  end\n\n")
    + "end\n",
    "perl": "#!/usr/bin/perl\nuse strict;\nuse warnings;\n\n"
    + repeated("sub @w {\n    my ($self, %args) = @_;\n    my @list = grep { $_ =~ /^@x/ } keys %args;\n    print join(', ', @list), \"\\n\" if @list > @n;\n    return $self->{name} || die \"no name: $!\";\n}\n\n"),
    "lua": repeated("local function @w(self, value)\n  if value == nil then\n    return nil, \"no value\"\n  end\n  for i, v in ipairs(self.list) do\n    table.insert(self.out, v .. tostring(i + @n))\n  end\n  return #self.out\nend\n\n") + "return M\n",
    "kotlin": "package com.example\n\nimport kotlinx.coroutines.*\n\n"
    + repeated("data class C@n(val name: String, var amount: Int = @n)\n\nfun C@n.@w(): String? = when {\n    amount > @n -> \"large\"\n    else -> null\n}\n\nsuspend fun @x(list: List<C@n>) = coroutineScope {\n    list.map { async { it.@w() } }.awaitAll()\n}\n\n"),
    "scala": "package com.example\n\nimport scala.collection.mutable\nimport scala.concurrent.Future\n\n"
    + repeated("sealed trait T@n\ncase class C@n(name: String, amount: Int) extends T@n\n\nobject O@n {\n  def @w(xs: Seq[C@n]): Option[Int] = xs match {\n    case Nil => None\n    case head :: tail => Some(head.amount + @n)\n  }\n}\n\n"),
    "swift": "import Foundation\nimport UIKit\n\n"
    + repeated("struct S@n: Codable {\n    let name: String\n    var amount: Int?\n\n    func @w(_ value: Int) throws -> String {\n        guard let amount = amount, amount > @n else {\n            throw OrderError.invalid\n        }\n        return \"\\(name): \\(amount)\"\n    }\n}\n\n"),
    "shell": "#!/bin/bash\nset -euo pipefail\n\n"
    + repeated("@w() {\n    local name=\"$1\"\n    if [ ! -f \"$name\" ]; then\n        echo \"no such file: $name\" >&2\n        return @n\n    fi\n    for f in *.txt; do\n        grep -q '@x' \"$f\" && mv \"$f\" /tmp/\n    done\n}\n\n"),
    "powershell": "param(\n    [Parameter(Mandatory=$true)]\n    [string]$Path\n)\n\n"
    + repeated("function Get-@w {\n    [CmdletBinding()]\n    param([int]$Count = @n)\n    $items = Get-ChildItem -Path $Path -Recurse | Where-Object { $_.Length -gt $Count }\n    foreach ($item in $items) {\n        Write-Host \"Found $($item.Name)\" -ForegroundColor Green\n    }\n}\n\n"),
    "batch": "@echo off\r\nsetlocal enabledelayedexpansion\r\n"
    + repeated("if not exist \"%~1\" (\r\n    echo File not found: %~1\r\n    exit /b @n\r\n)\r\nfor /f \"tokens=1,2 delims=,\" %%a in (list.csv) do (\r\n    set /a total+=%%b\r\n    copy \"%%a\" C:\\temp\\@w\r\n)\r\n"),
    "sql": "BEGIN;\n"
    + repeated("CREATE TABLE IF NOT EXISTS @w (\n    id SERIAL PRIMARY KEY,\n    name VARCHAR(255) NOT NULL,\n    amount NUMERIC(10, 2) DEFAULT 0\n);\nINSERT INTO @w (name, amount) VALUES ('@x', @n.50);\nSELECT o.id, SUM(o.amount) FROM @w o LEFT JOIN customers c ON c.id = o.id WHERE o.amount > @n GROUP BY o.id ORDER BY 2 DESC;\n\n")
    + "COMMIT;\n",
    "html": "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Orders</title></head>\n<body>\n"
    + repeated("<div class=\"@w\"><h2>@x</h2><p>Total: <b>@n</b></p><a href=\"/orders/@n\">details</a></div>\n")
    + "</body>\n</html>\n",
    "css": repeated(".@w, #@x > a:hover {\n  display: flex;\n  margin: 0 auto;\n  color: #336699;\n  width: calc(100% - @npx);\n}\n\n@media (max-width: @npx) {\n  .@w { display: none; }\n}\n\n"),
    "markdown": "# Orders\n\nHow orders are taken in.\n\n"
    + repeated("## @w\n\nSee [the manual](https://example.com/@n) for **details**:\n\n- first, the `@x` is read\n- then it is *sent*\n\n```\nput @x.csv\n```\n\n"),
    "rst": "======\nOrders\n======\n\n.. contents::\n   :local:\n\n"
    + repeated("@w\n--------------\n\nSee :ref:`@x` and ``put``.\n\n.. code-block:: python\n\n   print(@n)\n\n.. note:: This is important.\n\n"),
    "latex": "\\documentclass[11pt]{article}\n\\usepackage{amsmath}\n\\usepackage{graphicx}\n\\begin{document}\n\\title{Orders}\n\\maketitle\n"
    + repeated("\\section{@w}\nThe total is $\\sum_{i=1}^{@n} x_i^2$, see \\cite{@x}.\n\\begin{equation}\n  a = \\frac{b}{c}\n\\end{equation}\n\n")
    + "\\end{document}\n",
    "json": json.dumps([{"id": n, "name": some(2), "amounts": [n, n * 2.5], "ok": True} for n in range(30)], indent=2),
    "jsonl": "".join(json.dumps({"id": n, "name": some(2), "amount": n * 2.5}) + "\n" for n in range(60)),
    "csv": "id,name,city,amount\n" + "".join(f"{n},{some(2)},Berlin,{n * 2.5}\n" for n in range(80)),
    "tsv": "id\tname\tcity\tamount\n" + "".join(f"{n}\t{some(1)}\tBerlin\t{n * 2.5}\n" for n in range(80)),
    "xml": "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<orders>\n" + repeated("  <order id=\"@n\"><name>@w</name><amount currency=\"EUR\">@n</amount></order>\n", 20) + "</orders>\n",
    "svg": "<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"100\">\n" + repeated("  <path d=\"M @n 10 L 20 @n Z\" fill=\"#336699\"/>\n  <circle cx=\"@n\" cy=\"5\" r=\"4\"/>\n") + "</svg>\n",
    "yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: orders\nspec:\n" + repeated("  - name: @w\n    image: example/@x:1.@n\n    ports:\n      - containerPort: @n\n    env:\n      - name: KEY\n        value: \"@n\"\n"),
    "toml": "[package]\nname = \"orders\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n" + repeated("[dependencies.@w]\nversion = \"1.@n\"\nfeatures = [\"@x\", \"std\"]\noptional = true\n\n"),
    "ini": repeated("[@w]\n; of the @x\nhost=example.com\nport=@n\nenabled=yes\npath=C:\\data\\@x\n\n"),
    "dockerfile": "FROM debian:bookworm-slim AS build\nARG VERSION=1.0\n" + repeated("RUN apt-get update && apt-get install -y --no-install-recommends @w \\\n    && rm -rf /var/lib/apt/lists/*\nCOPY --from=build /src/@x /usr/local/bin/\nENV PORT=@n\n") + "EXPOSE 8080\nENTRYPOINT [\"/usr/local/bin/orders\"]\n",
    "makefile": "CC ?= gcc\nCFLAGS := -O2 -Wall\n\n.PHONY: all clean\n\nall: orders\n\n" + repeated("@w.o: @w.c @x.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n\n") + "clean:\n\trm -f *.o\n",
    "cmake": "cmake_minimum_required(VERSION 3.16)\nproject(orders VERSION 1.0 LANGUAGES CXX)\n" + repeated("add_library(@w STATIC src/@w.cpp src/@x.cpp)\ntarget_include_directories(@w PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include)\nif(NOT TARGET @x)\n  find_package(Threads REQUIRED)\nendif()\n"),
    "diff": repeated("diff --git a/src/@w.c b/src/@w.c\nindex 83db48f..bf2a3c1 100644\n--- a/src/@w.c\n+++ b/src/@w.c\n@@ -1,4 +1,4 @@ int main(void)\n context\n-old @n\n+new @n\n context\n"),
    "eml": "From: Jane <jane@example.com>\nTo: Bob <bob@example.com>\nSubject: Order 4711\nDate: Mon, 5 Jan 2026 10:15:00 +0100\nMessage-ID: <4711@example.com>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\nDear Bob,\n\n" + repeated("we ordered @n of @w and got @x.\n") + "\nJane\n",
    "pem": "-----BEGIN CERTIFICATE-----\n" + "\n".join("".join(dice.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") for _ in range(64)) for _ in range(20)) + "\n-----END CERTIFICATE-----\n",
    "ics": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Example//EN\r\n" + repeated("BEGIN:VEVENT\r\nUID:@n@example.com\r\nDTSTART:20260105T101500Z\r\nSUMMARY:@w\r\nEND:VEVENT\r\n") + "END:VCALENDAR\r\n",
    "srt": "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},500\n{some(5)}\n\n" for n in range(1, 40)),
    "rtf": "{\\rtf1\\ansi\\deff0{\\fonttbl{\\f0 Times New Roman;}}\n" + repeated("\\pard\\f0\\fs24 @w and {\\b @x} @n\\par\n") + "}",
    "txt": "".join(some(12).capitalize() + ".\n" for _ in range(40)),
    "postscript": "%!PS-Adobe-3.0\n%%BoundingBox: 0 0 612 792\n%%EndComments\n" + repeated("newpath\n@n 100 moveto\n200 @n lineto\nstroke\n/Times-Roman findfont 12 scalefont setfont\n(@w) show\n") + "showpage\n%%EOF\n",
    "edifact": "UNA:+.? 'UNB+UNOC:3+SENDER+RECEIVER+260105:1015+45126'" + repeated("UNH+@n+ORDERS:D:96A:UN'BGM+220+B@n+9'UNT+3+@n'") + "UNZ+1+45126'",
}


def noise(length):
    return dice.randbytes(length)


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out.getvalue()


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + noise(96) for _ in range(32))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pdf():
    body = "%PDF-1.7\n%\u00e2\u00e3\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n".encode("latin-1")
    stream = zlib.compress(TEXTS["txt"].encode())
    return body + b"3 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(stream) + stream + b"\nendstream\nendobj\nxref\n0 4\ntrailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"


def elf():
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0x1040, 64, 6000, 0, 64, 56, 13, 64, 31, 30)
    return header + struct.pack("<IIQQQQQQ", 6, 4, 64, 64, 64, 728, 728, 8) + b"/lib64/ld-linux-x86-64.so.2\0" + noise(3000) + b"\0GCC: (Debian 12.2.0) 12.2.0\0.text\0.data\0.bss\0.symtab\0"


def sqlite():
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "db"
        db = sqlite3.connect(path)
        db.execute("create table orders (id integer primary key, name text)")
        db.executemany("insert into orders (name) values (?)", [(some(3),) for _ in range(100)])
        db.commit()
        db.close()
        return path.read_bytes()


def wav():
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(noise(6000))
    return out.getvalue()


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(TEXTS["txt"].encode())
            archive.addfile(info, io.BytesIO(TEXTS["txt"].encode()))
    return out.getvalue()


def office(kind, part, document):
    types = f'<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/{part}" ContentType="{kind}"/></Types>'
    rels = '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"/>'
    return zipped([("[Content_Types].xml", types), ("_rels/.rels", rels), ("docProps/app.xml", "<Properties/>"), (part, document)])


WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
plain = TEXTS["txt"].encode()
BINARIES = {
    "png": png(),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0xF7, 0, 0) + noise(768) + b",\0\0\0\0\x10\0\x10\0\0\x08" + noise(300) + b"\0;",
    "bmp": b"BM" + struct.pack("<IHHI", 54 + 3072, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 24, 0, 3072, 2835, 2835, 0, 0) + noise(3072),
    "pdf": pdf(),
    "zip": zipped([("a.csv", TEXTS["csv"]), ("b.txt", TEXTS["txt"])]),
    "jar": zipped([("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nMain-Class: A\r\n"), ("A.class", b"\xca\xfe\xba\xbe" + noise(800))]),
    "docx": office(WORD, "word/document.xml", repeated("<w:p><w:r><w:t>@w @n</w:t></w:r></w:p>", 50)),
    "xlsx": office(EXCEL, "xl/workbook.xml", repeated("<row r='@n'><c><v>@n</v></c></row>", 50)),
    "gzip": gzip.compress(plain, mtime=0),
    "bzip": bz2.compress(plain),
    "xz": lzma.compress(plain),
    "zlibstream": zlib.compress(plain),
    "tar": tar(),
    "sqlite": sqlite(),
    "wav": wav(),
    "elf": elf(),
    "pickle": pickle.dumps([{"name": some(2), "n": n} for n in range(100)], protocol=4),
    "pyc": b"\xcb\r\r\n" + b"\0" * 12 + marshal.dumps(compile(TEXTS["python"], "orders.py", "exec")),
    "javabytecode": b"\xca\xfe\xba\xbe\0\0\0\x3d\0\x40\x0a\0\x02\0\x03\x07\0\x04\x0c\0\x05\0\x06\x01\0\x10java/lang/Object\x01\0\x06<init>\x01\0\x03()V" + b"\x01\0\x04Code\x01\0\x0fLineNumberTable\x01\0\x04main" + bytes(range(200)),
    "noise": noise(5000),
    "noise_small": noise(100),
    "zeros": bytes(5000),
}

files = {name: text.encode() for name, text in TEXTS.items()} | BINARIES
variants = {}
for name, content in files.items():
    variants[f"{name}.half"] = content[: len(content) // 2]
for name in ("python", "sql", "markdown", "html", "pdf", "docx", "sqlite", "png", "elf", "eml"):
    content = files[name]
    variants[f"{name}.first60"] = content[:60]
    variants[f"{name}.last900"] = content[-900:]
for name in ("rust", "json", "txt", "ini"):
    content = files[name]
    variants[f"{name}.spaced"] = b" \n\t\x0b\x0c\r" * 60 + content + b"\r\n\x0b " * 200
    # Longer than what is looked at of either end, with something else in between.
    variants[f"{name}.long"] = content * 3 + noise(20_000) + content
# The name says something else.
for name, lie in (("python", "report.pdf"), ("pdf", "orders.csv"), ("shell", "image.png"), ("zip", "readme.txt"), ("png", "script.py")):
    variants[lie] = files[name]
variants |= {
    "empty": b"",
    "one": b"x",
    "seven": b"1234567",
    "eight": b"12345678",
    "seven_spaced": b"  1234567  \n",
    "spaces": b" " * 3000,
    "spaces_then_text": b" " * 4090 + b"words at the very end of the first block and beyond",
    "edge_4095": (TEXTS["go"].encode() * 3)[:4095],
    "edge_4096": (TEXTS["go"].encode() * 3)[:4096],
    "edge_4097": (TEXTS["go"].encode() * 3)[:4097],
}
files |= variants

directory = pathlib.Path(sys.argv[1])
model = magika.Magika()
answers = {}
for name, content in files.items():
    (directory / name).write_bytes(content)
    found = model.identify_bytes(content).prediction
    answers[name] = {
        "label": str(found.output.label),
        "mime": found.output.mime_type,
        "score": found.score,
        "model": str(found.dl.label),
    }
package = pathlib.Path(magika.__file__).parent
own = [*package.glob("models/*/*.onnx"), *package.glob("models/*/config.min.json"), *package.glob("config/*.json")]
print(json.dumps({"answers": answers, "model": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in own}}))
