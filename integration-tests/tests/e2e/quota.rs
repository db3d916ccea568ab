//! Quotas of an account, set by command and met by a real client.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Setup, openssh::OpenSsh, payload, until::until},
    raw::{Attrs, Request, frame, reply},
};
use std::time::Duration;

#[tokio::test]
async fn a_client_is_told_that_its_quota_is_used_up_and_an_operator_lifts_it() -> Result<()> {
    let gate = Gate::start(Setup::default().accounts(&[])).await?;
    gate.add_account("acme", &["--uploads-per-day", "2", "--total-bytes", "1MiB"]).await?;
    let told = gate.cli.json(&["account", "show", "acme"]).await?;
    ensure!(told["quota"]["uploads_per_day"] == 2 && told["quota"]["total_bytes"] == 1_048_576, "{told}");
    let client = OpenSsh::new(&gate, "acme")?;
    let local = client.local("file");
    std::fs::write(&local, payload::bytes(1, 700_000))?;
    let put = |name: &str| format!("put {} /upload/{name}\n", local.display());

    client.sftp(&put("a")).await?;
    let df = client.sftp("df /upload\n").await?;
    ensure!(df.stdout.contains("1024") && df.stdout.contains("66%"), "{}", df.stdout);
    // 700,000 of 1,048,576 bytes are used: the rest does not hold it.
    let refused = client.try_sftp(&put("b")).await?;
    ensure!(!refused.status.success(), "{}", refused.all());
    let refusal = until(Duration::from_secs(30), "the refusal to be on record", || async {
        let trail = gate.audit(&["--result", "refused"]).await?;
        Ok(trail.into_iter().find(|e| e["reason"].as_str().is_some_and(|r| r.contains("over quota"))))
    })
    .await?;
    ensure!(refusal["reference"].is_string() && refusal["account"] == "acme", "{refusal}");

    gate.cli.run(&["account", "change", "acme", "--total-bytes", "none"]).await?;
    client.sftp(&put("b")).await?;
    ensure!(!client.try_sftp(&put("c")).await?.status.success());
    // OpenSSH keeps the sentence to itself; WinSCP and FileZilla show it.
    let (_connection, mut raw) = gate.raw("acme").await?;
    let flags = frame::WRITE | frame::CREAT;
    let refused = raw.call(Request::Open { path: b"/upload/c", flags, attrs: Attrs::none() }).await?;
    let told = refused.refused(reply::FAILURE)?;
    ensure!(told.contains("sent its 2 files of today; try again after 00:00 UTC"), "{told}");
    gate.cli.run(&["account", "change", "acme", "--uploads-per-day", "3"]).await?;
    client.sftp(&put("c")).await?;
    let shown = gate.cli.run(&["account", "show", "acme"]).await?;
    ensure!(shown.contains("quota          3 files a day") && !shown.contains("bytes in all"), "{shown}");
    gate.finish().await
}
