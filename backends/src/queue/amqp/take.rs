//! Taking jobs: a consumer for as long as a call lasts.

use super::{
    AmqpQueue, GIVEN,
    held::{InHand, Places},
};
use crate::{
    amqp::{Failure, Kind, Live},
    queue::Claimed,
};
use dropgate_schemas::job::Job;
use futures::StreamExt as _;
use lapin::{
    Consumer,
    message::Delivery,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, oneshot},
    time::timeout,
};
use uuid::Uuid;

/// A broker needs a moment even to say that there is nothing.
const MOMENT: Duration = Duration::from_millis(100);
/// The broker's count of what came back because its taker went away.
const CAME_BACK: &str = "x-delivery-count";

impl AmqpQueue {
    pub(super) async fn take_jobs(&self, limit: usize, wait: Duration) -> Result<Vec<Claimed>, Failure> {
        let give_up = Instant::now() + wait.max(MOMENT);
        let left = || give_up.saturating_duration_since(Instant::now());
        if limit == 0 {
            return Ok(Vec::new());
        }
        // The longest wait for places or a connection is what the caller grants; what comes then has its own.
        let Some(places) = self.held.places(limit, left()).await else { return Ok(Vec::new()) };
        loop {
            let live = self.consumer().live(left().max(MOMENT)).await?;
            self.held.forget_all_but(live.number);
            match self.take_from(&live, &places, left()).await {
                // The queue was deleted under us, or the connection died while nothing came: go on with a new one.
                Err(failure) if failure.may_pass_at_once() => {
                    live.is_broken();
                    if left().is_zero() {
                        return Err(failure);
                    }
                }
                Err(failure) => {
                    live.is_broken();
                    return Err(failure);
                }
                Ok(taken) => return Ok(taken),
            }
        }
    }

    async fn take_from(
        &self,
        live: &Live,
        places: &Places<'_>,
        wait: Duration,
    ) -> Result<Vec<Claimed>, Failure> {
        let window = u16::try_from(places.count).unwrap_or(u16::MAX);
        let taking = Taking {
            live: live.clone(),
            opening: Arc::clone(&self.opening),
            queue: self.names.queue.as_str().into(),
            tag: format!("dropgate-{}", Uuid::new_v4()).into(),
            patience: self.patience,
        };
        // In a task of its own, for a consumer must be ended and what has come be settled also if the caller goes away.
        let (answer, answered) = oneshot::channel();
        tokio::spawn(taking.run(window, wait, answer));
        let taken = answered.await.unwrap_or_else(|_| Err(Failure::new(Kind::Away, "taking was cut off")))?;
        let mut claimed = Vec::with_capacity(taken.len());
        for delivery in taken {
            claimed.extend(self.claim(live, delivery).await?);
        }
        Ok(claimed)
    }

    async fn claim(&self, live: &Live, delivery: Delivery) -> Result<Option<Claimed>, Failure> {
        let job: Job = match serde_json::from_slice(&delivery.data) {
            Ok(job) => job,
            Err(error) => {
                tracing::error!(%error, queue = self.names.queue, "a message is no job of ours: to the dead letters");
                live.channel
                    .basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue: false })
                    .await?;
                return Ok(None);
            }
        };
        let given = count(&delivery, GIVEN);
        let tag = self.held.insert(InHand {
            job: job.clone(),
            given,
            connection: live.number,
            delivery: delivery.delivery_tag,
        });
        let redelivered = given.saturating_add(count(&delivery, CAME_BACK));
        Ok(Some(Claimed { job, tag, redelivered }))
    }
}

fn count(delivery: &Delivery, header: &str) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let value = headers.and_then(|headers| headers.inner().get(header));
    let count = match value {
        Some(AMQPValue::LongLongInt(n)) => u32::try_from(*n).ok(),
        Some(AMQPValue::LongInt(n)) => u32::try_from(*n).ok(),
        Some(AMQPValue::LongUInt(n)) => Some(*n),
        Some(AMQPValue::ShortInt(n)) => u32::try_from(*n).ok(),
        Some(AMQPValue::ShortShortInt(n)) => u32::try_from(*n).ok(),
        Some(AMQPValue::ShortShortUInt(n)) => Some(u32::from(*n)),
        Some(_) | None => None,
    };
    count.unwrap_or(0)
}

/// One consumer from its first message to its end.
struct Taking {
    live: Live,
    opening: Arc<Mutex<()>>,
    queue: ShortString,
    tag: ShortString,
    patience: Duration,
}

type Taken = Result<Vec<Delivery>, Failure>;

impl Taking {
    async fn run(self, window: u16, wait: Duration, mut answer: oneshot::Sender<Taken>) {
        let taking = async {
            let mut consumer = self.in_time("opened", self.open(window)).await?;
            let first = self.first(&mut consumer, wait, &mut answer).await?;
            self.in_time("ended", self.end(consumer, first)).await
        };
        let taken = taking.await;
        // Whoever asked may have gone: then it comes back at once.
        let Err(unwanted) = answer.send(taken) else { return };
        match unwanted {
            Ok(unwanted) => {
                for delivery in unwanted {
                    let options = BasicNackOptions { requeue: true, multiple: false };
                    if self.live.channel.basic_nack(delivery.delivery_tag, options).await.is_err() {
                        return self.live.is_broken();
                    }
                }
            }
            // With the connection everything comes back.
            Err(_) => self.live.is_broken(),
        }
    }

    async fn open(&self, window: u16) -> lapin::Result<Consumer> {
        let _alone = self.opening.lock().await;
        // For the consumers that are opened from now on, each for itself.
        self.live.channel.basic_qos(window, BasicQosOptions::default()).await?;
        let (queue, tag) = (self.queue.clone(), self.tag.clone());
        self.live
            .channel
            .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
    }

    async fn first(
        &self,
        consumer: &mut Consumer,
        wait: Duration,
        answer: &mut oneshot::Sender<Taken>,
    ) -> Result<Option<Delivery>, Failure> {
        tokio::select! {
            first = consumer.next() => match first {
                Some(delivery) => Ok(Some(delivery?)),
                None => Err(Failure::new(Kind::Missing, "the broker ended the consumer: the queue was deleted")),
            },
            () = tokio::time::sleep(wait) => Ok(None),
            () = answer.closed() => Ok(None),
            () = self.live.ended() => Err(lost()),
        }
    }

    /// Everything that came before the broker's answer to the end, in its order.
    async fn end(&self, mut consumer: Consumer, first: Option<Delivery>) -> lapin::Result<Vec<Delivery>> {
        let mut taken = Vec::from_iter(first);
        self.live.channel.basic_cancel(self.tag.clone(), BasicCancelOptions::default()).await?;
        while let Some(delivery) = consumer.next().await {
            taken.push(delivery?);
        }
        Ok(taken)
    }

    async fn in_time<T>(
        &self,
        what: &str,
        doing: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = timeout(self.patience, doing) => match done {
                Ok(done) => Ok(done?),
                Err(_) => Err(Failure::new(Kind::Away, format!("a consumer could not be {what} in time"))),
            },
            () = self.live.ended() => Err(lost()),
        }
    }
}

fn lost() -> Failure {
    Failure::new(Kind::Away, "the connection was lost")
}
