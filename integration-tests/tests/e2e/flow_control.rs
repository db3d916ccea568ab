//! The traps of flow control: clients that don't read, new keys in the middle, half-closed connections, long stalls.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, openssh::OpenSsh, payload, until::until_true},
    raw::{Attrs, Request, Transport, frame},
};
use std::time::Duration;

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

#[tokio::test]
async fn ten_thousand_requests_whose_replies_are_never_read() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    let before = gate.usage("run")?;
    connection.valve.shut();
    // Replies of 2 KiB each: 20 MB that nobody takes.
    let long = format!("/upload/{}", vec!["x".repeat(200); 4].join("/"));
    let requests = vec![Request::Realpath { path: long.as_bytes() }; 100];
    let flood = async {
        for _ in 0..100 {
            raw.send_all(&requests).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    // The server may end the session before all is sent; what it must not do is keep it all in memory.
    let sent = tokio::time::timeout(Duration::from_secs(20), flood).await;
    println!("the flood: {sent:?}");

    // Others go on as if nothing were.
    let ledger = Ledger::in_memory();
    let (_other, mut other) = gate.raw("acme").await?;
    let data = payload::bytes(1, 1_000_000);
    let line = ledger.begin("acme", "/upload/beside", &data)?;
    other.put("/upload/beside", &data).await?;
    ledger.acknowledge(line)?;
    let grown = gate.usage("run")?.peak.saturating_sub(before.resident);
    ensure!(grown < 48 << 20, "{} KiB for a client that does not read", grown >> 10);

    // When it reads at last, it gets whole replies up to the end of the session, or all of them.
    connection.valve.open();
    let mut replies = 0;
    while let Ok(Some(reply)) = raw.reply_within(Duration::from_secs(5)).await {
        ensure!(!reply.names()?.is_empty());
        replies += 1;
    }
    println!("{replies} replies were read in the end");
    drop(raw);
    drop(connection);
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn ten_thousand_tiny_requests_are_all_answered_in_order_to_one_who_reads() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.extend(raw.send_all(&vec![Request::Realpath { path: b"." }; 100]).await?);
    }
    for id in ids {
        ensure!(raw.next().await?.id == id);
    }
    gate.finish().await
}

#[tokio::test]
async fn new_keys_every_megabyte_with_the_raw_client_and_with_openssh() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let transport = Transport { rekey_after: 1 << 20, ..Transport::default() };
    let (_connection, mut raw) = gate.raw_over("acme", &transport).await?;
    let data = payload::bytes(2, 24 << 20);
    let line = ledger.begin("acme", "/upload/rekeyed", &data)?;
    raw.stream("/upload/rekeyed", W_C_T, Attrs::none(), &data).await?;
    ledger.acknowledge(line)?;

    let mut client = OpenSsh::new(&gate, "acme")?;
    client.more = vec!["-oRekeyLimit=1M".to_owned()];
    let local = client.local("rekeyed");
    let digest = payload::write_file(&local, 3, 64 << 20)?;
    let line = ledger.begin_digest("acme", "/upload/openssh", 64 << 20, digest)?;
    client.sftp(&format!("put {} /upload/openssh\n", local.display())).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn openssh_with_the_largest_buffer() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let mut client = OpenSsh::new(&gate, "acme")?;
    client.more = ["-B", "261120", "-R", "256"].map(str::to_owned).to_vec();
    let local = client.local("wide");
    let digest = payload::write_file(&local, 4, 50_000_000)?;
    let line = ledger.begin_digest("acme", "/upload/wide", 50_000_000, digest)?;
    client.sftp(&format!("put {} /upload/wide\n", local.display())).await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn a_half_close_and_a_cut_in_a_stall_free_everything() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    // One session first, so that what a process opens once is open.
    gate.raw("acme").await?;
    let descriptors = || gate.usage("run").map(|usage| usage.descriptors);
    let before = descriptors()?;
    for half in [true, false] {
        for number in 0..4 {
            let (connection, mut raw) = gate.raw("acme").await?;
            let path = format!("/upload/stall-{half}-{number}");
            let handle = raw.open(&path, W_C_T, Attrs::none()).await?;
            connection.valve.shut();
            for piece in 0..50_u64 {
                raw.send(Request::Write { handle: &handle, offset: piece * 30_000, data: &[7; 30_000] })
                    .await?;
            }
            if half {
                connection.valve.half_close();
            } else {
                connection.valve.cut();
            }
        }
    }
    until_true(Duration::from_secs(90), "all sockets and files of dead sessions to be closed", || async {
        let now = descriptors()?;
        ensure!(now <= before + 2, "{now} descriptors, {before} before");
        Ok(true)
    })
    .await?;
    until_true(Duration::from_secs(30), "all cut uploads to be partial", || async {
        Ok(gate.uploads().await?.iter().all(|u| u.state == "partial"))
    })
    .await?;
    gate.finish().await
}

#[tokio::test]
async fn four_large_uploads_at_once_stay_within_memory() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = std::sync::Arc::new(Ledger::in_memory());
    let (_warm, mut warm) = gate.raw("acme").await?;
    warm.names("/").await?;
    let before = gate.usage("run")?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4_u64 {
        let client = OpenSsh::new(&gate, "acme")?;
        let ledger = std::sync::Arc::clone(&ledger);
        tasks.spawn(async move {
            let local = client.local("large");
            let path = format!("/upload/large-{number}");
            let digest = payload::write_file(&local, number, 100 << 20)?;
            let line = ledger.begin_digest("acme", &path, 100 << 20, digest)?;
            client.sftp(&format!("put {} {path}\n", local.display())).await?;
            ledger.acknowledge(line)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let grown = gate.usage("run")?.peak.saturating_sub(before.resident);
    println!("4 x 100 MiB: grown by {} KiB", grown >> 10);
    ensure!(grown < 4 * (24 << 20) + (24 << 20), "{} KiB", grown >> 10);
    verify(&gate, &ledger).await?;
    gate.finish().await
}

/// The hang that others met: new keys while the store is slower than the network. The server shares one core with whatever
/// else runs there and writes to a real disk.
#[tokio::test]
#[ignore = "takes minutes: make test-full"]
async fn a_gigabyte_with_new_keys_every_16_mebibytes_into_a_slow_store_five_times() -> Result<()> {
    let wrapper = ["taskset", "-c", "0", "nice", "-n", "19"].map(str::to_owned).to_vec();
    let gate = Gate::start(Setup { wrapper, ..Setup::default().on_disk() }).await?;
    let ledger = Ledger::in_memory();
    let mut client = OpenSsh::new(&gate, "acme")?;
    client.more = vec!["-oRekeyLimit=16M".to_owned()];
    let local = client.local("gigabyte");
    for round in 0..5 {
        let digest = payload::write_file(&local, round, 1 << 30)?;
        let line = ledger.begin_digest("acme", "/upload/gigabyte", 1 << 30, digest)?;
        client.sftp(&format!("put {} /upload/gigabyte\n", local.display())).await?;
        ledger.acknowledge(line)?;
        gate.settled().await?;
    }
    verify(&gate, &ledger).await?;
    gate.finish().await
}
