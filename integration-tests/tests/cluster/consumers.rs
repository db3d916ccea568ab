//! Downstream systems, as the examples show them: each hears of a file, fetches it and checks it from the event alone.

use crate::REST;
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::Ledger,
    cluster::Cluster,
    harness::{binary, payload, records::text, until::within},
    raw::{Attrs, Connection, Transport, frame},
};
use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// Uploads before anybody listens, and after.
const UNHEARD: u64 = 100;
const LIVE: u64 = 5;
/// The longest that a client may wait for any answer; WinSCP gives up after 15 s.
const ANSWER: Duration = Duration::from_secs(15);
/// How long one event may take to arrive and to be verified.
const EVENT: Duration = Duration::from_secs(60);

/// One running example.
struct Consumer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Consumer {
    /// The two that stand in `examples`, each with a queue of its own and more environment.
    async fn both(cluster: &Cluster, env: &[(&str, &str)]) -> Result<Vec<Self>> {
        let python = std::env::var("DROPGATE_TEST_PYTHON").context("DROPGATE_TEST_PYTHON is not set")?;
        let mut in_python = Command::new(python);
        in_python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/python/consumer.py"));
        let mut in_rust = Command::new(binary::example("consumer")?);
        for command in [&mut in_python, &mut in_rust] {
            command.envs(env.iter().copied());
        }
        Ok(vec![
            Self::start(cluster, in_python, "consumer-in-python").await?,
            Self::start(cluster, in_rust, "consumer-in-rust").await?,
        ])
    }

    async fn start(cluster: &Cluster, mut command: Command, queue: &str) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        command
            .args([queue, "alder-corp.#"])
            .env("AMQP_URL", cluster.broker()?)
            .env("AWS_ENDPOINT_URL", variable("DROPGATE_TEST_S3_ENDPOINT")?)
            .env("AWS_ACCESS_KEY_ID", variable("DROPGATE_TEST_S3_ACCESS_KEY")?)
            .env("AWS_SECRET_ACCESS_KEY", variable("DROPGATE_TEST_S3_SECRET_KEY")?)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("starting a consumer")?;
        let out = child.stdout.take().context("no output")?;
        let mut consumer = Self { child, lines: BufReader::new(out).lines() };
        ensure!(consumer.line().await? == "bound", "the consumer is not bound");
        Ok(consumer)
    }

    async fn line(&mut self) -> Result<String> {
        within(EVENT, "a line of a consumer", self.lines.next_line())
            .await??
            .context("the consumer ended; its error is above")
    }

    /// The next file it verified: event id, sequence, SHA-256.
    async fn verified(&mut self) -> Result<(String, u64, String)> {
        let line = self.line().await?;
        let words: Vec<&str> = line.split(' ').collect();
        let ["verified", id, sequence, _, sha256] = words[..] else { anyhow::bail!("it said {line:?}") };
        Ok((id.to_owned(), sequence.parse()?, sha256.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_find_and_verify_every_file_from_its_event_alone() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let mut consumers = Consumer::both(&cluster, &[]).await?;

    let ledger = Ledger::in_memory();
    let first = cluster.first()?;
    let connection = Connection::open(first.sftp()?, &first.login("alder"), &Transport::default()).await?;
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    let lengths = [0, 4_000, 9 << 20];
    for (number, length) in lengths.into_iter().enumerate() {
        let data = payload::bytes(number as u64, length);
        let path = format!("/upload/Für Sie {number}.bin");
        let line = ledger.begin("alder", &path, &data)?;
        raw.stream(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none(), &data).await?;
        ledger.acknowledge(line)?;
    }
    let sent: BTreeSet<String> = ledger.lines().into_iter().map(|line| line.sha256).collect();
    for consumer in &mut consumers {
        let mut told = BTreeSet::new();
        let mut last = 0;
        for _ in lengths {
            let (_, sequence, sha256) = consumer.verified().await?;
            ensure!(sequence > last, "sequence {sequence} after {last}");
            last = sequence;
            told.insert(sha256);
        }
        ensure!(told == sent, "told {told:?}, sent {sent:?}");
    }

    // Two redeliveries are two more events, each of its own.
    cluster.verify(&ledger, REST).await?;
    let upload =
        first.uploads().await?.into_iter().find(|row| row.size == Some(4_000)).context("no upload")?;
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        first.cli.run(&["uploads", "redeliver", &upload.upload_id]).await?;
        let mut heard = BTreeSet::new();
        for consumer in &mut consumers {
            let (id, _, sha256) = consumer.verified().await?;
            ensure!(Some(&sha256) == upload.sha256.as_ref(), "another file was delivered again");
            heard.insert(id);
        }
        ensure!(heard.len() == 1, "the consumers heard of {heard:?}");
        ids.extend(heard);
    }
    ensure!(ids.len() == 2, "two redeliveries are {ids:?}");
    for mut consumer in consumers {
        consumer.child.kill().await?;
    }
    cluster.finish().await
}

/// Without any consumer nothing waits for one. Who comes late has everything from the log, and then goes on live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_comes_late_closes_its_gap_and_goes_on_live() -> Result<()> {
    let mut cluster = Cluster::start(1, 1).await?;
    let ops = cluster.start_ops().await?;
    let ledger = Ledger::in_memory();
    let first = cluster.first()?;
    let connection = Connection::open(first.sftp()?, &first.login("alder"), &Transport::default()).await?;
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    let mut upload = async |number: u64| -> Result<Duration> {
        let (data, path) = (payload::bytes(number, 2_000), format!("/upload/late-{number}"));
        let line = ledger.begin("alder", &path, &data)?;
        let begun = Instant::now();
        raw.stream(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none(), &data).await?;
        ledger.acknowledge(line)?;
        Ok(begun.elapsed())
    };
    let mut slowest = Duration::ZERO;
    for number in 0..UNHEARD {
        slowest = slowest.max(upload(number).await?);
    }
    println!("the slowest of {UNHEARD} uploads that nobody listens to took {slowest:?}");
    ensure!(slowest < ANSWER, "an upload took {slowest:?} while nobody listened");
    cluster.verify(&ledger, 2 * REST).await?;

    let made = first
        .cli
        .json(&["token", "create", "--name", "late", "--scopes", "events:read", "--partner", "alder-corp"])
        .await?;
    let (api, token) = (format!("http://{ops}"), text(&made, "token"));
    let env = [("DROPGATE_API", api.as_str()), ("DROPGATE_TOKEN", token), ("DROPGATE_AFTER", "0")];
    let mut consumers = Consumer::both(&cluster, &env).await?;
    let mut heard: Vec<Vec<(String, u64, String)>> = vec![Vec::new(); consumers.len()];
    for (consumer, heard) in consumers.iter_mut().zip(&mut heard) {
        for _ in 0..UNHEARD {
            heard.push(consumer.verified().await?);
        }
        let line = consumer.line().await?;
        ensure!(line.starts_with("caught-up "), "it said {line:?}");
    }
    for number in UNHEARD..UNHEARD + LIVE {
        upload(number).await?;
    }
    let sent: BTreeSet<String> = ledger.lines().into_iter().map(|line| line.sha256).collect();
    for (consumer, heard) in consumers.iter_mut().zip(&mut heard) {
        for _ in 0..LIVE {
            heard.push(consumer.verified().await?);
        }
        ensure!(heard.is_sorted_by(|a, b| a.1 < b.1), "not in the partner's order: {heard:?}");
        let ids: BTreeSet<&str> = heard.iter().map(|(id, _, _)| id.as_str()).collect();
        let told: BTreeSet<String> = heard.iter().map(|(_, _, sha256)| sha256.clone()).collect();
        ensure!(ids.len() == heard.len() && told == sent, "{} events of {} files", ids.len(), sent.len());
    }
    for mut consumer in consumers {
        consumer.child.kill().await?;
    }
    cluster.finish().await
}
