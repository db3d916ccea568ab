//! The exchange of jobs and its queues.
//!
//! ```text
//! PREFIX.jobs ── deliveries ──> PREFIX.deliveries ── given up ──> PREFIX.deliveries.dead
//!             ── wait.N ──────> PREFIX.deliveries.wait.N ── after N ms ──> PREFIX.jobs ── deliveries ──> …
//! ```

use crate::{
    amqp::{Failure, Topology, arguments, number, text},
    config::AmqpQueueConfig,
};
use async_trait::async_trait;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::time::Duration;

/// How long jobs wait that are given back, in milliseconds: a queue each, for a queue lets go of its oldest message first.
const WAITS: [u32; 4] = [1_000, 2_000, 8_000, 60_000];
/// Dead letters that are kept for whoever wants to look; the oldest go first.
const DEAD: u32 = 100_000;

/// Names of the exchange and the queues.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) exchange: String,
    pub(super) queue: String,
    dead: String,
    waits: [(String, u32); 4],
    delivery_limit: u16,
}

/// The way to the queue for a job that is to be given out not before `delay`.
pub(super) fn routing_key(delay: Duration) -> String {
    let [.., longest] = WAITS;
    let wait = WAITS.iter().find(|wait| Duration::from_millis(u64::from(**wait)) >= delay);
    if delay.is_zero() { "deliveries".to_owned() } else { format!("wait.{}", wait.unwrap_or(&longest)) }
}

impl Names {
    pub(super) fn new(keys: &AmqpQueueConfig) -> Result<Self, Failure> {
        let prefix = &keys.prefix;
        crate::amqp::check_prefix(prefix)?;
        let queue = format!("{prefix}.deliveries");
        Ok(Self {
            exchange: format!("{prefix}.jobs"),
            dead: format!("{queue}.dead"),
            waits: WAITS.map(|wait| (format!("{queue}.wait.{wait}"), wait)),
            queue,
            delivery_limit: keys.delivery_limit.max(1),
        })
    }

    /// All queues in which jobs wait.
    pub(super) fn all_waiting(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.queue.as_str()).chain(self.waits.iter().map(|(name, _)| name.as_str()))
    }

    async fn queue(&self, channel: &Channel, name: &str, key: &str, more: FieldTable) -> lapin::Result<()> {
        let mut table = more;
        table.insert("x-queue-type".into(), text("quorum"));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, table).await?;
        let (exchange, options) = (self.exchange.as_str(), QueueBindOptions::default());
        channel.queue_bind(name.into(), exchange.into(), key.into(), options, FieldTable::default()).await
    }

    /// What leaves a queue by itself is kept there until the other queue has it.
    fn handing_on(&self, key: &str) -> [(&'static str, lapin::types::AMQPValue); 4] {
        [
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-dead-letter-exchange", text(&self.exchange)),
            ("x-dead-letter-routing-key", text(key)),
        ]
    }
}

#[async_trait]
impl Topology for Names {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (exchange, kind) = (self.exchange.as_str(), ExchangeKind::Direct);
        channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await?;
        let bounded = arguments([("x-max-length", number(DEAD)), ("x-overflow", text("drop-head"))]);
        self.queue(channel, &self.dead, "dead", bounded).await?;
        for (name, wait) in &self.waits {
            let mut back = arguments(self.handing_on("deliveries"));
            back.insert("x-message-ttl".into(), number(*wait));
            self.queue(channel, name, &format!("wait.{wait}"), back).await?;
        }
        let mut given_up = arguments(self.handing_on("dead"));
        given_up.insert("x-delivery-limit".into(), number(self.delivery_limit));
        self.queue(channel, &self.queue, "deliveries", given_up).await
    }

    async fn find(&self, channel: &Channel) -> lapin::Result<()> {
        let there = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (exchange, kind) = (self.exchange.as_str(), ExchangeKind::Direct);
        channel.exchange_declare(exchange.into(), kind, there, FieldTable::default()).await?;
        let there = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.queue.as_str().into(), there, FieldTable::default()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_no_shorter_than_asked_and_a_minute_at_most() {
        for (millis, key) in [
            (0, "deliveries"),
            (1, "wait.1000"),
            (1_000, "wait.1000"),
            (1_001, "wait.2000"),
            (4_000, "wait.8000"),
            (60_000, "wait.60000"),
            (3_600_000, "wait.60000"),
        ] {
            assert_eq!(routing_key(Duration::from_millis(millis)), key);
        }
    }
}
