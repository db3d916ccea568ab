//! Events on a topic exchange of RabbitMQ: `PREFIX.events`, with the routing key `<partner>.<account>.<type>`, each message one
//! CloudEvent in structured JSON with the event's id.
//!
//! Whoever wants them binds a queue. Nobody need: a message that no queue wants is dropped by the broker, except for
//! `PREFIX.events.archive`, which is bound to everything, bounded in length (and age, if so configured), and lets its oldest
//! message go when it is full: so nobody who does not listen can block anything. The whole log stays in the state store.
//!
//! Messages go out in the order of their positions over one channel. From the first on that the broker did not take they are
//! published again with the same ids; consumers order by `sequence`. While it goes on refusing one (a queue of somebody's
//! refuses what it has no room for, and then the broker does), nothing else goes out, and that one alone is repeated.

use crate::{
    amqp::{Failure, Keys, Kind, Link, Message, Partly, Server, Topology, number, persistent, publish, text},
    config::AmqpEventsConfig,
    events::{EventError, EventPublisher},
    open::OpenError,
    secrets::SecretStore,
    state::LoggedEvent,
};
use async_trait::async_trait;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const KEY: &str = "[backends.events]";
/// So long a start waits for the broker to say whether it takes us.
const AT_OPEN: Duration = Duration::from_secs(5);
/// Structured mode of the CloudEvents binding.
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// See the module.
pub(crate) struct AmqpEvents {
    exchange: String,
    archive: Option<String>,
    link: Link,
    patience: Duration,
    /// The next event was refused.
    refused: AtomicBool,
}

#[derive(Clone)]
struct Names {
    exchange: String,
    archive: Option<(String, u32, Option<u32>)>,
}

impl AmqpEvents {
    /// Starts connecting. A broker that can't be reached now is tried again and again in the background; one that refuses is
    /// an error.
    pub(crate) async fn open(
        keys: &AmqpEventsConfig,
        secrets: Arc<dyn SecretStore>,
        who: &str,
    ) -> Result<Self, OpenError> {
        let server = Arc::new(Server::new(Keys::from(keys), secrets, who));
        let names = Names::new(keys).map_err(|failure| failure.at_open(KEY, server.address()))?;
        let link = Link::start(Arc::clone(&server), "events", names.clone());
        match link.first(AT_OPEN).await {
            Some(Err(failure)) if failure.is_refusal() => {
                link.close().await;
                return Err(failure.at_open(KEY, server.address()));
            }
            Some(Err(failure)) => {
                tracing::warn!(broker = server.address(), error = %failure,
                    "starting without the broker of events; they wait in the log until it is there");
            }
            None => {
                tracing::warn!(
                    broker = server.address(),
                    "starting without the broker of events, which did not answer; they wait in the log until it does"
                );
            }
            Some(Ok(_)) => {}
        }
        Ok(Self {
            exchange: names.exchange,
            archive: names.archive.map(|(name, ..)| name),
            link,
            patience: keys.deadline_seconds.duration().mul_f64(0.8),
            refused: AtomicBool::new(false),
        })
    }
}

fn message(logged: &LoggedEvent) -> Result<Message, EventError> {
    let id = logged.event.id;
    let body = serde_json::to_vec(&logged.event)
        .map_err(|e| EventError::Rejected(format!("event {id} is not JSON: {e}")))?;
    let key = logged.event.routing_key();
    let routing_key = ShortString::try_new(key).map_err(|_| {
        EventError::Rejected(format!("event {id}: partner and account make too long a routing key"))
    })?;
    Ok(Message { routing_key, properties: persistent(CONTENT_TYPE, &id.to_string()), body })
}

#[async_trait]
impl EventPublisher for AmqpEvents {
    async fn publish(&self, events: &[LoggedEvent]) -> Result<usize, EventError> {
        if events.is_empty() {
            return Ok(0);
        }
        let at_once = if self.refused.load(Ordering::Relaxed) { 1 } else { events.len() };
        let messages: Vec<_> = events.iter().take(at_once).map(message).collect::<Result<_, _>>()?;
        let live = self.link.live(Duration::ZERO).await?;
        let published = publish(&live, &self.exchange, &messages, false, self.patience).await;
        let refused = published.as_ref().is_err_and(|partly| partly.failure.kind == Kind::Full);
        self.refused.store(refused, Ordering::Relaxed);
        match published {
            Ok(()) => Ok(messages.len()),
            Err(Partly { confirmed: 0, failure }) => Err(failure.into()),
            Err(Partly { confirmed, failure }) => {
                tracing::debug!(confirmed, of = messages.len(), error = %failure, "some events were not taken");
                Ok(confirmed)
            }
        }
    }

    async fn check(&self) -> Result<(), EventError> {
        let live = self.link.live(Duration::ZERO).await?;
        let looking = async {
            let channel = live.connection.create_channel().await?;
            let there = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let exchange = self.exchange.as_str().into();
            channel.exchange_declare(exchange, ExchangeKind::Topic, there, FieldTable::default()).await?;
            if let Some(archive) = &self.archive {
                let there = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(archive.as_str().into(), there, FieldTable::default()).await?;
            }
            channel.close(200, "looked".into()).await
        };
        let looked = match tokio::time::timeout(self.patience, looking).await {
            Ok(looked) => looked.map_err(Failure::from),
            Err(_) => Err(Failure::new(Kind::Away, "no answer in time")),
        };
        if looked.as_ref().is_err_and(Failure::may_pass_at_once) {
            live.is_broken();
        }
        Ok(looked?)
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

impl Names {
    fn new(keys: &AmqpEventsConfig) -> Result<Self, Failure> {
        crate::amqp::check_prefix(&keys.prefix)?;
        let exchange = format!("{}.events", keys.prefix);
        let archive = (keys.archive_events > 0)
            .then(|| (format!("{exchange}.archive"), keys.archive_events, keys.archive_seconds));
        Ok(Self { exchange, archive })
    }
}

#[async_trait]
impl Topology for Names {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange: ShortString = self.exchange.as_str().into();
        channel
            .exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default())
            .await?;
        let Some((archive, length, seconds)) = &self.archive else { return Ok(()) };
        let mut table = crate::amqp::arguments([
            ("x-queue-type", text("quorum")),
            ("x-max-length", number(*length)),
            ("x-overflow", text("drop-head")),
        ]);
        if let Some(seconds) = seconds {
            table.insert("x-message-ttl".into(), number(i64::from(*seconds) * 1000));
        }
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let archive: ShortString = archive.as_str().into();
        channel.queue_declare(archive.clone(), durable, table).await?;
        let (all, options) = ("#".into(), QueueBindOptions::default());
        channel.queue_bind(archive, exchange, all, options, FieldTable::default()).await
    }

    async fn find(&self, channel: &Channel) -> lapin::Result<()> {
        let there = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let exchange = self.exchange.as_str().into();
        channel.exchange_declare(exchange, ExchangeKind::Topic, there, FieldTable::default()).await
    }
}

#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;
