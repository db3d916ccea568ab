//! The state of an entry that can't be held open from outside: its CLOSE is under way. Here the write that would end it is
//! held back, so that every request of the contract can be asked meanwhile.

use crate::{
    client::{APPEND, CREAT, Client, EXCL, Gate, Got, TRUNC, WRITE, string},
    shaky::{Mood, Shaky},
};
use dropgate_gateway::{ingest::UploadOptions, sftp::attrs::Attrs};
use dropgate_schemas::upload::{Grade, UploadState};
use std::sync::Arc;

const READ: u32 = 0x01;
const CLOSE: u8 = 4;
const RENAME: u8 = 18;

/// Up to so many bytes ride with their record, and the record does not say that their CLOSE came.
const INLINE: usize = 1_500;
const SIZES: [usize; 2] = [1_000, 2_000];

/// What each request about a name is answered: by another session of the account while the CLOSE of a file of that name is
/// under way, and by any session once it was accepted. The session that sent the CLOSE gets the second answer to every
/// request that needs to know what is there: it waits behind the CLOSE.
const TABLE: [(&str, &str, &str); 33] = [
    ("open-write", WAITS, "handle"),
    ("open-resume", WAITS, "handle"),
    ("open-existing", WAITS, "handle"),
    ("open-excl", "4 PATH exists already [ref]", "4 PATH exists already [ref]"),
    ("open-append", WAITS, "handle"),
    ("open-read", INGRESS_ONLY, INGRESS_ONLY),
    ("open-read-write", WAITS, "handle"),
    ("stat", "attrs", "attrs"),
    ("lstat", "attrs", "attrs"),
    ("setstat-times", IN_USE, "0"),
    ("setstat-mode", IN_USE, "0"),
    ("setstat-owner", IN_USE, "0"),
    (
        "setstat-size",
        IN_USE,
        "4 PATH was accepted with SIZE bytes: only what is being written can get another size [ref]",
    ),
    ("lsetstat-times", IN_USE, "0"),
    ("opendir", "2 there is no directory PATH", "2 there is no directory PATH"),
    ("mkdir", "4 PATH exists already and is a file [ref]", "4 PATH exists already and is a file [ref]"),
    ("rmdir", "4 PATH is a file, not a directory [ref]", "4 PATH is a file, not a directory [ref]"),
    (
        "remove",
        BEING_ACCEPTED,
        "3 PATH was accepted and can't be removed; to replace it, upload it again [ref]",
    ),
    ("remove-to-replace", BEING_ACCEPTED, "0"),
    ("rename", WAITS, "0"),
    ("rename-to-temp", WAITS, "4 PATH was accepted: it can't go back to a temporary name [ref]"),
    ("rename-away", OTHER_DIRECTORY, OTHER_DIRECTORY),
    (
        "rename-onto",
        TARGET_IN_USE,
        "4 PATH exists already: remove it first, or use a renaming that replaces [ref]",
    ),
    ("posix-rename", WAITS, "0"),
    ("posix-rename-onto", TARGET_IN_USE, "0 accepted sha256=HEX receipt=ID"),
    ("readlink", NO_LINKS, NO_LINKS),
    ("symlink", NO_LINKS, NO_LINKS),
    ("hardlink", NO_HARDLINK, NO_HARDLINK),
    ("copy-data", NO_COPY_DATA, NO_COPY_DATA),
    ("statvfs", "extended", "extended"),
    ("realpath", "name", "name"),
    ("check-file-name", NO_DIGEST, "extended"),
    ("check-file-name-md5", NO_DIGEST, "4 only sha256 is available: ask for that [ref]"),
];
const WAITS: &str = "waits for the CLOSE";
const INGRESS_ONLY: &str = "3 files can't be downloaded here: this server only takes uploads [ref]";
const IN_USE: &str = "4 PATH is being uploaded already: wait until that is done, or try again in 10 seconds if it was \
                      interrupted [ref]";
const TARGET_IN_USE: &str = "4 PATH is being uploaded: wait until that is done [ref]";
const BEING_ACCEPTED: &str = "4 PATH is just being accepted: try again in a moment [ref]";
const OTHER_DIRECTORY: &str =
    "3 files can be renamed within their directory only: upload into the other directory instead [ref]";
const NO_LINKS: &str = "8 there are no links on this server [ref]";
const NO_HARDLINK: &str = "8 this server does not know \"hardlink@openssh.com\" [ref]";
const NO_COPY_DATA: &str = "8 this server does not know \"copy-data\" [ref]";
const NO_DIGEST: &str = "4 PATH is not complete yet: its digest is known once it is closed [ref]";

/// What the session that sent the CLOSE is answered at once: it is the same whatever is there.
const OF_NO_NAME: [&str; 5] = ["readlink", "symlink", "hardlink", "copy-data", "realpath"];

fn attrs(attrs: Attrs) -> Vec<u8> {
    let mut fields = Vec::new();
    attrs.encode(&mut fields);
    fields
}

/// Type and fields of a request of the table.
fn request(name: &str, path: &str) -> (u8, Vec<u8>) {
    let is = string(path.as_bytes());
    let with = |more: Vec<u8>| [is.clone(), more].concat();
    let open = |flags: u32| (3, with([&flags.to_be_bytes()[..], &[0; 4]].concat()));
    let set = |kind, set: Attrs| (kind, with(attrs(set)));
    let to = |path: String| with(string(path.as_bytes()));
    let extended = |name: &str, fields: Vec<u8>| (200, [string(name.as_bytes()), fields].concat());
    let onto = || [string(held(path).as_bytes()), is.clone()].concat();
    let times = || Attrs { times: Some((7, 8)), ..Attrs::default() };
    let digest = |algorithm: &[u8]| with([string(algorithm), vec![0; 20]].concat());
    match name {
        "open-write" => open(WRITE | CREAT | TRUNC),
        "open-resume" => open(WRITE | CREAT),
        "open-existing" => open(WRITE),
        "open-excl" => open(WRITE | CREAT | EXCL),
        "open-append" => open(WRITE | CREAT | APPEND),
        "open-read" => open(READ),
        "open-read-write" => open(READ | WRITE | CREAT | TRUNC),
        "stat" => (17, is),
        "lstat" => (7, is),
        "setstat-times" => set(9, times()),
        "setstat-mode" => set(9, Attrs { permissions: Some(0o100_600), ..Attrs::default() }),
        "setstat-owner" => set(9, Attrs { owner: Some((1000, 1000)), ..Attrs::default() }),
        "setstat-size" => set(9, Attrs { size: Some(7), ..Attrs::default() }),
        "lsetstat-times" => extended("lsetstat@openssh.com", with(attrs(times()))),
        "opendir" => (11, is),
        "mkdir" => (14, with(vec![0; 4])),
        "rmdir" => (15, is),
        "remove" | "remove-to-replace" => (13, is),
        "rename" => (RENAME, to(format!("{path}-moved"))),
        "rename-to-temp" => (RENAME, to(format!("{path}-moved.filepart"))),
        "rename-away" => (RENAME, to(path.replace("/upload/", "/upload/nowhere/"))),
        "rename-onto" => (RENAME, onto()),
        "posix-rename" => extended("posix-rename@openssh.com", to(format!("{path}-moved"))),
        "posix-rename-onto" => extended("posix-rename@openssh.com", onto()),
        "readlink" => (19, is),
        "symlink" => (20, to(format!("{path}-link"))),
        "hardlink" => extended("hardlink@openssh.com", to(format!("{path}-link"))),
        "copy-data" => extended("copy-data", is),
        "statvfs" => extended("statvfs@openssh.com", is),
        "realpath" => (16, is),
        "check-file-name" => extended("check-file-name", digest(b"sha256")),
        "check-file-name-md5" => extended("check-file-name", digest(b"md5")),
        other => panic!("{other} is no request of the table"),
    }
}

/// The complete upload that a renaming onto `path` comes from.
fn held(path: &str) -> String {
    format!("{path}.filepart")
}

/// A reply as the table has it.
fn told(got: &Got, path: &str, size: usize) -> String {
    let (code, text) = match got {
        Got::Handle(_) => return "handle".to_owned(),
        Got::Names(_) => return "name".to_owned(),
        Got::Attrs { .. } => return "attrs".to_owned(),
        Got::Extended(_) => return "extended".to_owned(),
        Got::Status(code, text) => (code, text),
    };
    if text.starts_with("accepted sha256=") {
        return format!("{code} accepted sha256=HEX receipt=ID");
    }
    let text = match text.split_once(" [ref ") {
        Some((text, _)) => format!("{text} [ref]"),
        None => text.clone(),
    };
    let text = text.replace(path, "PATH").replace(&format!("with {size} bytes"), "with SIZE bytes");
    format!("{code} {text}").trim_end().to_owned()
}

/// A gate whose writes can be held back, and that keeps only small files with their records.
async fn gate() -> (Gate, Arc<Shaky>) {
    let mut gate = Gate::start().await;
    gate.ingest.options = Arc::new(UploadOptions { inline_max: INLINE, ..UploadOptions::default() });
    let store = gate.shake();
    (gate, store)
}

/// Uploads under every name up to the CLOSE, which is held back. Their ids.
async fn closing(
    gate: &Gate,
    store: &Shaky,
    client: &mut Client,
    paths: &[String],
    content: &[u8],
) -> Vec<u32> {
    let mut handles = Vec::new();
    for path in paths {
        let handle = client.open(path, WRITE | CREAT | TRUNC).await.handle();
        client.write(&handle, 0, content).await.ok();
        handles.push(handle);
    }
    store.is(Mood::Holds("/upload/closing-"));
    let mut sent = Vec::new();
    for handle in handles {
        sent.push(client.send(CLOSE, &string(&handle)).await);
    }
    store.holds(paths.len()).await;
    let state = if content.len() > INLINE { UploadState::Closing } else { UploadState::Receiving };
    for path in paths {
        gate.upload_at(path, state).await;
    }
    sent
}

fn paths() -> Vec<String> {
    TABLE.iter().map(|(name, ..)| format!("/upload/closing-{name}")).collect()
}

/// Puts what the renamings of the table come from.
async fn prepare(client: &mut Client) {
    for name in ["remove-to-replace", "rename-onto", "posix-rename-onto"] {
        client.put(&held(&format!("/upload/closing-{name}")), b"another version").await.ok();
    }
}

async fn ask_everything(client: &mut Client, paths: &[String]) -> Vec<u32> {
    let mut asked = Vec::new();
    for ((name, ..), path) in TABLE.iter().zip(paths) {
        let (kind, fields) = request(name, path);
        asked.push(client.send(kind, &fields).await);
    }
    asked
}

#[tokio::test]
async fn every_request_of_another_session_while_a_close_is_under_way() {
    for size in SIZES {
        let (gate, store) = gate().await;
        let (mut closer, mut other) = (gate.client().await, gate.client().await);
        prepare(&mut closer).await;
        let paths = paths();
        let closes = closing(&gate, &store, &mut closer, &paths, &vec![7; size]).await;
        let asked = ask_everything(&mut other, &paths).await;
        let rows = || TABLE.iter().zip(&paths).zip(&asked);
        for (((name, meanwhile, _), path), id) in
            rows().filter(|(((_, meanwhile, _), _), _)| *meanwhile != WAITS)
        {
            assert_eq!(told(&other.reply(*id).await, path, size), *meanwhile, "{name}, {size} bytes");
        }
        let waiting: Vec<_> = rows().filter(|(((_, meanwhile, _), _), _)| *meanwhile == WAITS).collect();
        for (((name, ..), _), id) in &waiting {
            assert!(other.waits_for(**id), "{name}, {size} bytes");
        }
        store.is(Mood::Well);
        for close in closes {
            assert!(closer.reply(close).await.ok().starts_with("accepted sha256="));
        }
        for (((name, _, after), path), id) in waiting {
            assert_eq!(told(&other.reply(*id).await, path, size), *after, "{name} afterwards, {size} bytes");
        }
    }
}

#[tokio::test]
async fn every_request_of_the_same_session_while_a_close_is_under_way() {
    for size in SIZES {
        let (gate, store) = gate().await;
        let mut client = gate.client().await;
        prepare(&mut client).await;
        let paths = paths();
        let closes = closing(&gate, &store, &mut client, &paths, &vec![7; size]).await;
        let asked = ask_everything(&mut client, &paths).await;
        let rows = || TABLE.iter().zip(&paths).zip(&asked);
        for (((name, meanwhile, _), path), id) in
            rows().filter(|(((name, ..), _), _)| OF_NO_NAME.contains(name))
        {
            assert_eq!(told(&client.reply(*id).await, path, size), *meanwhile, "{name}, {size} bytes");
        }
        // Other names don't wait.
        client.stat("/upload/other").await.refused(2);
        for (((name, ..), _), id) in rows().filter(|(((name, ..), _), _)| !OF_NO_NAME.contains(name)) {
            assert!(client.waits_for(*id), "{name}, {size} bytes");
        }
        store.is(Mood::Well);
        for close in closes {
            assert!(client.reply(close).await.ok().starts_with("accepted sha256="));
        }
        for (((name, _, after), path), id) in rows().filter(|(((name, ..), _), _)| !OF_NO_NAME.contains(name))
        {
            assert_eq!(told(&client.reply(*id).await, path, size), *after, "{name}, {size} bytes");
        }
    }
}

#[tokio::test]
async fn a_rename_waits_for_the_close_of_its_source_and_nothing_else_waits_with_it() {
    for size in SIZES {
        for by_another in [false, true] {
            let (gate, store) = gate().await;
            let (mut closer, mut other) = (gate.client().await, gate.client().await);
            let paths = ["/upload/closing-x.filepart".to_owned()];
            let close = closing(&gate, &store, &mut closer, &paths, &vec![7; size]).await[0];
            let renamer = if by_another { &mut other } else { &mut closer };
            let fields = [string(paths[0].as_bytes()), string(b"/upload/x")].concat();
            let rename = renamer.send(RENAME, &fields).await;
            renamer.stat("/upload/other").await.refused(2);
            renamer.mkdir("/upload/d").await.ok();
            assert!(renamer.put("/upload/d/y", b"meanwhile").await.ok().starts_with("accepted "));
            assert!(renamer.waits_for(rename), "{size} bytes");
            assert!(closer.waits_for(close), "{size} bytes");
            store.is(Mood::Well);
            assert_eq!(closer.reply(close).await.ok(), "held, waiting for rename");
            let renamer = if by_another { &mut other } else { &mut closer };
            let text = renamer.reply(rename).await.ok();
            let accepted = gate.upload_at("/upload/x", UploadState::Committed).await;
            assert!(text.ends_with(&accepted.receipt_id.unwrap().to_string()), "{text}");
            assert_eq!(accepted.evidence, Some(Grade::RenamedFromTemp));
            assert_eq!(accepted.opened_as.as_str(), paths[0]);
            assert_eq!(gate.content(&accepted).await, vec![7; size]);
        }
    }
}

#[tokio::test]
async fn a_close_that_hangs_is_given_up_in_time_and_so_is_who_waits_for_it() {
    let (gate, store) = gate().await;
    let mut closer = gate.client().await;
    let (mut opener, mut renamer) = (gate.client().await, gate.client().await);
    let paths = ["/upload/closing-a".to_owned(), "/upload/closing-b.filepart".to_owned()];
    let closes = closing(&gate, &store, &mut closer, &paths, &vec![7; SIZES[1]]).await;
    let open = opener.send_open(&paths[0], WRITE | CREAT | TRUNC, None).await;
    let fields = [string(paths[1].as_bytes()), string(b"/upload/b")].concat();
    let rename = renamer.send(RENAME, &fields).await;
    assert_eq!(told(&opener.reply(open).await, &paths[0], SIZES[1]), IN_USE);
    for close in closes {
        let text = closer.reply(close).await.refused(4);
        assert!(text.contains("could not store the file in time: upload it again"), "{text}");
    }
    renamer.reply(rename).await.refused(2);
    // The writes that were held back are never made: what was refused stays refused.
    store.is(Mood::Well);
    for path in &paths {
        gate.upload_at(path, UploadState::Aborted).await;
    }
    assert!(opener.put(&paths[0], b"again").await.ok().starts_with("accepted "));
    let upload = gate.upload_at(&paths[0], UploadState::Committed).await;
    assert_eq!(gate.content(&upload).await, b"again");
}
