//! The tree that an account sees: directories, listings, attributes, soft deletes.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Setup, openssh::OpenSsh, payload, until::until_true},
    raw::{Attrs, Raw, Request, frame, reply},
};
use std::time::Duration;

async fn code(raw: &mut Raw, request: Request<'_>) -> Result<u32> {
    let answer = raw.call(request).await?;
    Ok(answer.status().map_or(reply::OK, |(code, _)| code))
}

#[tokio::test]
async fn directories_are_mirrored_and_removed_with_care() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    assert_eq!(raw.names("/").await?, ["failed", "inbox", "sent", "upload"]);
    raw.call(Request::Mkdir { path: b"/upload/a" }).await?.ok()?;
    raw.call(Request::Mkdir { path: b"/upload/a/b" }).await?.ok()?;
    for area in ["/upload", "/sent", "/failed"] {
        assert_eq!(raw.names(area).await?, ["a"], "{area}");
        assert_eq!(raw.names(&format!("{area}/a")).await?, ["b"], "{area}");
        let stat = raw.call(Request::Stat { path: format!("{area}/a/b").as_bytes() }).await?.attrs()?;
        ensure!(
            stat.permissions.is_some_and(|m| m & 0o170_000 == 0o040_000) && stat.times.is_some(),
            "{stat:?}"
        );
    }
    assert!(raw.names("/inbox").await?.is_empty());
    raw.call(Request::Mkdir { path: b"/upload/a" }).await?.refused(reply::FAILURE)?;
    assert_eq!(code(&mut raw, Request::Mkdir { path: b"/upload/no/parent" }).await?, reply::NO_SUCH_FILE);
    for place in ["/x", "/sent/x", "/failed/x", "/inbox/x"] {
        raw.call(Request::Mkdir { path: place.as_bytes() }).await?.refused(reply::PERMISSION_DENIED)?;
    }

    raw.put("/upload/a/b/file", b"content").await?;
    gate.settled().await?;
    assert_eq!(raw.names("/sent/a/b").await?, ["file"]);
    assert_eq!(std::fs::read(gate.delivered("acme").join("a/b/file"))?, b"content");

    for system in ["/", "/upload", "/sent", "/failed", "/inbox"] {
        raw.call(Request::Rmdir { path: system.as_bytes() }).await?.refused(reply::PERMISSION_DENIED)?;
    }
    // /upload/a holds b: not empty. b lists nothing in /upload any more, but its mirror in /sent still has the file.
    raw.call(Request::Rmdir { path: b"/upload/a" }).await?.refused(reply::FAILURE)?;
    raw.call(Request::Rmdir { path: b"/upload/a/b" }).await?.ok()?;
    assert!(raw.names("/upload/a").await?.is_empty());
    assert_eq!(raw.names("/sent/a/b").await?, ["file"]);
    assert!(raw.names("/failed/a").await?.is_empty());
    // Removing its last entry removes the mirror too.
    raw.call(Request::Remove { path: b"/sent/a/b/file" }).await?.ok()?;
    assert!(raw.names("/sent/a").await?.is_empty());
    // MKDIR revives.
    raw.call(Request::Mkdir { path: b"/upload/a/b" }).await?.ok()?;
    assert_eq!(raw.names("/sent/a").await?, ["b"]);
    gate.finish().await
}

#[tokio::test]
async fn rm_in_sent_hides_and_keeps() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(1, 100_000);
    raw.put("/upload/gone", &data).await?;
    let row = gate.upload_in("acme", "/upload/gone", "processed").await?;
    let client = OpenSsh::new(&gate, "acme")?;
    client.sftp("rm /sent/gone\n").await?;
    assert!(raw.names("/sent").await?.is_empty());
    raw.call(Request::Stat { path: b"/sent/gone" }).await?.refused(reply::NO_SUCH_FILE)?;
    raw.call(Request::Remove { path: b"/sent/gone" }).await?.refused(reply::NO_SUCH_FILE)?;
    // The delivered file, the record and the bytes stay.
    assert_eq!(std::fs::read(gate.delivered("acme").join("gone"))?, data);
    let after = gate.upload("acme", "/upload/gone").await?;
    ensure!(after.upload_id == row.upload_id && after.state == "processed", "{after:?}");
    gate.event_about("upload.deleted", "/upload/gone", 1).await?;
    let out = gate.path("exported");
    gate.cli.run(&["uploads", "export", &row.upload_id, "--out", &out.display().to_string()]).await?;
    assert_eq!(std::fs::read(&out)?, data);
    // An operator takes it back.
    gate.cli.run(&["uploads", "restore", &row.upload_id]).await?;
    until_true(Duration::from_secs(10), "the restored file to be listed", || async {
        let (_connection, mut raw) = gate.raw("acme").await?;
        Ok(raw.names("/sent").await? == ["gone"])
    })
    .await?;
    gate.finish().await
}

#[tokio::test]
async fn setstat_is_recorded_and_answered_back() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/f", b"data").await?;
    let attrs = Attrs {
        permissions: Some(0o100_600),
        owner: Some((1000, 1001)),
        ..Attrs::timed(1_234_567_890, 1_234_567_891)
    };
    raw.call(Request::Setstat { path: b"/upload/f", attrs }).await?.ok()?;
    gate.settled().await?;
    let stat = raw.call(Request::Stat { path: b"/sent/f" }).await?.attrs()?;
    ensure!(stat.size == Some(4) && stat.times == Some((1_234_567_890, 1_234_567_891)), "{stat:?}");
    ensure!(stat.permissions == Some(0o100_600), "{stat:?}");
    raw.call(Request::Lsetstat { path: b"/upload/f", attrs: Attrs::timed(5, 6) }).await?.ok()?;
    assert_eq!(raw.call(Request::Stat { path: b"/sent/f" }).await?.attrs()?.times, Some((5, 6)));
    assert_eq!(
        code(&mut raw, Request::Setstat { path: b"/upload/nothing", attrs }).await?,
        reply::NO_SUCH_FILE
    );
    // Through an open handle, before there are any bytes, with a directory's bits that are masked.
    let handle =
        raw.open("/upload/g", frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::mode(0o100_640)).await?;
    raw.call(Request::Fsetstat { handle: &handle, attrs: Attrs::timed(7, 8) }).await?.ok()?;
    let open = raw.call(Request::Fstat { handle: &handle }).await?.attrs()?;
    ensure!(open.size == Some(0) && open.permissions.is_some_and(|m| m & 0o170_000 == 0o100_000), "{open:?}");
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    gate.settled().await?;
    assert_eq!(raw.call(Request::Stat { path: b"/sent/g" }).await?.attrs()?.times, Some((7, 8)));
    gate.finish().await
}

#[tokio::test]
async fn listings_page_and_tell_owner_and_state() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for number in 0..250 {
        raw.put(&format!("/upload/n{number:03}"), format!("{number}").as_bytes()).await?;
    }
    raw.stream("/upload/held.filepart", frame::WRITE | frame::CREAT, Attrs::none(), b"held").await?;
    gate.settled().await?;
    let entries = raw.list("/sent").await?;
    let names: Vec<_> = entries.iter().map(dropgate_integration_tests::raw::Entry::text).collect();
    assert_eq!(names.get(..2).context("two names")?, [".", ".."]);
    assert_eq!(names.len(), 252);
    let mut sorted = names.get(2..).context("names")?.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 250, "every entry once");
    for entry in entries.iter().skip(2) {
        let words: Vec<_> = entry.longname.split_whitespace().collect();
        ensure!(words.len() >= 9, "{}", entry.longname);
        ensure!(words[0].starts_with('-') && words[3] == "processed", "{}", entry.longname);
        ensure!(words[2] != "acme", "the owner is the destination once routed: {}", entry.longname);
        ensure!(words.last() == Some(&entry.text().as_str()), "{}", entry.longname);
    }
    let held = raw.list("/upload").await?;
    let held = held.iter().find(|e| e.name == b"held.filepart").context("the held file is listed")?;
    let words: Vec<_> = held.longname.split_whitespace().collect();
    ensure!(words[2] == "acme" && words[3] == "held", "{}", held.longname);
    for directory in raw.list("/").await? {
        ensure!(directory.longname.starts_with('d'), "{}", directory.longname);
    }
    gate.finish().await
}

#[tokio::test]
async fn extensions_tell_the_truth() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    let mut second = connection.sftp().await?;
    let (version, extensions) = second.init(3).await?;
    assert_eq!(version, 3);
    let offered: Vec<_> = extensions.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "posix-rename@openssh.com",
        "statvfs@openssh.com",
        "fstatvfs@openssh.com",
        "fsync@openssh.com",
        "limits@openssh.com",
        "lsetstat@openssh.com",
        "vendor-id",
    ] {
        ensure!(offered.contains(&name), "{name} is not offered: {offered:?}");
    }
    for name in ["copy-data", "hardlink@openssh.com"] {
        ensure!(!offered.contains(&name), "{name} is offered");
    }
    let limits = raw.call(Request::Limits).await?;
    let dropgate_integration_tests::raw::Body::Extended(bytes) = limits.body else {
        anyhow::bail!("{limits:?}")
    };
    let numbers: Vec<u64> =
        bytes.chunks(8).map(|b| b.try_into().map(u64::from_be_bytes)).collect::<Result<_, _>>()?;
    assert_eq!(numbers.get(..3).context("four numbers")?, [262_144, 261_120, 261_120]);
    ensure!(
        matches!(raw.call(Request::Statvfs { path: b"/upload" }).await?.body, dropgate_integration_tests::raw::Body::Extended(b) if b.len() == 88)
    );
    // As the biggest WRITE that limits@ allows.
    let data = payload::bytes(9, 261_120);
    let handle = raw.open("/upload/big-write", frame::WRITE | frame::CREAT, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    for unsupported in [
        Request::Hardlink { from: b"/upload/big-write", to: b"/upload/x" },
        Request::Extended { name: b"copy-data", data: b"" },
        Request::Extended { name: b"no-such@example.org", data: b"1234" },
        Request::Readlink { path: b"/upload/big-write" },
        Request::Symlink { target: b"/upload/x", link: b"/upload/y" },
    ] {
        raw.call(unsupported.clone())
            .await?
            .refused(reply::OP_UNSUPPORTED)
            .with_context(|| format!("{unsupported:?}"))?;
    }
    gate.settled().await?;
    // Proof of receipt: the stored digest, without the bytes being read back.
    if offered.contains(&"check-file") {
        let mut body = Vec::new();
        for text in [b"/upload/big-write".as_slice(), b"sha256"] {
            body.extend_from_slice(&u32::try_from(text.len())?.to_be_bytes());
            body.extend_from_slice(text);
        }
        body.extend_from_slice(&[0; 8 + 8 + 4]);
        let answer = raw.call(Request::Extended { name: b"check-file-name", data: &body }).await?;
        let dropgate_integration_tests::raw::Body::Extended(bytes) = answer.body else {
            anyhow::bail!("{answer:?}")
        };
        ensure!(hex::encode(&bytes).ends_with(&payload::sha256(&data)), "{}", hex::encode(bytes));
    }
    gate.finish().await
}
