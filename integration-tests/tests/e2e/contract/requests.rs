//! Requests about a path.

use anyhow::{Result, bail};
use dropgate_integration_tests::raw::{Attrs, Raw, Request, frame};

/// A request of the table, and what it is in words.
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
}

const fn asked(name: &'static str, words: &'static str) -> Asked {
    Asked { name, words }
}

pub(super) const ALL: [Asked; 33] = [
    asked("open-write", "OPEN to write, CREAT and TRUNC"),
    asked("open-resume", "OPEN to write, CREAT without TRUNC"),
    asked("open-existing", "OPEN to write without CREAT"),
    asked("open-excl", "OPEN to write, CREAT and EXCL"),
    asked("open-append", "OPEN to write, CREAT and APPEND"),
    asked("open-read", "OPEN to read"),
    asked("open-read-write", "OPEN to read and write, CREAT and TRUNC"),
    asked("stat", "STAT"),
    asked("lstat", "LSTAT"),
    asked("setstat-times", "SETSTAT of times"),
    asked("setstat-mode", "SETSTAT of the mode"),
    asked("setstat-owner", "SETSTAT of user and group"),
    asked("setstat-size", "SETSTAT of another size"),
    asked("lsetstat-times", "`lsetstat@openssh.com` of times"),
    asked("opendir", "OPENDIR"),
    asked("mkdir", "MKDIR"),
    asked("rmdir", "RMDIR"),
    asked("remove", "REMOVE"),
    asked("remove-to-replace", "REMOVE while its temp name is held, ready to be renamed onto it"),
    asked("rename", "RENAME to a free final name beside it"),
    asked("rename-to-temp", "RENAME to a temp name beside it"),
    asked("rename-away", "RENAME into another directory"),
    asked("rename-onto", "RENAME of a held temp name onto it"),
    asked("posix-rename", "`posix-rename@openssh.com` to a free final name beside it"),
    asked("posix-rename-onto", "`posix-rename@openssh.com` of a held temp name onto it"),
    asked("readlink", "READLINK"),
    asked("symlink", "SYMLINK"),
    asked("hardlink", "`hardlink@openssh.com`"),
    asked("copy-data", "`copy-data`"),
    asked("statvfs", "`statvfs@openssh.com`"),
    asked("realpath", "REALPATH"),
    asked("check-file-name", "`check-file-name`, SHA-256 of the whole"),
    asked("check-file-name-md5", "`check-file-name`, MD5"),
];

/// A name in the directory of `path` that nothing has.
pub(super) fn beside(path: &str, prefix: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, name)) => {
            format!("{dir}/{prefix}-{}", name.trim_end_matches(".filepart").trim_end_matches('.'))
        }
        None => prefix.to_owned(),
    }
}

/// The second name of a request that has two.
pub(super) fn target(request: &str, path: &str) -> String {
    match request {
        "rename-to-temp" => format!("{}.filepart", beside(path, "moved")),
        "rename-away" => format!("/upload/nowhere/away{}", path.replace('/', "-")),
        "rename-onto" | "posix-rename-onto" => path.to_owned(),
        _ => beside(path, "moved"),
    }
}

/// Uploads the held temp name that the request is about, where the directory takes a file.
pub(super) async fn prepare(raw: &mut Raw, request: &str, path: &str) -> Result<()> {
    let held = match request {
        "rename-onto" | "posix-rename-onto" => source(path),
        "remove-to-replace" => format!("{path}.filepart"),
        _ => return Ok(()),
    };
    if path.starts_with("/upload/") {
        let flags = frame::WRITE | frame::CREAT | frame::TRUNC;
        let handle = raw.call(Request::Open { path: held.as_bytes(), flags, attrs: Attrs::none() }).await?;
        // In a directory that is not there it can't be made, and is missing when it is renamed.
        if let Ok(handle) = handle.handle() {
            raw.call(Request::Write { handle: &handle, offset: 0, data: b"another version" }).await?.ok()?;
            raw.call(Request::Close { handle: &handle }).await?.ok()?;
        }
    }
    Ok(())
}

fn source(path: &str) -> String {
    format!("{}.filepart", beside(path, "onto"))
}

/// Sends a request without waiting for its reply.
pub(super) async fn send(raw: &mut Raw, request: &str, path: &str) -> Result<u32> {
    let (bytes, target, source) = (path.as_bytes(), target(request, path), source(path));
    let to = target.as_bytes();
    let times = Attrs::timed(1_600_000_000, 1_600_000_000);
    let open = |flags| Request::Open { path: bytes, flags, attrs: Attrs::none() };
    let (write, create) = (frame::WRITE, frame::WRITE | frame::CREAT);
    let check = |algorithm: &[u8]| {
        let mut fields = Vec::new();
        for text in [bytes, algorithm] {
            fields.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
            fields.extend(text);
        }
        fields.extend([0; 20]);
        fields
    };
    let (sha256, md5) = (check(b"sha256"), check(b"md5"));
    let request = match request {
        "open-write" => open(create | frame::TRUNC),
        "open-resume" => open(create),
        "open-existing" => open(write),
        "open-excl" => open(create | frame::EXCL),
        "open-append" => open(create | frame::APPEND),
        "open-read" => open(frame::READ),
        "open-read-write" => open(frame::READ | create | frame::TRUNC),
        "stat" => Request::Stat { path: bytes },
        "lstat" => Request::Lstat { path: bytes },
        "setstat-times" => Request::Setstat { path: bytes, attrs: times },
        "setstat-mode" => Request::Setstat { path: bytes, attrs: Attrs::mode(0o100_600) },
        "setstat-owner" => {
            Request::Setstat { path: bytes, attrs: Attrs { owner: Some((1000, 1000)), ..Attrs::none() } }
        }
        "setstat-size" => Request::Setstat { path: bytes, attrs: Attrs::sized(7) },
        "lsetstat-times" => Request::Lsetstat { path: bytes, attrs: times },
        "opendir" => Request::Opendir { path: bytes },
        "mkdir" => Request::Mkdir { path: bytes },
        "rmdir" => Request::Rmdir { path: bytes },
        "remove" | "remove-to-replace" => Request::Remove { path: bytes },
        "rename" | "rename-to-temp" | "rename-away" => Request::Rename { from: bytes, to },
        "posix-rename" => Request::PosixRename { from: bytes, to },
        "rename-onto" => Request::Rename { from: source.as_bytes(), to },
        "posix-rename-onto" => Request::PosixRename { from: source.as_bytes(), to },
        "readlink" => Request::Readlink { path: bytes },
        "symlink" => Request::Symlink { target: bytes, link: to },
        "hardlink" => Request::Hardlink { from: bytes, to },
        "copy-data" => Request::Extended { name: b"copy-data", data: bytes },
        "statvfs" => Request::Statvfs { path: bytes },
        "realpath" => Request::Realpath { path: bytes },
        "check-file-name" => Request::Extended { name: b"check-file-name", data: &sha256 },
        "check-file-name-md5" => Request::Extended { name: b"check-file-name", data: &md5 },
        other => bail!("{other} is no request of the table"),
    };
    raw.send(request).await
}
