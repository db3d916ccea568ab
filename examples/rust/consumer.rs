//! A downstream system in Rust: hears of delivered files over AMQP, fetches each from S3 and checks it, from the event alone.
//!
//! `AMQP_URL=amqp://user:password@host:5672/vhost consumer QUEUE BINDING [COUNT]`
//!
//! It makes a durable queue of its own, binds it to the exchange `dropgate.events`, and acknowledges an event only after
//! the object it names was fetched and has the SHA-256 that the event tells. Delivery is at least once: an event id that
//! was seen before is skipped. With COUNT it ends after so many files. S3 is reached with the usual `AWS_*` variables.
//!
//! What happened before the queue was bound, or while it was lost, comes from the event log over HTTP:
//!
//! `DROPGATE_API=http://ops.example.com:8080 DROPGATE_TOKEN=dgt_... DROPGATE_AFTER=0 ...`
//!
//! reads everything after that position once the queue is bound, and goes on with the queue then. Nothing is between the two: an
//! event is in the log before it is published. The token needs the scope `events:read`, and shows one partner if it is bound to one.

use anyhow::{Context as _, Result, bail, ensure};
use aws_config::BehaviorVersion;
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{collections::HashSet, time::Duration};

/// What of an event is needed. The schemas under `schemas/json` have the rest.
#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    sequence: String,
    data: serde_json::Value,
}

/// One page of the event log.
#[derive(Deserialize)]
struct Page {
    events: Vec<Logged>,
    next: u64,
}

#[derive(Deserialize)]
struct Logged {
    event: Event,
}

#[derive(Deserialize)]
struct Delivered {
    sha256: String,
    size: u64,
    destination: Destination,
}

#[derive(Deserialize)]
struct Destination {
    uri: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (queue, binding) = args.next().zip(args.next()).context("usage: consumer QUEUE BINDING [COUNT]")?;
    let wanted: Option<usize> = args.next().map(|count| count.parse()).transpose()?;

    let config = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let s3 = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build(),
    );
    let address = std::env::var("AMQP_URL").context("AMQP_URL is not set")?;
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, quorum).await?;
    channel
        .queue_bind(
            queue.as_str().into(),
            "dropgate.events".into(),
            binding.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    channel.basic_qos(16, BasicQosOptions::default()).await?;
    let mut events = channel
        .basic_consume(
            queue.as_str().into(),
            "consumer".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    println!("bound");

    // Kept in memory here; a real system keeps the ids, or the last position of the log, with its own data.
    let mut seen = HashSet::new();
    if let Ok(api) = std::env::var("DROPGATE_API") {
        println!("caught-up {}", catch_up(&api, &s3, &mut seen).await?);
    }
    while let Some(message) = events.next().await {
        let message = message?;
        take(&s3, serde_json::from_slice(&message.data)?, &mut seen).await?;
        message.acker.ack(BasicAckOptions::default()).await?;
        if wanted.is_some_and(|wanted| seen.len() >= wanted) {
            break;
        }
    }
    Ok(())
}

/// Takes what is in the log after the position that the environment names, and returns the last position.
async fn catch_up(api: &str, s3: &aws_sdk_s3::Client, seen: &mut HashSet<String>) -> Result<u64> {
    let token = std::env::var("DROPGATE_TOKEN").context("DROPGATE_TOKEN is not set")?;
    let mut after: u64 = std::env::var("DROPGATE_AFTER").map_or(Ok(0), |text| text.parse())?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    loop {
        let asked = client.get(format!("{api}/api/v1/events?after={after}")).bearer_auth(&token);
        let answer = asked.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the event log answered {status}: {text}");
        let page: Page = serde_json::from_str(&text)?;
        if page.events.is_empty() {
            return Ok(after);
        }
        for logged in page.events {
            take(s3, logged.event, seen).await?;
        }
        after = page.next;
    }
}

/// Fetches and checks the file of an event, unless there is none or it was seen before.
async fn take(s3: &aws_sdk_s3::Client, event: Event, seen: &mut HashSet<String>) -> Result<()> {
    if event.kind != "dropgate.delivery.succeeded.v1" || seen.contains(&event.id) {
        return Ok(());
    }
    let told: Delivered = serde_json::from_value(event.data)?;
    let uri = told.destination.uri;
    let (sha256, size) = fetch(s3, &uri).await?;
    if (sha256.as_str(), size) != (told.sha256.as_str(), told.size) {
        bail!("{uri} has SHA-256 {sha256} and {size} bytes, event {} says otherwise", event.id);
    }
    println!("verified {} {} {uri} {sha256}", event.id, event.sequence);
    seen.insert(event.id);
    Ok(())
}

/// SHA-256 and size of the object at `s3://BUCKET/KEY`, read in pieces.
async fn fetch(s3: &aws_sdk_s3::Client, uri: &str) -> Result<(String, u64)> {
    let (bucket, path) =
        uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).context("not an object of S3")?;
    let key = percent_decode_str(path).decode_utf8()?;
    let mut body = s3.get_object().bucket(bucket).key(key).send().await?.body;
    let (mut digest, mut size) = (Sha256::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        digest.update(&piece);
        size += piece.len() as u64;
    }
    Ok((hex::encode(digest.finalize()), size))
}
