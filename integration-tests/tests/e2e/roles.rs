//! Roles as processes of their own, kills of each, and an orderly end.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, binary::workspace, cli::Cli, http::get, payload, until::until},
    raw::{Attrs, Overwrite, Request, frame},
};
use std::time::Duration;

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

#[tokio::test]
async fn three_processes_on_one_data_directory_do_the_job() -> Result<()> {
    let mut gate = Gate::start(Setup::default().three_roles().on_disk()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    for number in 0..20_u64 {
        let data = payload::bytes(number, 1 << (number % 21));
        let path = format!("/upload/f{number}");
        let line = ledger.begin("acme", &path, &data)?;
        if number % 2 == 0 {
            raw.put(&path, &data).await?;
        } else {
            raw.winscp_large(&path, &data, Overwrite::No).await?;
        }
        ledger.acknowledge(line)?;
    }
    verify(&gate, &ledger).await?;

    // Without a worker all is accepted as before; when one is back it is delivered.
    gate.kill_role("worker")?;
    let data = payload::bytes(99, 300_000);
    let line = ledger.begin("acme", "/upload/renamed", &data)?;
    raw.put("/upload/waits", &data).await?;
    let row = gate.upload("acme", "/upload/waits").await?;
    ensure!(row.state == "committed", "{row:?}");
    // An accepted file that no worker has claimed may be renamed: the same upload, a new path.
    raw.call(Request::Rename { from: b"/upload/waits", to: b"/upload/renamed" }).await?.ok()?;
    ledger.acknowledge(line)?;
    let renamed = gate.upload("acme", "/upload/renamed").await?;
    ensure!(renamed.upload_id == row.upload_id && renamed.state == "committed", "{renamed:?}");
    gate.launch_role("worker").await?;
    gate.event_about("upload.renamed", "/upload/renamed", 1).await?;
    verify(&gate, &ledger).await?;

    // Without the gateway what was accepted goes on.
    gate.kill_role("gateway")?;
    ensure!(gate.uploads().await?.len() == 21);
    gate.launch_role("gateway").await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(100, 10);
    let line = ledger.begin("acme", "/upload/again", &data)?;
    raw.put("/upload/again", &data).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn health_and_metrics_answer() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/counted", b"1234").await?;
    gate.settled().await?;
    for (path, expected) in [("/livez", ""), ("/readyz", ""), ("/metrics", "dropgate_")] {
        let answer = get(gate.ops()?, path, None).await?;
        ensure!(
            answer.status == 200 && answer.body.contains(expected),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
    gate.finish().await
}

#[tokio::test]
async fn sigterm_lets_a_close_in_progress_finish() -> Result<()> {
    let mut gate = Gate::start(Setup::default().on_disk()).await?;
    let ledger = Ledger::create(&gate.path("ledger.ndjson"))?;
    let data = payload::bytes(1, 20_000_000);
    let (_connection, mut raw) = gate.raw("acme").await?;
    let line = ledger.begin("acme", "/upload/closing", &data)?;
    let handle = raw.open("/upload/closing", W_C_T, Attrs::none()).await?;
    let ids = raw.write_all(&handle, 0, &data, 32_000).await?;
    raw.all_ok(&ids).await?;
    let close = raw.send(Request::Close { handle: &handle }).await?;
    for (role, end) in gate.terminate().await? {
        ensure!(end.code() == Some(0), "{role} ended with {end}");
    }
    // Either it was answered OK before the end, then it must be there, or it was not.
    if let Ok(answer) = raw.reply_to(close).await
        && answer.ok().is_ok()
    {
        ledger.acknowledge(line)?;
    }
    gate.launch().await?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn an_interrupted_upload_survives_a_kill_and_is_resumed() -> Result<()> {
    let mut gate = Gate::start(Setup::default().on_disk()).await?;
    let ledger = Ledger::in_memory();
    let data = payload::bytes(2, 10_000_000);
    let line = ledger.begin("acme", "/upload/survivor", &data)?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let handle = raw.open("/upload/survivor", W_C_T, Attrs::none()).await?;
    let ids = raw.write_all(&handle, 0, &data[..6_000_000], 32_000).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Fsync { handle: &handle }).await?.ok()?;
    // A second one under a temp name, complete and held.
    let held = payload::bytes(3, 400_000);
    let held_line = ledger.begin("acme", "/upload/held.bin", &held)?;
    raw.stream("/upload/held.bin.filepart", W_C_T, Attrs::none(), &held).await?;
    gate.kill()?;
    gate.launch().await?;

    let (_connection, mut raw) =
        until(Duration::from_secs(10), "a session", || async { gate.raw("acme").await.map(Some) }).await?;
    let begun = std::time::Instant::now();
    let from = loop {
        let size = raw.call(Request::Stat { path: b"/upload/survivor" }).await?.attrs()?.size.unwrap_or(0);
        let answer = raw
            .call(Request::Open { path: b"/upload/survivor", flags: frame::WRITE, attrs: Attrs::none() })
            .await?;
        match answer.handle() {
            Ok(handle) => break (handle, size),
            Err(e) => ensure!(begun.elapsed() < Duration::from_secs(10), "{e:#}"),
        }
    };
    let (handle, size) = from;
    ensure!(size == 6_000_000, "{size} bytes after fsync of 6000000 and kill -9");
    let ids = raw.write_all(&handle, size, &data[6_000_000..], 32_000).await?;
    raw.all_ok(&ids).await?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    ledger.acknowledge(line)?;
    raw.call(Request::Rename { from: b"/upload/held.bin.filepart", to: b"/upload/held.bin" }).await?.ok()?;
    ledger.acknowledge(held_line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn a_second_start_on_the_same_data_directory_is_refused() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let args = ["run", "--sftp-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let second = gate.cli.try_run(&args, b"").await?;
    ensure!(
        second.code() == 1 && second.stderr.contains(&gate.data().display().to_string()),
        "{}",
        second.all()
    );
    gate.raw("acme").await?;
    gate.finish().await
}

#[tokio::test]
async fn an_embedded_data_directory_with_undelivered_uploads_is_not_left_for_a_cluster() -> Result<()> {
    let mut gate = Gate::start(Setup::default().three_roles()).await?;
    gate.kill_role("worker")?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for number in 0..3 {
        raw.put(&format!("/upload/f{number}"), b"accepted").await?;
    }
    gate.terminate().await?;
    // The config of a cluster as it is shipped; none of its servers is there, nor any of the secrets it names.
    let cluster = Cli {
        data_dir: gate.data().to_owned(),
        config: Some(workspace()?.join("config/cluster.toml")),
        env: Vec::new(),
    };
    for role in ["gateway", "worker", "ops"] {
        let refused = cluster.try_run(&[role], b"").await?;
        let said = &refused.stderr;
        ensure!(refused.code() == 1, "{role} ended with {}: {said}", refused.code());
        let (path, sentence) = (gate.data().join("dropgate.db"), "3 accepted uploads that are not delivered");
        ensure!(
            said.contains(&path.canonicalize()?.display().to_string()) && said.contains(sentence),
            "{said}"
        );
        ensure!(said.contains("dropgate run") && said.contains("another data directory"), "{said}");
    }
    // Nothing was lost by that, and once it is delivered nothing stands in the way.
    gate.launch().await?;
    for number in 0..3 {
        gate.event_about("upload.delivered", &format!("/upload/f{number}"), 1).await?;
    }
    gate.terminate().await?;
    let goes_on = cluster.try_run(&["ops"], b"").await?;
    ensure!(goes_on.code() == 1 && !goes_on.stderr.contains("accepted uploads"), "{}", goes_on.stderr);
    gate.finish().await
}
