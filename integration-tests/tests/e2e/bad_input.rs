//! Bad input gets one clear error that names file, key and remedy, exit code 1 or 2, and loses nothing.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::{Gate, Setup, cli::Outcome, payload};
use std::{net::TcpListener, path::Path};

const RUN: [&str; 5] = ["run", "--sftp-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];

/// The message must hold all of these, be short, and not look like a crash.
fn clear(outcome: &Outcome, codes: &[i32], words: &[&str]) -> Result<()> {
    let text = &outcome.stderr;
    ensure!(codes.contains(&outcome.code()), "exit code {}: {text}", outcome.code());
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Os {", "Error {"] {
        ensure!(!text.contains(trace), "{text}");
    }
    ensure!(text.lines().count() <= 12, "long-winded: {text}");
    Ok(())
}

#[tokio::test]
async fn a_config_with_mistakes() -> Result<()> {
    let mut gate = Gate::prepare(Setup::default()).await?;
    let file = gate.path("bad.toml");
    gate.cli.config = Some(file.clone());
    let name = file.display().to_string();
    for (config, words) in [
        ("[ops]\nlisten = \"127.0.0.1:0\"\n\n[gatway]\nx = 1\n", vec!["bad.toml:4", "gatway"]),
        ("[gateway.listener]\nlissten = \"127.0.0.1:0\"\n", vec!["bad.toml:2", "lissten", "listen"]),
        ("[ops]\nhealth_listen = 8080\n", vec!["bad.toml:2", "ops.health_listen"]),
        ("[gateway.listener]\nidle_seconds = \"ten\"\n", vec!["bad.toml:2", "idle_seconds"]),
        ("[backends.state]\nkind = \"oracle\"\n", vec!["bad.toml:2", "oracle", "sqlite"]),
        (
            "[[route]]\ndestinations = [\"nowhere\"]\n",
            vec!["bad.toml", "route", "nowhere", "[[destination]]"],
        ),
        (
            "[[destination]]\nkind = \"sftp\"\nname = \"a\"\nhost = \"h\"\nusername = \"u\"\npassword = \"hunter2\"\nhost_keys = []\n",
            vec!["bad.toml", "password", "env:"],
        ),
        ("this is not toml", vec!["bad.toml:1"]),
    ] {
        std::fs::write(&file, config)?;
        for command in [&["config", "check"][..], &RUN] {
            let outcome = gate.cli.try_run(command, b"").await.with_context(|| config.to_owned())?;
            clear(&outcome, &[1, 2], &words)
                .map_err(|e| e.context(format!("{command:?} with {config:?}")))?;
            ensure!(!outcome.all().contains("hunter2"), "the secret is repeated: {}", outcome.all());
        }
    }
    // Every problem at once.
    std::fs::write(&file, "[ops]\nlisten = 1\n[log]\nformat = 2\n")?;
    let outcome = gate.cli.try_run(&["config", "check"], b"").await?;
    clear(&outcome, &[1, 2], &["bad.toml:2", "bad.toml:4"])?;

    std::fs::remove_file(&file)?;
    let outcome = gate.cli.try_run(&RUN, b"").await?;
    clear(&outcome, &[1, 2], &[&name, "--config"])?;
    ensure!(!gate.data().join("ready.json").exists());
    gate.finish().await
}

#[tokio::test]
async fn a_port_in_use() -> Result<()> {
    let gate = Gate::prepare(Setup::default()).await?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let outcome =
        gate.cli.try_run(&["run", "--sftp-listen", &address, "--ops-listen", "127.0.0.1:0"], b"").await?;
    clear(&outcome, &[1], &[&address, "listen"])?;
    let outcome =
        gate.cli.try_run(&["run", "--sftp-listen", "127.0.0.1:0", "--ops-listen", &address], b"").await?;
    clear(&outcome, &[1], &[&address, "listen"])?;
    ensure!(!gate.data().join("ready.json").exists(), "ready.json of a start that failed");
    gate.finish().await
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written() -> Result<()> {
    // Root may write anywhere, so a file stands where the directory should be.
    let mut gate = Gate::prepare(Setup::default()).await?;
    let in_the_way = gate.path("in-the-way");
    std::fs::write(&in_the_way, b"precious")?;
    for place in [in_the_way.clone(), in_the_way.join("below"), Path::new("/proc/dropgate").to_owned()] {
        gate.cli.data_dir = place.clone();
        for command in [&RUN[..], &["account", "add", "a", "--partner", "p"], &["uploads", "list"]] {
            let outcome = gate.cli.try_run(command, b"").await?;
            clear(&outcome, &[1, 2], &[&place.display().to_string()])
                .map_err(|e| e.context(format!("{command:?}")))?;
        }
    }
    assert_eq!(std::fs::read(&in_the_way)?, b"precious");
    gate.finish().await
}

#[tokio::test]
async fn a_corrupt_database_is_named_and_left_alone() -> Result<()> {
    let mut gate = Gate::start(Setup::default()).await?;
    let data = payload::bytes(1, 70_000);
    {
        let (_connection, mut raw) = gate.raw("acme").await?;
        raw.put("/upload/kept", &data).await?;
    }
    gate.settled().await?;
    gate.terminate().await?;
    let database = gate.data().join("dropgate.db");
    let good = std::fs::read(&database)?;
    for leftover in ["dropgate.db-wal", "dropgate.db-shm"] {
        let _ = std::fs::remove_file(gate.data().join(leftover));
    }
    let mut no_header = good.clone();
    no_header[..100].fill(b'#');
    for (what, bad) in [
        ("garbage", b"this is not a database, but somebody's notes\n".repeat(100)),
        ("another header", no_header),
        ("cut off", good[..good.len() / 2].to_vec()),
    ] {
        std::fs::write(&database, &bad)?;
        let outcome = gate.cli.try_run(&RUN, b"").await?;
        clear(&outcome, &[1], &[&database.display().to_string()]).map_err(|e| e.context(what))?;
        ensure!(std::fs::read(&database)? == bad, "{what}: the file was changed");
    }
    // Put back, everything is as it was.
    std::fs::write(&database, &good)?;
    gate.launch().await?;
    let row = gate.upload("acme", "/upload/kept").await?;
    ensure!(row.state == "processed" && row.sha256.as_deref() == Some(&payload::sha256(&data)), "{row:?}");
    gate.finish().await
}

#[tokio::test]
async fn corrupt_credentials_and_host_keys_are_named() -> Result<()> {
    let mut gate = Gate::start(Setup::default()).await?;
    gate.terminate().await?;
    let credentials = gate.data().join("credentials.toml");
    let good = std::fs::read(&credentials)?;
    std::fs::write(&credentials, b"{ not toml")?;
    let outcome = gate.cli.try_run(&RUN, b"").await?;
    clear(&outcome, &[1], &[&credentials.display().to_string()])?;
    std::fs::write(&credentials, &good)?;

    let keys = gate.data().join("hostkeys");
    let key = std::fs::read_dir(&keys)?
        .filter_map(|e| e.ok())
        .map(|e| e.path())
        .find(|p| p.extension().is_none_or(|e| e != "pub"));
    let key = key.ok_or_else(|| anyhow::anyhow!("no host key in {}", keys.display()))?;
    let good = std::fs::read(&key)?;
    std::fs::write(&key, b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")?;
    let outcome = gate.cli.try_run(&RUN, b"").await?;
    clear(&outcome, &[1], &[&key.display().to_string()])?;
    std::fs::write(&key, &good)?;
    gate.launch().await?;
    gate.raw("acme").await?;
    gate.finish().await
}

#[tokio::test]
async fn wrong_usage_has_exit_code_2() -> Result<()> {
    let gate = Gate::prepare(Setup::default()).await?;
    for args in
        [&["rum"][..], &["account", "add"], &["uploads", "show", "17"], &["run", "--sftp-listen", "nowhere"]]
    {
        let outcome = gate.cli.try_run(args, b"").await?;
        clear(&outcome, &[2], &[]).map_err(|e| e.context(format!("{args:?}")))?;
        ensure!(!outcome.stderr.is_empty());
    }
    gate.finish().await
}
