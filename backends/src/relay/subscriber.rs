//! Subscribers: event log -> each of them, by a cursor of its own.
//!
//! One event at a time and in order. One that is not taken is tried again after a pause with full jitter that grows from 2 s to
//! 15 min; one that has become older than the subscriber's patience is passed over then, with a line in the log, so an
//! address that is gone for good does not hold back what comes after its return. How often it was tried is not kept:
//! the relay that takes over tries at once.

use super::{
    event::logged,
    lane::{Step, Work},
};
use crate::{
    events::{NotTaken, Subscriber},
    observe::Counter,
    state::{LoggedEvent, StateError, StateStore},
};
use async_trait::async_trait;
use dropgate_schemas::time::Timestamp;
use rand::RngExt as _;
use std::time::Duration;
use tokio::{sync::Notify, time::Instant};

/// Events that are read at a time.
const BATCH: usize = 64;
/// So long at most is told in one step: then the cursor is moved.
const SLICE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The lane of one subscriber.
pub(super) struct Telling<'a> {
    state: &'a dyn StateStore,
    subscriber: &'a dyn Subscriber,
    logged: &'a Notify,
    /// When this relay began: a subscriber that was not heard of before gets what happened since.
    started: Timestamp,
    /// How far it is, as far as this relay knows in a term of its lease.
    known: Option<(u64, u64)>,
    failures: u32,
    next_try: Option<Instant>,
}

impl<'a> Telling<'a> {
    pub(super) const fn new(
        state: &'a dyn StateStore,
        subscriber: &'a dyn Subscriber,
        logged: &'a Notify,
        started: Timestamp,
    ) -> Self {
        Self { state, subscriber, logged, started, known: None, failures: 0, next_try: None }
    }

    async fn position(&mut self, term: u64) -> Result<u64, StateError> {
        match self.known {
            Some((of, position)) if of == term => Ok(position),
            Some(_) | None => {
                let name = format!("webhook/{}", self.subscriber.name());
                let cursor = self.state.cursor(&name).await?;
                let position = cursor.max(self.beginning(&name).await?);
                (self.known, self.next_try, self.failures) = (Some((term, position)), None, 0);
                Ok(position)
            }
        }
    }

    /// The position before the first one that is for this subscriber: chosen once and kept, as one more than it is, for a cursor
    /// that was never moved is at 0.
    async fn beginning(&self, name: &str) -> Result<u64, StateError> {
        let kept = format!("{name}/begin");
        if let Some(position) = self.state.cursor(&kept).await?.checked_sub(1) {
            return Ok(position);
        }
        let position = if self.subscriber.wants_the_whole_log() { 0 } else { self.end_of_the_past().await? };
        self.state.advance_cursor(&kept, position + 1).await?;
        Ok(position)
    }

    /// The last position of an event from before this relay began.
    async fn end_of_the_past(&self) -> Result<u64, StateError> {
        let is_past = async |position: u64| {
            let found = self.state.events_after(position - 1, None, 1).await?;
            Ok::<_, StateError>(found.first().is_some_and(|logged| logged.event.time < self.started))
        };
        let (mut past, mut stride) = (0_u64, 1_u64);
        while is_past(past + stride).await? {
            past += stride;
            stride = stride.saturating_mul(2);
        }
        // Here `past` is in the past, or 0, and `past + stride` is not.
        while stride > 1 {
            let half = stride / 2;
            if is_past(past + half).await? {
                past += half;
                stride -= half;
            } else {
                stride = half;
            }
        }
        Ok(past)
    }

    /// Tells of one event; false if it has to be told again.
    async fn tell(&mut self, logged: &LoggedEvent) -> bool {
        let (name, event) = (self.subscriber.name(), &logged.event);
        match self.subscriber.tell(event).await {
            Ok(()) => {
                Counter::WebhooksTaken.one();
                if self.failures > 0 {
                    tracing::info!(
                        webhook = name,
                        failures = self.failures,
                        "the webhook takes events again"
                    );
                }
                (self.failures, self.next_try) = (0, None);
                true
            }
            Err(error) if Timestamp::now().since(event.time) >= self.subscriber.patience() => {
                Counter::WebhooksPassedOver.one();
                tracing::error!(webhook = name, event = %event.id, position = logged.position, %error,
                    "a webhook did not take an event for too long: it is passed over, and stays in the event log");
                true
            }
            Err(error) => {
                Counter::WebhooksRefused.one();
                let pause = pause(self.failures, &error);
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(webhook = name, event = %event.id, %error, failures = self.failures, ?pause,
                    "a webhook did not take an event, will try again");
                self.next_try = Some(Instant::now() + pause);
                false
            }
        }
    }
}

/// Full jitter below a cap that doubles with each failure; not before the subscriber asked for.
fn pause(failures: u32, error: &NotTaken) -> Duration {
    let cap = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
    let pause = cap.mul_f64(rand::rng().random_range(0.0..=1.0));
    pause.max(error.retry_after.unwrap_or_default().min(LONGEST_PAUSE))
}

#[async_trait]
impl Work for Telling<'_> {
    type Error = StateError;

    async fn step(&mut self, term: u64) -> Result<Step, StateError> {
        let position = self.position(term).await?;
        if self.next_try.is_some_and(|at| at > Instant::now()) {
            return Ok(Step::Rest);
        }
        let events = self.state.events_after(position, None, BATCH).await?;
        let begun = Instant::now();
        let (mut done, mut next) = (position, Step::after(events.len(), BATCH));
        for logged in &events {
            if begun.elapsed() >= SLICE {
                next = Step::More;
                break;
            }
            if self.subscriber.wants(&logged.event) && !self.tell(logged).await {
                next = Step::Rest;
                break;
            }
            done = logged.position;
        }
        if done > position {
            // Until it is done nothing is known.
            self.known = None;
            self.state.advance_cursor(&format!("webhook/{}", self.subscriber.name()), done).await?;
            self.known = Some((term, done));
        }
        Ok(next)
    }

    fn looks_at_changes(&self) -> bool {
        false
    }

    async fn called(&mut self) {
        match self.next_try {
            Some(at) => tokio::time::sleep_until(at).await,
            None => logged(self.logged).await,
        }
    }
}

#[cfg(test)]
mod tests;
