//! Each server that a cluster stands on, out of order while partners upload: clients are told the right thing soon, what was
//! accepted is safe, and everything is done once the server is back.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::Ledger,
    cluster::{Cluster, Detour, Load},
    harness::{
        http::get,
        payload,
        until::{until, until_true},
    },
    raw::{Attrs, Connection, Raw, Request, Transport, frame},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// What partners see while a server is out of order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Uploads are accepted, and are delivered later.
    Nothing,
    /// Uploads are refused with FAILURE, and nothing else.
    Failure,
}

/// How a server is out of order.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Connections stay open and nothing answers.
    Paused,
    /// Connections are refused.
    Stopped,
}

impl Fault {
    const fn commands(self) -> (&'static str, &'static str) {
        match self {
            Self::Paused => ("pause", "resume"),
            Self::Stopped => ("stop", "start"),
        }
    }
}

/// Clients that upload without rest, besides the one that is looked at.
const UPLOADERS: usize = 3;
/// The longest that a client may wait for any answer; WinSCP gives up after 15 s.
const ANSWER: Duration = Duration::from_secs(15);
/// Within this, `/readyz` tells of a server that went or came back.
const READY: Duration = Duration::from_secs(45);
/// Within this, what was accepted before and meanwhile is done after the server is back and the load has ended.
const DRAINED: Duration = Duration::from_secs(60);

fn services(command: &str, server: &str) -> Result<()> {
    ensure!(
        std::env::var_os("DROPGATE_TEST_SERVICES").is_some(),
        "DROPGATE_TEST_SERVICES is not set: this test stops servers, run it under `scripts/services run --`"
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    let output = Command::new(script).args([command, server]).output().context(script)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "scripts/services {command} {server}: {said}");
    Ok(())
}

/// Puts the server back in order, also when the test ends early: the next one needs it.
struct Broken(&'static str, Fault);

impl Broken {
    fn new(server: &'static str, fault: Fault) -> Result<Self> {
        services(fault.commands().0, server)?;
        Ok(Self(server, fault))
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if let Err(error) = services(self.1.commands().1, self.0) {
            eprintln!("{error:#}");
        }
    }
}

async fn session(cluster: &Cluster) -> Result<(Connection, Raw)> {
    let first = cluster.first()?;
    let connection = Connection::open(first.sftp()?, &first.login("alder"), &Transport::default()).await?;
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    Ok((connection, raw))
}

/// One upload; whether it was accepted, and how long the slowest answer took.
async fn upload(raw: &mut Raw, ledger: &Ledger, number: u64, length: usize) -> Result<(bool, Duration)> {
    let data = payload::bytes(number, length);
    let path = format!("/upload/file-{number}");
    let line = ledger.begin("alder", &path, &data)?;
    let begun = Instant::now();
    let refused = refusal(raw, &path, &data).await?;
    let took = begun.elapsed();
    let Some((code, text)) = refused else {
        ledger.acknowledge(line)?;
        return Ok((true, took));
    };
    ensure!(code == 4, "a server that is out of order is told as FAILURE, not as {code}: {text}");
    Ok((false, took))
}

/// Uploads; the first refusal, if there was one.
async fn refusal(raw: &mut Raw, path: &str, data: &[u8]) -> Result<Option<(u32, String)>> {
    let flags = frame::WRITE | frame::CREAT | frame::TRUNC;
    let opened = raw.call(Request::Open { path: path.as_bytes(), flags, attrs: Attrs::none() }).await?;
    let Ok(handle) = opened.handle() else {
        return opened.status().map(|(code, text)| Some((code, text.to_owned())));
    };
    let mut replies = raw.write_all(&handle, 0, data, 32_000).await?;
    replies.push(raw.send(Request::Close { handle: &handle }).await?);
    let mut refused = None;
    for id in replies {
        let reply = raw.reply_to(id).await?;
        let (code, text) = reply.status()?;
        if code != 0 && refused.is_none() {
            refused = Some((code, text.to_owned()));
        }
    }
    Ok(refused)
}

/// The members that the server's absence makes unready; the others stay ready.
fn unready_without(server: &str) -> &'static [&'static str] {
    match server {
        "azurite" | "mongodb" => &["gateway", "worker"],
        "rabbitmq" => &["worker"],
        "openbao" => &["gateway"],
        _ => &[],
    }
}

/// Waits until `/readyz` of each member says what it should while `unready` of them miss a store that they need.
async fn readiness(cluster: &Cluster, unready: &[&str]) -> Result<()> {
    for (role, members) in [("gateway", &cluster.gateways), ("worker", &cluster.workers)] {
        let wanted = if unready.contains(&role) { 503 } else { 200 };
        for member in members {
            let what = format!("/readyz of the {role} to say {wanted}");
            until_true(READY, &what, || async {
                let answer = get(member.health()?, "/readyz", None).await?;
                ensure!(answer.status == wanted, "{answer:?}");
                Ok(true)
            })
            .await?;
        }
    }
    Ok(())
}

/// Waits until the load has had so many more uploads accepted.
async fn accepted(load: &Load, more: usize) -> Result<()> {
    let wanted = load.acknowledged() + more;
    until_true(READY, &format!("{wanted} uploads"), || async { Ok(load.acknowledged() >= wanted) }).await
}

async fn live_through(server: &'static str, fault: Fault, seen: Seen) -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let load = cluster.load(UPLOADERS, 23)?;
    let ledger = load.ledger();
    let (_connection, mut raw) = session(&cluster).await?;
    let mut number = 0;
    let mut next = || {
        number += 1;
        // Some ride in the record, some are stored by themselves.
        (number, if number % 2 == 0 { 3_000 } else { 300_000 })
    };
    for _ in 0..6 {
        let (number, length) = next();
        ensure!(upload(&mut raw, ledger, number, length).await?.0, "an upload while all is well was refused");
    }

    readiness(&cluster, &[]).await?;
    accepted(&load, UPLOADERS).await?;
    let broken = Broken::new(server, fault)?;
    readiness(&cluster, unready_without(server)).await?;
    // Whoever logged in lately still can: stores of accounts and of verifiers are remembered.
    let begun = Instant::now();
    session(&cluster).await.with_context(|| format!("a login while {server} is out of order"))?;
    let took = begun.elapsed();
    ensure!(took < ANSWER, "{server} is out of order and a login took {took:?}");
    for _ in 0..3 {
        let (number, length) = next();
        let (accepted, took) = upload(&mut raw, ledger, number, length).await?;
        ensure!(took < 2 * ANSWER, "{server} is out of order and an upload of {length} bytes took {took:?}");
        match seen {
            Seen::Nothing => ensure!(accepted, "{server} is out of order, and an upload was refused"),
            // A small file may still be accepted while nobody knows that the blob store is down.
            Seen::Failure => {
                ensure!(!accepted || length < 65_536, "{server} is out of order, and an upload was accepted")
            }
        }
    }
    if seen == Seen::Nothing {
        accepted(&load, UPLOADERS).await.with_context(|| format!("while {server} is out of order"))?;
    }
    let meanwhile = load.acknowledged();
    drop(broken);
    let back = Instant::now();

    // The next upload is accepted soon, over the session that was there all the time or a new one.
    until(Duration::from_secs(45), "an upload to be accepted again", || {
        let (number, length) = next();
        let cluster = &cluster;
        async move {
            let (_connection, mut raw) = session(cluster).await?;
            Ok(upload(&mut raw, ledger, number, length).await?.0.then_some(()))
        }
    })
    .await?;
    let accepted_again = back.elapsed();
    let done = load.stop().await?;
    let (ended, acknowledged) = (back.elapsed(), done.acknowledged());
    // It fails if that takes longer.
    cluster.verify(done.ledger(), DRAINED).await?;
    println!(
        "{server} {fault:?}: {acknowledged} uploads, {meanwhile} of them before it was back; accepted again after \
         {accepted_again:.1?}, the load ended after {ended:.1?}, everything was done and checked after {:.1?}",
        back.elapsed()
    );
    readiness(&cluster, &[]).await?;
    cluster.finish().await
}

/// Several partners upload while every answer of one server is late, and bytes come and go slowly. Nothing is refused: a slow
/// server is no reason to.
async fn live_with_slow(server: &'static str, variable: &str) -> Result<()> {
    let detour = Detour::to(variable).await?;
    let cluster = Cluster::start_by(Some(&detour), 1, 1).await?;
    let ledger = Ledger::in_memory();
    detour.slow(true);
    let partner = async |first: u64| {
        let (_connection, mut raw) = session(&cluster).await?;
        for number in first..first + 4 {
            let length = if number % 2 == 0 { 3_000 } else { 300_000 };
            let (accepted, took) = upload(&mut raw, &ledger, number, length).await?;
            ensure!(accepted, "{server} is slow, and an upload was refused");
            ensure!(took < 2 * ANSWER, "{server} is slow and an upload of {length} bytes took {took:?}");
        }
        anyhow::Ok(())
    };
    tokio::try_join!(partner(100), partner(200), partner(300))?;
    detour.slow(false);
    let quick = Instant::now();
    cluster.verify(&ledger, DRAINED).await?;
    println!("{server}: everything was done {:?} after it was quick again", quick.elapsed());
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_store_is_slow() -> Result<()> {
    live_with_slow("mongodb", "DROPGATE_TEST_MONGODB_URI").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_is_slow() -> Result<()> {
    live_with_slow("rabbitmq", "DROPGATE_TEST_AMQP_URI").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blob_store_is_slow() -> Result<()> {
    live_with_slow("azurite", "DROPGATE_TEST_AZURE_ENDPOINT").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destination_is_slow() -> Result<()> {
    live_with_slow("minio", "DROPGATE_TEST_S3_ENDPOINT").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credential_store_is_slow() -> Result<()> {
    live_with_slow("openbao", "DROPGATE_TEST_VAULT_ADDR").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_does_not_answer() -> Result<()> {
    live_through("rabbitmq", Fault::Paused, Seen::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same as when it does not answer, but for a stop and a start: make test-full"]
async fn the_broker_is_gone() -> Result<()> {
    live_through("rabbitmq", Fault::Stopped, Seen::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destination_does_not_answer() -> Result<()> {
    live_through("minio", Fault::Paused, Seen::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same as when it does not answer, but for a stop and a start: make test-full"]
async fn the_destination_is_gone() -> Result<()> {
    live_through("minio", Fault::Stopped, Seen::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blob_store_does_not_answer() -> Result<()> {
    live_through("azurite", Fault::Paused, Seen::Failure).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same as when it does not answer, but for a stop and a start: make test-full"]
async fn the_blob_store_is_gone() -> Result<()> {
    live_through("azurite", Fault::Stopped, Seen::Failure).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_store_does_not_answer() -> Result<()> {
    live_through("mongodb", Fault::Paused, Seen::Failure).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same as when it does not answer, but for a stop and a start: make test-full"]
async fn the_state_store_is_gone() -> Result<()> {
    live_through("mongodb", Fault::Stopped, Seen::Failure).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credential_store_does_not_answer() -> Result<()> {
    live_through("openbao", Fault::Paused, Seen::Nothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same as when it does not answer, but for a stop and a start: make test-full"]
async fn the_credential_store_is_gone() -> Result<()> {
    live_through("openbao", Fault::Stopped, Seen::Nothing).await
}
