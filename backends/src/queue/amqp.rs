//! The job queue of a cluster: a quorum queue of RabbitMQ.
//!
//! Two connections, so that a broker that holds back publishers does not hold back those who settle: one for publishing, made
//! at once, and one for taking, made by the first who takes. A gateway needs no more than the right to publish.
//!
//! Nothing is fetched in advance: a consumer lives for one call of `take` and gets what that call asked for. What is
//! given back is published anew behind all others, with its count, and the old message settled: a job that has to wait
//! (in a queue from which it comes back after a time) keeps none of the others waiting, and the broker's own count is
//! left for jobs whose taker went away. Exchange and queues are declared at every connection, so a broker that was
//! wiped has them again.

mod held;
mod take;
mod topology;

use crate::{
    amqp::{Failure, Keys, Kind, Link, Live, Message, Server, persistent, publish},
    config::AmqpQueueConfig,
    open::OpenError,
    queue::{Claimed, JobQueue, QueueError},
    secrets::SecretStore,
};
use async_trait::async_trait;
use dropgate_schemas::job::Job;
use futures::future::join_all;
use held::{Held, InHand};
use lapin::{
    options::{BasicAckOptions, BasicNackOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use topology::Names;

const KEY: &str = "[backends.queue]";
/// So long a start waits for the broker to say whether it takes us.
const AT_OPEN: Duration = Duration::from_secs(5);
/// So long a call waits for a connection that is being made anew.
const ANEW: Duration = Duration::from_secs(3);
/// Header: how often a job was given back on purpose.
const GIVEN: &str = "dropgate-given";

/// See the module.
pub(crate) struct AmqpQueue {
    server: Arc<Server>,
    names: Names,
    publisher: Link,
    consumer: OnceLock<Link>,
    held: Held,
    /// One at a time sets the window and opens a consumer with it.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// Longest wait for the broker within one call: less than the deadline around it.
    patience: Duration,
}

impl AmqpQueue {
    /// Starts connecting. A broker that can't be reached now is tried again and again in the background; one that refuses is
    /// an error.
    pub(crate) async fn open(
        keys: &AmqpQueueConfig,
        secrets: Arc<dyn SecretStore>,
        who: &str,
    ) -> Result<Self, OpenError> {
        let server = Arc::new(Server::new(Keys::from(keys), secrets, who));
        let names = Names::new(keys).map_err(|failure| failure.at_open(KEY, server.address()))?;
        let publisher = Link::start(Arc::clone(&server), "jobs out", names.clone());
        match publisher.first(AT_OPEN).await {
            Some(Err(failure)) if failure.is_refusal() => {
                publisher.close().await;
                return Err(failure.at_open(KEY, server.address()));
            }
            Some(Err(failure)) => {
                tracing::warn!(broker = server.address(), error = %failure,
                    "starting without the job queue; jobs wait in the state store until it is there");
            }
            None => {
                tracing::warn!(
                    broker = server.address(),
                    "starting without the job queue, which did not answer; jobs wait in the state store until it does"
                );
            }
            Some(Ok(_)) => {}
        }
        Ok(Self {
            names,
            publisher,
            consumer: OnceLock::new(),
            held: Held::new(keys.prefetch.max(1)),
            opening: Arc::default(),
            patience: keys.deadline_seconds.duration().mul_f64(0.8),
            server,
        })
    }

    fn consumer(&self) -> &Link {
        let start = || Link::start(Arc::clone(&self.server), "jobs in", self.names.clone());
        self.consumer.get_or_init(start)
    }

    async fn publish_messages(&self, messages: &[Message]) -> Result<(), Failure> {
        let give_up = Instant::now() + self.patience;
        let left = || give_up.saturating_duration_since(Instant::now());
        let live = self.publisher.live(Duration::ZERO).await?;
        match publish(&live, &self.names.exchange, messages, true, left()).await {
            // Queue or exchange may have been deleted under us, or the connection died unnoticed: once more with a new one.
            Err(partly) if partly.failure.may_pass_at_once() && !left().is_zero() => {
                let live = self.publisher.live(ANEW.min(left())).await?;
                publish(&live, &self.names.exchange, messages, true, left()).await
            }
            published => published,
        }
        .map_err(Failure::from)
    }

    fn message(&self, job: &Job, given: u32, delay: Duration) -> Result<Message, QueueError> {
        let body = serde_json::to_vec(job)
            .map_err(|e| QueueError::Rejected(format!("a job can't be serialised: {e}")))?;
        let mut properties = persistent("application/json", &job.entry.to_string());
        if given > 0 {
            let mut headers = FieldTable::default();
            headers.insert(GIVEN.into(), AMQPValue::LongLongInt(given.into()));
            properties = properties.with_headers(headers);
        }
        Ok(Message { routing_key: topology::routing_key(delay).into(), properties, body })
    }

    /// The connection that a job came by, if it is still there: the broker has given out anew what came by another.
    fn came_by(&self, job: &InHand) -> Option<Live> {
        self.consumer.get()?.now().filter(|live| live.number == job.connection)
    }

    /// Asks the broker for a queue as it is, on a channel of its own.
    async fn look(&self, queues: &[&str]) -> Result<u64, Failure> {
        let live = self.publisher.live(Duration::ZERO).await?;
        let looking = async {
            let channel = live.connection.create_channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let mut messages = 0;
            for queue in queues {
                let found = channel.queue_declare((*queue).into(), options, FieldTable::default()).await?;
                messages += u64::from(found.message_count());
            }
            channel.close(200, "looked".into()).await?;
            Ok(messages)
        };
        let looked = tokio::time::timeout(self.patience, looking).await;
        let looked = looked.unwrap_or_else(|_| {
            Err(Failure::new(Kind::Away, format!("no answer within {:.1} s", self.patience.as_secs_f32())))
        });
        if looked.as_ref().is_err_and(Failure::may_pass_at_once) {
            live.is_broken();
        }
        looked
    }
}

#[async_trait]
impl JobQueue for AmqpQueue {
    async fn publish(&self, jobs: &[Job]) -> Result<(), QueueError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let messages: Vec<_> =
            jobs.iter().map(|job| self.message(job, 0, Duration::ZERO)).collect::<Result<_, _>>()?;
        Ok(self.publish_messages(&messages).await?)
    }

    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Claimed>, QueueError> {
        self.take_jobs(limit, wait).await.map_err(QueueError::from)
    }

    async fn ack(&self, tags: &[u64]) -> Result<(), QueueError> {
        let jobs: Vec<InHand> = tags.iter().filter_map(|tag| self.held.remove(*tag)).collect();
        let acks = jobs.iter().filter_map(|job| {
            let live = self.came_by(job)?;
            let tag = job.delivery;
            Some(async move { live.channel.basic_ack(tag, BasicAckOptions::default()).await })
        });
        for acked in join_all(acks).await {
            acked.map_err(Failure::from)?;
        }
        Ok(())
    }

    /// Delays above a minute are cut to one: whoever gets the job looks at its record and may give it back again.
    async fn release(&self, tag: u64, delay: Duration) -> Result<(), QueueError> {
        let Some(job) = self.held.remove(tag) else { return Ok(()) };
        let Some(live) = self.came_by(&job) else { return Ok(()) };
        let message = self.message(&job.job, job.given.saturating_add(1), delay)?;
        let published = self.publish_messages(&[message]).await;
        let settled = match &published {
            Ok(()) => live.channel.basic_ack(job.delivery, BasicAckOptions::default()).await,
            // Better at once than never.
            Err(failure) => {
                tracing::warn!(error = %failure, "a job is given back without its delay");
                let options = BasicNackOptions { requeue: true, multiple: false };
                live.channel.basic_nack(job.delivery, options).await
            }
        };
        Ok(settled.map_err(Failure::from)?)
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        let queues: Vec<&str> = self.names.all_waiting().collect();
        Ok(self.look(&queues).await?)
    }

    async fn check(&self) -> Result<(), QueueError> {
        Ok(self.look(&[self.names.queue.as_str()]).await.map(drop)?)
    }

    async fn close(&self) {
        // With the connection the broker gives out anew what we held.
        let consumer = async {
            if let Some(consumer) = self.consumer.get() {
                consumer.close().await;
            }
        };
        tokio::join!(consumer, self.publisher.close());
        self.held.clear();
    }
}

#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;
