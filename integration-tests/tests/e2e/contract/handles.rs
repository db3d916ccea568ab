//! Requests on a handle, by what it was opened on.

use super::{Cell, check_refusal, requests::Asked, told};
use anyhow::{Context as _, Result, bail};
use dropgate_integration_tests::{
    harness::{Gate, payload},
    raw::{Attrs, Raw, Reply, Request, frame},
};

const W_C: u32 = frame::WRITE | frame::CREAT;
const W_C_T: u32 = W_C | frame::TRUNC;

/// A kind of handle, what it is in words, and where a WRITE that goes on begins.
pub(super) struct Handle {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    end: u64,
}

const fn handle(name: &'static str, end: u64, words: &'static str) -> Handle {
    Handle { name, words, end }
}

pub(super) const HANDLES: [Handle; 12] = [
    handle("handle-new", 0, "new file, nothing written"),
    handle("handle-written", 1000, "new file, 1,000 bytes written"),
    handle("handle-declared", 1000, "new file, 1,000 of 2,000 declared bytes written"),
    handle("handle-temp", 1000, "temp name, 1,000 bytes written"),
    handle("handle-temp-declared", 1000, "temp name, 1,000 of 2,000 declared bytes written"),
    handle("handle-resumed", 1000, "interrupted upload of 1,000 bytes, opened again"),
    handle("handle-held", 1000, "complete under its temp name with 1,000 bytes, opened again"),
    handle("handle-accepted", 1000, "accepted file of 1,000 bytes, opened without TRUNC"),
    handle("handle-append", 1000, "accepted file of 1,000 bytes, opened to append"),
    handle("handle-taken", 1000, "upload that another session of the account removed"),
    handle("handle-directory", 0, "directory"),
    handle("handle-closed", 0, "handle that is closed"),
];

const fn asked(name: &'static str, words: &'static str) -> Asked {
    Asked { name, words }
}

pub(super) const REQUESTS: [Asked; 19] = [
    asked("write-on", "WRITE where the bytes end"),
    asked("write-at-0", "WRITE at 0"),
    asked("write-ahead", "WRITE beyond the end, leaving a gap"),
    asked("write-too-long", "WRITE of more than 261,120 bytes"),
    asked("read", "READ"),
    asked("fstat", "FSTAT"),
    asked("fsetstat-times", "FSETSTAT of times"),
    asked("fsetstat-size-equal", "FSETSTAT of the size it has"),
    asked("fsetstat-size-larger", "FSETSTAT of a larger size"),
    asked("fsetstat-size-smaller", "FSETSTAT of a smaller size"),
    asked("fsetstat-size-0", "FSETSTAT of size 0"),
    asked("fsync", "`fsync@openssh.com`"),
    asked("fstatvfs", "`fstatvfs@openssh.com`"),
    asked("check-file-handle", "`check-file-handle`, SHA-256 of the whole"),
    asked("readdir", "READDIR"),
    asked("close", "CLOSE"),
    asked("close-after-more", "CLOSE after a WRITE where the bytes end"),
    asked("close-after-gap", "CLOSE after a WRITE that left a gap"),
    asked("close-after-anew", "CLOSE after FSETSTAT of size 0 and a WRITE at 0"),
];

/// Asks everything of every kind of handle, each time of a new one.
pub(super) async fn walk(gate: &Gate) -> Result<Vec<Cell>> {
    let (_connection, mut raw) = gate.raw("acme").await?;
    let (_connection, mut other) = gate.raw("acme").await?;
    let mut cells = Vec::new();
    for kind in &HANDLES {
        for (number, asked) in REQUESTS.iter().enumerate() {
            let name = format!("{}-{number}", kind.name);
            let context = || format!("{} on {}", asked.name, kind.name);
            let path = match kind.name {
                "handle-temp" | "handle-temp-declared" | "handle-held" => format!("/upload/{name}.filepart"),
                // Where it stays in /upload.
                "handle-accepted" | "handle-append" => format!("/upload/down/{name}"),
                _ => format!("/upload/{name}"),
            };
            let handle = open(&mut raw, &mut other, kind, &path).await.with_context(context)?;
            let reply = ask(&mut raw, asked.name, &handle, kind.end).await.with_context(context)?;
            let (answer, text) = told(&reply, &[(&path, "PATH")], &name);
            let cell = Cell { request: asked.name.to_owned(), place: kind.name.to_owned(), answer, text };
            check_refusal(&cell, &reply)?;
            cells.push(cell);
            raw.call(Request::Close { handle: &handle }).await?;
        }
    }
    Ok(cells)
}

async fn write(raw: &mut Raw, handle: &[u8], offset: u64) -> Result<()> {
    raw.call(Request::Write { handle, offset, data: &payload::bytes(1, 1000) }).await?.ok()?;
    Ok(())
}

async fn open(raw: &mut Raw, other: &mut Raw, kind: &Handle, path: &str) -> Result<Vec<u8>> {
    let data = payload::bytes(1, 1000);
    let handle = match kind.name {
        "handle-new" => raw.open(path, W_C_T, Attrs::none()).await?,
        "handle-written" | "handle-temp" | "handle-declared" | "handle-temp-declared" | "handle-taken" => {
            let declared = kind.name.ends_with("declared");
            let attrs = if declared { Attrs::sized(2000) } else { Attrs::none() };
            let handle = raw.open(path, W_C_T, attrs).await?;
            write(raw, &handle, 0).await?;
            if kind.name == "handle-taken" {
                other.call(Request::Remove { path: path.as_bytes() }).await?.ok()?;
            }
            handle
        }
        "handle-resumed" => {
            let handle = raw.open(path, W_C_T, Attrs::sized(2000)).await?;
            write(raw, &handle, 0).await?;
            raw.call(Request::Close { handle: &handle }).await?.refused(4)?;
            raw.open(path, W_C, Attrs::none()).await?
        }
        "handle-held" => {
            raw.stream(path, W_C_T, Attrs::none(), &data).await?;
            raw.open(path, W_C, Attrs::none()).await?
        }
        "handle-accepted" | "handle-append" => {
            raw.put(path, &data).await?;
            let append = if kind.name == "handle-append" { frame::APPEND } else { 0 };
            raw.open(path, frame::WRITE | append, Attrs::none()).await?
        }
        "handle-directory" => raw.call(Request::Opendir { path: b"/upload" }).await?.handle()?,
        "handle-closed" => {
            let handle = raw.open(path, W_C_T, Attrs::none()).await?;
            raw.call(Request::Close { handle: &handle }).await?.ok()?;
            handle
        }
        other => bail!("{other} is no kind of handle"),
    };
    Ok(handle)
}

async fn ask(raw: &mut Raw, request: &str, handle: &[u8], end: u64) -> Result<Reply> {
    let more = payload::bytes(2, 1000);
    let size = |size| Request::Fsetstat { handle, attrs: Attrs::sized(size) };
    let write = |offset| Request::Write { handle, offset, data: &more };
    let string = |bytes: &[u8]| {
        let mut field = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes().to_vec();
        field.extend(bytes);
        field
    };
    let (of, check) = (string(handle), [string(handle), string(b"sha256"), vec![0; 20]].concat());
    let long = vec![0; 261_121];
    let before: &[Request<'_>] = match request {
        "close-after-more" => &[write(end)],
        "close-after-gap" => &[write(end + 5000)],
        "close-after-anew" => &[size(0), write(0)],
        _ => &[],
    };
    let ids = if before.is_empty() { vec![] } else { raw.send_all(before).await? };
    let request = match request {
        "write-on" => write(end),
        "write-at-0" => write(0),
        "write-ahead" => write(end + 5000),
        "write-too-long" => Request::Write { handle, offset: end, data: &long },
        "read" => Request::Read { handle, offset: 0, length: 100 },
        "fstat" => Request::Fstat { handle },
        "fsetstat-times" => Request::Fsetstat { handle, attrs: Attrs::timed(1_600_000_000, 1_600_000_000) },
        "fsetstat-size-equal" => size(end),
        "fsetstat-size-larger" => size(end + 500),
        "fsetstat-size-smaller" => size(end.saturating_sub(500)),
        "fsetstat-size-0" => size(0),
        "fsync" => Request::Fsync { handle },
        "fstatvfs" => Request::Extended { name: b"fstatvfs@openssh.com", data: &of },
        "check-file-handle" => Request::Extended { name: b"check-file-handle", data: &check },
        "readdir" => Request::Readdir { handle },
        close if close.starts_with("close") => Request::Close { handle },
        other => bail!("{other} is no request of the table"),
    };
    let reply = raw.call(request).await?;
    for id in ids {
        raw.reply_to(id).await?;
    }
    Ok(reply)
}
