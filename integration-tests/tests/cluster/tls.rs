//! Every server behind TLS, as it is outside of tests.

use crate::REST;
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    cluster::{Cluster, Tls},
    harness::{
        cli::Cli,
        until::{until_true, within},
    },
};
use std::{process::Stdio, time::Duration};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_is_reached_over_tls_and_only_with_a_certificate_that_is_trusted() -> Result<()> {
    let tls = Tls::start().await?;
    let cluster = Cluster::start_over(&tls, 1, 1).await?;
    let load = cluster.load(2, 3)?;
    until_true(Duration::from_secs(120), "10 uploads", || async { Ok(load.acknowledged() >= 10) }).await?;
    let done = load.stop().await?;
    let evidence = cluster.verify(done.ledger(), REST).await?;
    ensure!(!evidence.delivered.is_empty(), "nothing was delivered");
    for (server, connections) in tls.connections() {
        ensure!(connections > 0, "nobody spoke TLS with {server}");
    }

    // The same config with another authority, for all clients that take those of the host too: the server is named, with what is
    // wrong.
    let gateway = cluster.first()?;
    let config = std::fs::read_to_string(gateway.cli.config.as_ref().context("a config")?)?;
    let (right, wrong) =
        (tls.authority().display().to_string(), tls.another_authority().display().to_string());
    let other = |text: &str| {
        text.replace(&right, &wrong).replace(&right.replace('/', "%2F"), &wrong.replace('/', "%2F"))
    };
    for server in ["Vault", "MongoDB", "Azure Blob", "RabbitMQ"] {
        let mut changed = other(&config);
        for (name, ..) in tls.connections().iter().filter(|(name, _)| *name != server) {
            changed = tls.undone(name, &changed);
        }
        let path = gateway.path("wrong.toml");
        std::fs::write(&path, changed)?;
        let cli = Cli { data_dir: gateway.path("wrong"), config: Some(path), ..gateway.cli.clone() };
        let mut command = cli.command(&["gateway"])?;
        command.env("SSL_CERT_FILE", &wrong);
        let said = said_of_a_certificate(command.into(), &tls.address(server)?).await;
        println!("{server}: {}", said.with_context(|| server.to_owned())?);
    }
    cluster.finish().await
}

/// Starts the program and waits for the line in which it says that the certificate of the server at `address` is wrong.
async fn said_of_a_certificate(mut command: tokio::process::Command, address: &str) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("its output")?).lines();
    let mut all = Vec::new();
    let found = within(Duration::from_secs(120), "a word on the certificate", async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("certificate") && line.contains(address) {
                return Ok(Some(line));
            }
            all.push(line);
        }
        anyhow::Ok(None)
    });
    let found = found.await;
    child.kill().await?;
    found??.with_context(|| format!("it ended without one:\n{}", all.join("\n")))
}
