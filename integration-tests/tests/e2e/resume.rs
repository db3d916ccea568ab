//! Lost connections, resumed uploads, bytes out of order, two sessions on one path.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, openssh::OpenSsh, payload, until::until_true, wire::Wire},
    raw::{Attrs, Raw, Request, frame, reply},
    resuming::Uploads,
};
use std::time::Duration;

const W_C: u32 = frame::WRITE | frame::CREAT;
const W_C_T: u32 = W_C | frame::TRUNC;
const PIECE: usize = 32_000;

/// The durable length that STAT tells of an unfinished upload, once there is one of more than nothing.
async fn durable(raw: &mut Raw, path: &str) -> Result<u64> {
    let stat = raw.call(Request::Stat { path: path.as_bytes() }).await?.attrs()?;
    stat.size.ok_or_else(|| anyhow::anyhow!("STAT {path} tells no size"))
}

#[tokio::test]
async fn a_dropped_connection_is_resumed_by_reput_with_the_right_digest() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let length = 40_000_000;
    let wire = Wire::to(gate.sftp()?, 25_000_000).await?;
    let broken = OpenSsh::with_key(wire.address, "acme", &gate.key("acme"))?;
    let local = gate.path("big.bin");
    let digest = payload::write_file(&local, 11, length)?;
    let line = ledger.begin_digest("acme", "/upload/big.bin", length, digest.clone())?;
    let cut = broken.try_sftp(&format!("put {} /upload/big.bin\n", local.display())).await?;
    ensure!(!cut.status.success(), "the wire did not break: {}", cut.all());

    let partial = gate.upload_in("acme", "/upload/big.bin", "partial").await?;
    ensure!(partial.received_at.is_none());
    let (_connection, mut raw) = gate.raw("acme").await?;
    let kept = durable(&mut raw, "/upload/big.bin").await?;
    ensure!(kept > 0 && kept < length, "{kept} bytes were kept of {length}");
    drop(raw);

    let client = OpenSsh::new(&gate, "acme")?;
    client.sftp(&format!("reput {} /upload/big.bin\n", local.display())).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    let row = gate.upload("acme", "/upload/big.bin").await?;
    ensure!(row.sha256.as_deref() == Some(&digest) && row.upload_id == partial.upload_id, "{row:?}");
    let resumed = gate.audit(&["--upload", &row.upload_id]).await?;
    ensure!(resumed.iter().any(|e| e["action"] == "upload.resume"), "no upload.resume on record");
    gate.finish().await
}

#[tokio::test]
async fn every_client_goes_on_after_its_connection_was_cut() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let wire = Wire::to(gate.sftp()?, u64::MAX).await?;
    let uploads = Uploads::begin(&gate, "acme", wire.address, &ledger).await?;
    // What tries again by itself finds nobody.
    drop(wire);
    uploads.resume(gate.sftp()?, &ledger).await?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn every_client_goes_on_after_the_gateway_was_killed_and_started_again() -> Result<()> {
    let mut gate = Gate::start(Setup::default().on_disk()).await?;
    let ledger = Ledger::in_memory();
    let uploads = Uploads::begin(&gate, "acme", gate.sftp()?, &ledger).await?;
    gate.kill()?;
    gate.launch().await?;
    uploads.resume(gate.sftp()?, &ledger).await?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn resume_goes_on_at_the_durable_length_or_starts_again_at_0() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(12, 9_000_000);
    for (path, again_from_0) in [("/upload/on", false), ("/upload/again", true)] {
        let line = ledger.begin("acme", path, &data)?;
        let (connection, mut raw) = gate.raw("acme").await?;
        let handle = raw.open(path, W_C_T, Attrs::none()).await?;
        let ids = raw.write_all(&handle, 0, &data[..5_000_000], PIECE).await?;
        raw.all_ok(&ids).await?;
        // fsync: what has arrived is durable, so it must still be there after the cut.
        raw.call(Request::Fsync { handle: &handle }).await?.ok()?;
        connection.valve.cut();
        gate.upload_in("acme", path, "partial").await?;

        let (_second, mut raw) = gate.raw("acme").await?;
        let from = durable(&mut raw, path).await?;
        ensure!(from == 5_000_000, "{path}: {from} bytes durable after fsync of 5000000");
        // The flags say nothing: the first WRITE decides.
        let handle = raw.open(path, W_C, Attrs::none()).await?;
        let start = if again_from_0 { 0 } else { from };
        let ids = raw.write_all(&handle, start, &data[usize::try_from(start)?..], PIECE).await?;
        raw.all_ok(&ids).await?;
        let text = raw.call(Request::Close { handle: &handle }).await?;
        ensure!(text.ok()?.contains(&payload::sha256(&data)), "{text:?}");
        ledger.acknowledge(line)?;
    }
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn resume_at_a_wrong_place_is_refused_and_nothing_is_accepted() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let data = payload::bytes(13, 3_000_000);
    let (connection, mut raw) = gate.raw("acme").await?;
    let handle = raw.open("/upload/gap", W_C_T, Attrs::none()).await?;
    let ids = raw.write_all(&handle, 0, &data[..1_000_000], PIECE).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Fsync { handle: &handle }).await?.ok()?;
    connection.valve.cut();
    gate.upload_in("acme", "/upload/gap", "partial").await?;

    let (_second, mut raw) = gate.raw("acme").await?;
    let handle = raw.open("/upload/gap", W_C, Attrs::none()).await?;
    // A hole between 1,000,000 and 2,500,000 that is never filled.
    let write = raw
        .send(Request::Write { handle: &handle, offset: 2_500_000, data: &data[2_500_000..2_600_000] })
        .await?;
    let close = raw.call(Request::Close { handle: &handle }).await?;
    let first = raw.reply_to(write).await?;
    let refused =
        [&first, &close].into_iter().filter_map(|r| r.refused(reply::FAILURE).ok()).collect::<Vec<_>>();
    ensure!(!refused.is_empty(), "{first:?} {close:?}");
    ensure!(close.ok().is_err(), "CLOSE over a hole was answered OK");
    let row = gate.upload("acme", "/upload/gap").await?;
    ensure!(!row.is_accepted(), "{row:?}");
    gate.finish().await
}

#[tokio::test]
async fn winscp_resumes_a_filepart() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(14, 6_000_000);
    let line = ledger.begin("acme", "/upload/w.bin", &data)?;
    let part = "/upload/w.bin.filepart";
    let (connection, mut raw) = gate.raw("acme").await?;
    let handle = raw.open(part, W_C_T, Attrs::sized(6_000_000)).await?;
    let ids = raw.write_all(&handle, 0, &data[..4_500_000], PIECE).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Fsync { handle: &handle }).await?.ok()?;
    connection.valve.cut();
    gate.upload_in("acme", part, "partial").await?;

    let (_second, mut raw) = gate.raw("acme").await?;
    let from = raw.call(Request::Lstat { path: part.as_bytes() }).await?.attrs()?.size.unwrap_or(0);
    ensure!(from == 4_500_000, "{from}");
    let handle = raw.open(part, W_C, Attrs::sized(6_000_000)).await?;
    let ids = raw.write_all(&handle, from, &data[4_500_000..], PIECE).await?;
    let close = raw.send(Request::Close { handle: &handle }).await?;
    raw.all_ok(&ids).await?;
    raw.reply_to(close).await?.ok()?;
    raw.call(Request::Rename { from: part.as_bytes(), to: b"/upload/w.bin" }).await?.ok()?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    let events = gate.event_about("upload.received", "/upload/w.bin", 1).await?;
    assert_eq!(events[0]["data"]["completion_evidence"], "renamed-from-temp");
    gate.finish().await
}

#[tokio::test]
async fn winscp_cancel_keeps_a_partial_that_cannot_be_renamed() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let part = "/upload/cancelled.bin.filepart";
    let handle = raw.open(part, W_C_T, Attrs::sized(100_000)).await?;
    let ids = raw.write_all(&handle, 0, &payload::bytes(1, 60_000), PIECE).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    let renamed = raw.call(Request::Rename { from: part.as_bytes(), to: b"/upload/cancelled.bin" }).await?;
    renamed.refused(reply::FAILURE)?;
    let row = gate.upload_in("acme", part, "partial").await?;
    ensure!(row.received_at.is_none(), "{row:?}");

    // Under a final name the same is refused at CLOSE.
    let handle = raw.open("/upload/short.bin", W_C_T, Attrs::sized(100_000)).await?;
    let ids = raw.write_all(&handle, 0, &payload::bytes(1, 60_000), PIECE).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.refused(reply::FAILURE)?;
    gate.upload_in("acme", "/upload/short.bin", "partial").await?;

    // Its owner may clean both up.
    raw.call(Request::Remove { path: part.as_bytes() }).await?.ok()?;
    raw.call(Request::Remove { path: b"/upload/short.bin" }).await?.ok()?;
    ensure!(raw.names("/upload").await?.is_empty());
    ensure!(gate.uploads().await?.iter().all(|u| u.state == "aborted"), "{:?}", gate.uploads().await?);
    gate.finish().await
}

#[tokio::test]
async fn writes_out_of_order_and_overlapping_within_the_window() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;

    // node ssh2 fastPut: 64 WRITEs in flight, in any order.
    let data = payload::bytes(15, 4_000_000);
    let line = ledger.begin("acme", "/upload/fastput", &data)?;
    let handle = raw.open("/upload/fastput", W_C_T, Attrs::none()).await?;
    let chunks: Vec<(usize, &[u8])> = data.chunks(PIECE).enumerate().collect();
    let mut ids = Vec::new();
    for group in chunks.chunks(8) {
        for (number, chunk) in group.iter().rev() {
            let offset = (number * PIECE) as u64;
            ids.push(raw.send(Request::Write { handle: &handle, offset, data: chunk }).await?);
        }
    }
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    ledger.acknowledge(line)?;

    // Overlapping inside the window: the last arrival wins.
    let mut expected = vec![b'a'; 20_000];
    expected[5_000..10_000].fill(b'b');
    let line = ledger.begin("acme", "/upload/overlap", &expected)?;
    let handle = raw.open("/upload/overlap", W_C_T, Attrs::none()).await?;
    let ids = [
        raw.send(Request::Write { handle: &handle, offset: 10_000, data: &vec![b'a'; 10_000] }).await?,
        raw.send(Request::Write { handle: &handle, offset: 5_000, data: &vec![b'a'; 5_000] }).await?,
        raw.send(Request::Write { handle: &handle, offset: 5_000, data: &vec![b'b'; 5_000] }).await?,
        raw.send(Request::Write { handle: &handle, offset: 0, data: &vec![b'a'; 5_000] }).await?,
    ];
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn a_hole_at_close_is_a_failure_and_never_filled_with_zeros() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let handle = raw.open("/upload/hole", W_C_T, Attrs::none()).await?;
    let ids = [
        raw.send(Request::Write { handle: &handle, offset: 0, data: &[1; 1000] }).await?,
        raw.send(Request::Write { handle: &handle, offset: 2000, data: &[2; 1000] }).await?,
    ];
    let close = raw.call(Request::Close { handle: &handle }).await?;
    close.refused(reply::FAILURE)?;
    for id in ids {
        raw.reply_to(id).await?.status()?;
    }
    ensure!(gate.uploads().await?.iter().all(|u| !u.is_accepted()));
    ensure!(gate.events()?.is_empty(), "{:?}", gate.events()?);
    gate.finish().await
}

#[tokio::test]
async fn scp_without_trunc_and_lftp_with_fsetstat() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(16, 150_000);

    // scp: OPEN W|C, WRITE from 0, FSETSTAT SIZE, CLOSE; first onto nothing, then onto what is there and longer.
    for length in [150_000, 70_000] {
        let data = &data[..length];
        let line = ledger.begin("acme", "/upload/by-scp", data)?;
        let handle = raw.open("/upload/by-scp", W_C, Attrs::mode(0o100_644)).await?;
        let ids = raw.write_all(&handle, 0, data, PIECE).await?;
        raw.all_ok(&ids).await?;
        raw.call(Request::Fsetstat { handle: &handle, attrs: Attrs::sized(length as u64) }).await?.ok()?;
        raw.call(Request::Close { handle: &handle }).await?.ok()?;
        ledger.acknowledge(line)?;
        gate.settled().await?;
    }

    // lftp: OPEN W|C|T, WRITE, FSETSTAT with size and times pipelined before CLOSE.
    let line = ledger.begin("acme", "/upload/by-lftp", &data)?;
    let handle = raw.open("/upload/by-lftp", W_C_T, Attrs::none()).await?;
    let ids = raw.write_all(&handle, 0, &data, PIECE).await?;
    let attrs = Attrs { size: Some(150_000), ..Attrs::timed(1_500_000_000, 1_500_000_000) };
    let tail = raw
        .send_all(&[Request::Fsetstat { handle: &handle, attrs }, Request::Close { handle: &handle }])
        .await?;
    raw.all_ok(&ids).await?;
    raw.all_ok(&tail).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    let events = gate.event_about("upload.received", "/upload/by-lftp", 1).await?;
    assert_eq!(events[0]["data"]["completion_evidence"], "fsetstat-size");

    // A size that was never reached is no acceptance.
    let handle = raw.open("/upload/cut-short", W_C_T, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: b"12345" }).await?.ok()?;
    raw.call(Request::Fsetstat { handle: &handle, attrs: Attrs::sized(10) }).await?.ok()?;
    raw.call(Request::Close { handle: &handle }).await?.refused(reply::FAILURE)?;
    gate.finish().await
}

#[tokio::test]
async fn a_new_session_takes_over_when_the_old_connection_is_gone() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(17, 500_000);
    let line = ledger.begin("acme", "/upload/taken", &data)?;
    let (old, mut first) = gate.raw("acme").await?;
    let handle = first.open("/upload/taken", W_C_T, Attrs::none()).await?;
    let ids = first.write_all(&handle, 0, &data[..300_000], PIECE).await?;
    first.all_ok(&ids).await?;

    // While the old one is busy, the name is in use.
    let (_second, mut raw) = gate.raw("acme").await?;
    let refused =
        raw.call(Request::Open { path: b"/upload/taken", flags: W_C_T, attrs: Attrs::none() }).await?;
    let text = refused.refused(reply::FAILURE)?;
    ensure!(text.contains("being uploaded"), "{text}");

    old.valve.cut();
    let begun = std::time::Instant::now();
    let handle = loop {
        let answer =
            raw.call(Request::Open { path: b"/upload/taken", flags: W_C_T, attrs: Attrs::none() }).await?;
        match answer.handle() {
            Ok(handle) => break handle,
            Err(e) => ensure!(begun.elapsed() < Duration::from_secs(5), "{e:#}"),
        }
    };
    let ids = raw.write_all(&handle, 0, &data, PIECE).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn an_idle_handle_is_taken_over_after_10_seconds_and_its_owner_is_told() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(18, 100_000);
    let (_old, mut first) = gate.raw("acme").await?;
    let stale = first.open("/upload/idle", W_C_T, Attrs::none()).await?;
    first.call(Request::Write { handle: &stale, offset: 0, data: &data[..1000] }).await?.ok()?;

    let (_second, mut raw) = gate.raw("acme").await?;
    let line = ledger.begin("acme", "/upload/idle", &data)?;
    let begun = std::time::Instant::now();
    let handle = loop {
        let answer =
            raw.call(Request::Open { path: b"/upload/idle", flags: W_C_T, attrs: Attrs::none() }).await?;
        match answer.handle() {
            Ok(handle) => break handle,
            Err(e) => ensure!(begun.elapsed() < Duration::from_secs(25), "{e:#}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    ensure!(begun.elapsed() > Duration::from_secs(8), "taken over after {:?}", begun.elapsed());
    let ids = raw.write_all(&handle, 0, &data, PIECE).await?;
    raw.all_ok(&ids).await?;

    first
        .call(Request::Write { handle: &stale, offset: 1000, data: b"late" })
        .await?
        .refused(reply::FAILURE)?;
    let closed = first.call(Request::Close { handle: &stale }).await?;
    ensure!(closed.ok().is_err(), "CLOSE of a handle that was taken over was answered OK");

    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn a_cut_at_any_byte_never_publishes_half_a_file_and_never_loses_an_answer() -> Result<()> {
    const CUTS: u64 = 60;
    let config = "[gateway.listener.limits]\nnew_burst_per_source = 1000\nnew_per_second_per_source = 1000\n\
                  sessions_per_account = 1000\nsessions_per_source = 1000\n";
    let gate = Gate::start(Setup::default().config(config)).await?;
    let ledger = Ledger::in_memory();
    let attempt = async |wire: &Wire, number: u64| -> Result<bool> {
        let transport = dropgate_integration_tests::raw::Transport::default();
        let connection =
            dropgate_integration_tests::raw::Connection::open(wire.address, &gate.login("acme"), &transport)
                .await?;
        let mut raw = connection.sftp().await?;
        raw.init(3).await?;
        let data = payload::bytes(number, 100_000);
        let line = ledger.begin("acme", "/upload/cut", &data)?;
        if number.is_multiple_of(2) {
            raw.stream("/upload/cut", W_C_T, Attrs::none(), &data).await?;
        } else {
            let part = "/upload/cut.filepart";
            raw.stream(part, W_C_T, Attrs::sized(data.len() as u64), &data).await?;
            raw.call(Request::PosixRename { from: part.as_bytes(), to: b"/upload/cut" }).await?.ok()?;
        }
        ledger.acknowledge(line)?;
        Ok(true)
    };
    let whole = Wire::to(gate.sftp()?, u64::MAX).await?;
    attempt(&whole, 0).await?;
    let total = whole.carried();
    let mut through = 0;
    for cut in 1..=CUTS {
        // Close together at the end, where CLOSE and RENAME are.
        let limit = if cut <= CUTS / 3 { total * cut / (CUTS / 3) } else { total + 240 - 12 * (CUTS - cut) };
        let wire = Wire::to(gate.sftp()?, limit).await?;
        through += u64::from(attempt(&wire, cut).await.unwrap_or(false));
    }
    println!("{through} of {CUTS} got their answer before the cut");
    ensure!(through > 0, "every connection was cut too early");
    ensure!(through < CUTS, "no connection was cut");
    // What the last ones sent may still be under way.
    until_true(Duration::from_secs(30), "the end of every session", || async {
        let log = std::fs::read_to_string(gate.log("run"))?;
        Ok(log.matches("login accepted").count() == log.matches("\"disconnected\"").count())
    })
    .await?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}
