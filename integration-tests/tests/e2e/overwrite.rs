//! New versions of a name that was accepted before, in the ways of every client.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, openssh::OpenSsh, payload},
    raw::{Attrs, Overwrite, Request, frame, reply},
};

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

#[tokio::test]
async fn put_over_an_accepted_name_makes_a_new_version() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let client = OpenSsh::new(&gate, "acme")?;
    let local = client.local("report.csv");
    for round in 1..=3_u64 {
        let data = payload::bytes(round, 10_000 * usize::try_from(round)?);
        std::fs::write(&local, &data)?;
        let line = ledger.begin("acme", "/upload/report.csv", &data)?;
        client.sftp(&format!("put {} /upload/report.csv\n", local.display())).await?;
        ledger.acknowledge(line)?;
        // The second comes while the first may still be queued, the third after delivery.
        if round == 2 {
            gate.settled().await?;
        }
    }
    verify(&gate, &ledger).await?;
    let row = gate.upload("acme", "/upload/report.csv").await?;
    ensure!(row.version == 3 && row.size == Some(30_000), "{row:?}");
    gate.finish().await
}

#[tokio::test]
async fn the_old_version_stays_until_the_new_close() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/stable", b"first version").await?;
    gate.settled().await?;
    let handle = raw.open("/upload/stable", W_C_T, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: b"second" }).await?.ok()?;
    let sent = raw.call(Request::Stat { path: b"/sent/stable" }).await?.attrs()?;
    assert_eq!(sent.size, Some(13));
    connection.valve.cut();
    let (_second, mut raw) = gate.raw("acme").await?;
    assert_eq!(raw.call(Request::Stat { path: b"/sent/stable" }).await?.attrs()?.size, Some(13));
    assert_eq!(std::fs::read(gate.delivered("acme").join("stable"))?, b"first version");
    gate.finish().await
}

#[tokio::test]
async fn winscp_uploads_and_overwrites_large_files() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    let first = payload::bytes(21, 700_000);
    let line = ledger.begin("acme", "/upload/w.pdf", &first)?;
    raw.winscp_large("/upload/w.pdf", &first, Overwrite::No).await?;
    ledger.acknowledge(line)?;
    for round in 0..2_u64 {
        // Round 0 meets it while it may be on its way, round 1 when it is in /sent.
        let next = payload::bytes(22 + round, 650_000);
        let line = ledger.begin("acme", "/upload/w.pdf", &next)?;
        raw.winscp_large("/upload/w.pdf", &next, Overwrite::RemoveThenRename)
            .await
            .with_context(|| format!("round {round}"))?;
        ledger.acknowledge(line)?;
        gate.settled().await?;
    }
    verify(&gate, &ledger).await?;
    let rows = gate.uploads().await?;
    ensure!(rows.len() == 3, "one upload is one record: {rows:?}");
    ensure!(
        gate.event_about("upload.deleted", "/upload/w.pdf", 0).await?.is_empty(),
        "REMOVE destroyed something"
    );
    let received = gate.event_about("upload.received", "/upload/w.pdf", 3).await?;
    ensure!(received.len() == 3, "one upload, one event: {received:?}");
    gate.finish().await
}

#[tokio::test]
async fn winscp_uploads_and_overwrites_small_files() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    for round in 0..3_u64 {
        let data = payload::bytes(30 + round, 50_000);
        let line = ledger.begin("acme", "/upload/small.txt", &data)?;
        raw.winscp_small("/upload/small.txt", &data).await.with_context(|| format!("round {round}"))?;
        ledger.acknowledge(line)?;
        gate.settled().await?;
    }
    verify(&gate, &ledger).await?;
    let events = gate.event_about("upload.received", "/upload/small.txt", 3).await?;
    assert_eq!(events[0]["data"]["completion_evidence"], "declared-size");
    gate.finish().await
}

#[tokio::test]
async fn rclone_overwrites_from_another_connection() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_one, mut writer) = gate.raw("acme").await?;
    let (_two, mut renamer) = gate.raw("acme").await?;
    for (round, overwrite) in
        [Overwrite::No, Overwrite::PosixRename, Overwrite::RemoveThenRename].into_iter().enumerate()
    {
        let data = payload::bytes(40 + round as u64, 300_000);
        let line = ledger.begin("acme", "/upload/r.bin", &data)?;
        let part = "/upload/r.bin.1234abcd.partial";
        writer.stream(part, W_C_T, Attrs::none(), &data).await?;
        let times = Attrs::timed(1_650_000_000, 1_650_000_000);
        renamer.call(Request::Setstat { path: part.as_bytes(), attrs: times }).await?.ok()?;
        renamer
            .rename_over(part, "/upload/r.bin", overwrite)
            .await
            .with_context(|| format!("{overwrite:?}"))?;
        ledger.acknowledge(line)?;
        let stat = writer.call(Request::Stat { path: b"/upload/r.bin" }).await?.attrs()?;
        ensure!(stat.size == Some(300_000) && stat.times.map(|t| t.1) == Some(1_650_000_000), "{stat:?}");
        gate.settled().await?;
    }
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn rename_rules_of_final_and_temp_names() -> Result<()> {
    let gate = Gate::start(Setup::default().config("[workers]\nparallel = 1\n")).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.call(Request::Mkdir { path: b"/upload/d" }).await?.ok()?;
    raw.put("/upload/a", b"aaa").await?;
    raw.put("/upload/b", b"bbb").await?;
    gate.settled().await?;
    // In /sent nothing is renamed; a final name does not become a temp name; a directory is not renamed at all.
    raw.call(Request::Rename { from: b"/sent/a", to: b"/sent/c" })
        .await?
        .refused(reply::PERMISSION_DENIED)?;
    raw.call(Request::Rename { from: b"/upload/d", to: b"/upload/e" })
        .await?
        .refused(reply::OP_UNSUPPORTED)?;
    raw.call(Request::Rename { from: b"/upload/nothing", to: b"/upload/e" })
        .await?
        .refused(reply::NO_SUCH_FILE)?;
    let held = "/upload/t.filepart";
    raw.stream(held, W_C_T, Attrs::none(), b"held").await?;
    raw.call(Request::Rename { from: held.as_bytes(), to: b"/upload/d/t" })
        .await?
        .refused(reply::PERMISSION_DENIED)?;
    raw.call(Request::Rename { from: held.as_bytes(), to: b"/sent/t" })
        .await?
        .refused(reply::PERMISSION_DENIED)?;
    raw.call(Request::PosixRename { from: held.as_bytes(), to: b"/upload/a" }).await?.ok()?;
    let row = gate.upload_in("acme", "/upload/a", "processed").await?;
    ensure!(row.version == 2 && row.size == Some(4), "{row:?}");
    assert_eq!(std::fs::read(gate.delivered("acme").join("a"))?, b"held");

    // REMOVE of an accepted name in /upload destroys nothing without a held temp name that maps to it.
    raw.call(Request::Remove { path: b"/upload/b" }).await?.status()?;
    assert_eq!(raw.call(Request::Stat { path: b"/sent/b" }).await?.attrs()?.size, Some(3));
    gate.finish().await
}

#[tokio::test]
async fn two_sessions_that_put_the_same_name_at_once_leave_whole_versions() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = std::sync::Arc::new(Ledger::in_memory());
    let mut tasks = tokio::task::JoinSet::new();
    for session in 0..4_u64 {
        let (connection, mut raw) = gate.raw("acme").await?;
        let ledger = std::sync::Arc::clone(&ledger);
        tasks.spawn(async move {
            let _connection = connection;
            let mut accepted = 0;
            for round in 0..5_u64 {
                let data = payload::bytes(session * 100 + round, 200_000);
                let line = ledger.begin("acme", "/upload/contended", &data)?;
                if raw.stream("/upload/contended", W_C_T, Attrs::none(), &data).await.is_ok() {
                    ledger.acknowledge(line)?;
                    accepted += 1;
                }
            }
            Ok::<_, anyhow::Error>(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(done) = tasks.join_next().await {
        accepted += done??;
    }
    ensure!(accepted > 0, "nobody got through");
    verify(&gate, &ledger).await?;
    gate.finish().await
}
