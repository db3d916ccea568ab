//! The main job: what is put is found, verified, at its destination and under `/sent`.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, openssh::OpenSsh, payload, until::until},
    raw::{Attrs, Request, frame},
};
use std::{fmt::Write as _, time::Duration};

#[tokio::test]
async fn sftp_puts_0_1_and_4096_bytes_and_a_megabyte() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let client = OpenSsh::new(&gate, "acme")?;
    let mut batch = String::new();
    for length in [0_usize, 1, 4096, 65_536, 65_537, 1_000_003] {
        let data = payload::bytes(length as u64, length);
        let local = client.local(&format!("f{length}"));
        std::fs::write(&local, &data)?;
        let line = ledger.begin("acme", &format!("/upload/f{length}"), &data)?;
        writeln!(batch, "put {} /upload/f{length}", local.display())?;
        ledger.acknowledge(line)?;
    }
    client.sftp(&batch).await?;
    verify(&gate, &ledger).await?;
    for length in [0_usize, 1, 4096, 65_536, 65_537, 1_000_003] {
        let delivered = std::fs::read(gate.delivered("acme").join(format!("f{length}")))?;
        ensure!(delivered == payload::bytes(length as u64, length), "f{length} is not what was sent");
        let row = gate.upload("acme", &format!("/upload/f{length}")).await?;
        ensure!(row.state == "processed" && row.size == Some(length as u64), "{row:?}");
        ensure!(
            row.received_at.is_some() && row.content_type.is_some() && row.partner == "acme-corp",
            "{row:?}"
        );
    }
    let listed = client.sftp("ls -l /sent\nls -l /upload\n").await?;
    ensure!(listed.stdout.contains("f4096") && listed.stdout.contains("1000003"), "{}", listed.stdout);
    gate.finish().await
}

#[tokio::test]
async fn scp_and_password_login_work() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(7, 300_000);

    let by_key = OpenSsh::new(&gate, "acme")?;
    let local = by_key.local("by-scp.bin");
    std::fs::write(&local, &data)?;
    let line = ledger.begin("acme", "/upload/by-scp.bin", &data)?;
    by_key.scp(&["-p"], &local, "/upload/by-scp.bin").await?;
    ledger.acknowledge(line)?;

    let by_password = OpenSsh::with_password(&gate, "acme", None)?;
    let local = by_password.local("by-password.bin");
    std::fs::write(&local, &data)?;
    let line = ledger.begin("acme", "/upload/by-password.bin", &data)?;
    // -f asks for fsync before CLOSE, -p for FSETSTAT.
    by_password.sftp(&format!("put -fp {} /upload/by-password.bin\n", local.display())).await?;
    ledger.acknowledge(line)?;

    verify(&gate, &ledger).await?;
    let credentials: Vec<_> = gate.audit(&["--account", "acme"]).await?.into_iter().collect();
    let logins: Vec<_> = credentials
        .iter()
        .filter(|e| e["action"] == "session.login" && e["result"] == "ok")
        .filter_map(|e| e["actor"]["credential"].as_str())
        .collect();
    ensure!(logins.contains(&"password"), "{logins:?}");
    ensure!(logins.iter().any(|c| c.starts_with("SHA256:")), "{logins:?}");
    gate.finish().await
}

#[tokio::test]
async fn a_thousand_small_files() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let client = OpenSsh::new(&gate, "acme")?;
    let many = client.local("many");
    std::fs::create_dir(&many)?;
    let mut lines = Vec::new();
    for number in 0..1000_u64 {
        let data = payload::bytes(number, usize::try_from(number % 50 * 97)?);
        std::fs::write(many.join(format!("{number:04}.dat")), &data)?;
        lines.push(ledger.begin("acme", &format!("/upload/{number:04}.dat"), &data)?);
    }
    client.sftp(&format!("cd /upload\nput {}/*\n", many.display())).await?;
    lines.into_iter().try_for_each(|line| ledger.acknowledge(line))?;
    verify(&gate, &ledger).await?;
    // Pages of 100: all are seen, and the real client gets through them.
    let listed = client.sftp("ls -1 /sent\n").await?;
    ensure!(listed.stdout.lines().filter(|l| l.ends_with(".dat")).count() == 1000, "{}", listed.stdout.len());
    gate.finish().await
}

#[tokio::test]
async fn names_with_spaces_and_unicode_come_back_as_they_were_sent() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    // The last two are NFD: they must be found, listed and delivered; events and keys use NFC.
    let names = [
        "two  words.txt",
        "Ünïcödé – ж – 漢字 – 🦀.csv",
        "-rf",
        "~",
        "$HOME",
        "a;b|c&d",
        "quote'd \"name\"",
        "*?[x]",
        "#hash%41",
        "Zu\u{308}rich.xml",
        "e\u{301}te\u{301}.txt",
    ];
    for name in names {
        let data = payload::bytes(name.len() as u64, 2000 + name.len());
        let path = format!("/upload/{name}");
        let line = ledger.begin("acme", &path, &data)?;
        raw.put(&path, &data).await.with_context(|| name.to_owned())?;
        ledger.acknowledge(line)?;
    }
    gate.settled().await?;
    let mut sent = raw.names("/sent").await?;
    let mut expected: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
    sent.sort();
    expected.sort();
    assert_eq!(sent, expected, "READDIR gives back the bytes that were sent");

    let composed = raw.call(Request::Stat { path: "/sent/Z\u{fc}rich.xml".as_bytes() }).await?.attrs()?;
    let decomposed = raw.call(Request::Stat { path: "/sent/Zu\u{308}rich.xml".as_bytes() }).await?.attrs()?;
    assert_eq!(composed.size, decomposed.size);
    let delivered: Vec<_> =
        std::fs::read_dir(gate.delivered("acme"))?.map(|e| Ok(e?.file_name())).collect::<Result<_>>()?;
    assert_eq!(delivered.len(), names.len(), "{delivered:?}");
    assert!(delivered.iter().any(|n| n == "Z\u{fc}rich.xml"), "delivered under the NFC form: {delivered:?}");

    // The other spelling is the same file: a second version, not a second file.
    let data = payload::bytes(99, 10);
    raw.put("/upload/\u{e9}t\u{e9}.txt", &data).await?;
    gate.settled().await?;
    assert_eq!(raw.names("/sent").await?.len(), names.len());

    // And a real client types them with quotes.
    let client = OpenSsh::new(&gate, "acme")?;
    let local = client.local("local file.txt");
    std::fs::write(&local, b"hello")?;
    client.sftp(&format!("put \"{}\" \"/upload/from sftp – é.txt\"\n", local.display())).await?;
    let listed = client.sftp("ls -1 /upload\nls -1 /sent\n").await?;
    ensure!(listed.stdout.contains("from sftp – é.txt"), "{}", listed.stdout);
    gate.settled().await?;
    gate.finish().await
}

/// Uploads so many bytes to `path` under a temp name, so that nothing is delivered yet and the figure is that of the session
/// alone. Returns the digest, and what the process held before.
async fn upload_in_bounded_memory(gate: &Gate, path: &str, length: u64) -> Result<(String, u64)> {
    let client = OpenSsh::new(gate, "acme")?;
    let local = gate.path("large.bin");
    let digest = payload::write_file(&local, 5, length)?;
    // Settle what the first session costs before the measure begins.
    std::fs::write(client.local("warm"), payload::bytes(1, 100_000))?;
    let warm = client.local("warm");
    client
        .sftp(&format!("put {0} /upload/warm.filepart\nrm /upload/warm.filepart\n", warm.display()))
        .await?;
    let before = gate.usage("run")?;
    client.sftp(&format!("put {} {path}.filepart\n", local.display())).await?;
    std::fs::remove_file(&local)?;
    let after = gate.usage("run")?;
    let grown = after.peak.saturating_sub(before.resident);
    println!(
        "{} MiB: resident {} KiB before, peak {} KiB, grown {} KiB, {:.2} s of processor time",
        length >> 20,
        before.resident >> 10,
        after.peak >> 10,
        grown >> 10,
        after.cpu - before.cpu
    );
    ensure!(grown <= 24 << 20, "one busy session may cost 24 MiB, it took {} KiB", grown >> 10);
    Ok((digest, before.resident))
}

#[tokio::test]
async fn a_gigabyte_is_taken_in_bounded_memory() -> Result<()> {
    const LENGTH: u64 = 1 << 30;
    let gate = Gate::start(Setup::default().on_disk()).await?;
    let ledger = Ledger::in_memory();
    let path = "/upload/gigabyte.bin";
    let (digest, before) = upload_in_bounded_memory(&gate, path, LENGTH).await?;
    let line = ledger.begin_digest("acme", path, LENGTH, digest)?;
    let client = OpenSsh::new(&gate, "acme")?;
    client.sftp(&format!("rename {path}.filepart {path}\n")).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    let grown = gate.usage("run")?.peak.saturating_sub(before);
    ensure!(grown <= 48 << 20, "acceptance and delivery of 1 GiB together took {} KiB", grown >> 10);
    gate.finish().await
}

#[tokio::test]
#[ignore = "takes minutes and 20 GiB of disk: make test-full"]
async fn ten_gibibytes_are_taken_in_bounded_memory() -> Result<()> {
    const LENGTH: u64 = 10 << 30;
    let gate = Gate::start(Setup::default().on_disk()).await?;
    let (digest, _) = upload_in_bounded_memory(&gate, "/upload/ten.bin", LENGTH).await?;
    let held = gate.upload_in("acme", "/upload/ten.bin.filepart", "held").await?;
    ensure!(held.size == Some(LENGTH) && held.sha256 == Some(digest), "{held:?}");
    gate.finish().await
}

#[tokio::test]
async fn what_was_just_accepted_answers_stat_also_after_delivery() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(1, 5000);
    let text = raw.put("/upload/checked", &data).await?;
    ensure!(
        text.contains(&format!("sha256={}", payload::sha256(&data))) && text.contains("receipt="),
        "{text}"
    );
    // paramiko and rclone do this right after CLOSE; delivery may be done already, or not.
    assert_eq!(raw.call(Request::Stat { path: b"/upload/checked" }).await?.attrs()?.size, Some(5000));
    gate.settled().await?;
    assert_eq!(raw.call(Request::Stat { path: b"/upload/checked" }).await?.attrs()?.size, Some(5000));
    let times = Attrs::timed(1_600_000_000, 1_600_000_000);
    raw.call(Request::Setstat { path: b"/upload/checked", attrs: times }).await?.ok()?;
    let (_other, mut other) = gate.raw("acme").await?;
    assert_eq!(other.call(Request::Stat { path: b"/upload/checked" }).await?.attrs()?.size, Some(5000));
    assert_eq!(other.call(Request::Lstat { path: b"/sent/checked" }).await?.attrs()?.size, Some(5000));
    assert!(
        !raw.names("/upload").await?.contains(&"checked".to_owned()),
        "the listing shows it in /sent only"
    );
    gate.finish().await
}

#[tokio::test]
async fn only_a_received_close_commits() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    for (name, finish) in [("no-close", false), ("closed", true)] {
        let (connection, mut raw) = gate.raw("acme").await?;
        let data = payload::bytes(3, 200_000);
        let path = format!("/upload/{name}");
        let line = ledger.begin("acme", &path, &data)?;
        let handle = raw.open(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none()).await?;
        let ids = raw.write_all(&handle, 0, &data, 32_000).await?;
        raw.all_ok(&ids).await?;
        if finish {
            raw.call(Request::Close { handle: &handle }).await?.ok()?;
            ledger.acknowledge(line)?;
        } else {
            // All bytes arrived and the channel ended in good order: still no acceptance.
            raw.eof().await?;
            raw.closed_by_server().await?;
        }
        drop(connection);
    }
    let row = gate.upload_in("acme", "/upload/no-close", "partial").await?;
    ensure!(row.received_at.is_none(), "{row:?}");
    verify(&gate, &ledger).await?;
    ensure!(!gate.delivered("acme").join("no-close").exists());
    tokio::time::timeout(Duration::from_secs(60), gate.finish()).await?
}

/// The connection is dropped without a word after each packet of an upload in turn: after OPEN, after each WRITE, and after
/// everything but CLOSE was answered.
#[tokio::test]
async fn cut_at_every_packet_nothing_commits() -> Result<()> {
    const WRITES: usize = 8;
    let config = "[gateway.listener.limits]\nnew_per_second_per_source = 1000\nnew_burst_per_source = 1000\n";
    let gate = Gate::start(Setup::default().config(config)).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(7, WRITES * 16_384);
    for packets in 0..=WRITES + 2 {
        let path = format!("/upload/cut{packets}");
        let line = ledger.begin("acme", &path, &data)?;
        let (connection, mut raw) = gate.raw("acme").await?;
        let sent = async {
            if packets == 0 {
                return Ok(());
            }
            let handle = raw.open(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none()).await?;
            for (at, piece) in (0..).step_by(16_384).zip(data.chunks(16_384)).take(packets - 1) {
                raw.call(Request::Write { handle: &handle, offset: at, data: piece }).await?.ok()?;
            }
            if packets > WRITES + 1 {
                raw.call(Request::Close { handle: &handle }).await?.ok()?;
            }
            anyhow::Ok(())
        };
        sent.await?;
        connection.valve.cut();
        if packets > WRITES + 1 {
            ledger.acknowledge(line)?;
        }
    }
    // Each connection's end was noticed: what came of it is settled.
    let rows = until(Duration::from_secs(60), "the end of every upload", || async {
        let rows = gate.uploads().await?;
        Ok((rows.len() == WRITES + 2 && rows.iter().all(|row| row.state != "receiving")).then_some(rows))
    })
    .await?;
    for row in rows {
        let whole = row.path == format!("/upload/cut{}", WRITES + 2);
        ensure!(row.is_accepted() == whole, "{row:?}");
        let expected = if row.path == "/upload/cut1" { "aborted" } else { "partial" };
        ensure!(whole || row.state == expected, "{row:?}");
    }
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn close_is_answered_quickly_also_under_load() -> Result<()> {
    let gate = Gate::start(Setup::default().on_disk()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for session in 0..4_u64 {
        let (connection, mut raw) = gate.raw("acme").await?;
        tasks.spawn(async move {
            let _connection = connection;
            let mut waits = Vec::new();
            for number in 0..25_u64 {
                let data = payload::bytes(session * 100 + number, 100_000);
                let path = format!("/upload/s{session}-{number}");
                let handle =
                    raw.open(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none()).await?;
                let ids = raw.write_all(&handle, 0, &data, 32_000).await?;
                raw.all_ok(&ids).await?;
                let begun = std::time::Instant::now();
                raw.call(Request::Close { handle: &handle }).await?.ok()?;
                waits.push(begun.elapsed());
            }
            Ok::<_, anyhow::Error>(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(done) = tasks.join_next().await {
        waits.extend(done??);
    }
    waits.sort();
    let (median, last) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("CLOSE: median {median:?}, longest of {} {last:?}", waits.len());
    ensure!(waits[waits.len() * 99 / 100 - 1] < Duration::from_secs(2), "99 % of answers: {waits:?}");
    gate.settled().await?;
    gate.finish().await
}
