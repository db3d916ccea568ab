//! Events: outbox -> event log -> publisher.
//!
//! The log gives each event its numbers once and for all and is the queue of the publisher, which reads it by cursor:
//! so events leave in the order of their positions without a gap, whatever fails, and a publisher that is down
//! keeps nobody from reading the log.

use super::{
    BATCH,
    lane::{Step, Work},
};
use crate::{Backends, events::EventError, observe::Counter, state::StateError};
use async_trait::async_trait;
use dropgate_schemas::{
    change::{OutboxEntry, OutboxKind, OutboxMessage},
    event::Event,
    time::Timestamp,
};
use std::time::Duration;
use tokio::sync::Notify;

/// Name of the publisher's cursor.
pub(super) const CURSOR: &str = "publisher";

#[derive(Debug, thiserror::Error)]
pub(super) enum EventLaneError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Events(#[from] EventError),
}

fn event_of(entry: OutboxEntry) -> Option<Event> {
    match entry.message {
        OutboxMessage::Event { event } => Some(*event),
        OutboxMessage::Job { .. } | OutboxMessage::Supersede { .. } => None,
    }
}

/// Puts what is due into the log, and says how many events that were. One that was logged but could not be marked keeps its
/// numbers when it comes again.
pub(super) async fn log_step(backends: &Backends) -> Result<(usize, Step), StateError> {
    let due = backends.state.outbox_due(OutboxKind::Event, Timestamp::now(), BATCH).await?;
    if due.is_empty() {
        return Ok((0, Step::Rest));
    }
    let ids: Vec<_> = due.iter().map(|entry| entry.id).collect();
    let next = Step::after(due.len(), BATCH);
    backends.state.log_events(due.into_iter().filter_map(event_of).collect()).await?;
    backends.state.outbox_done(&ids).await?;
    Ok((ids.len(), next))
}

/// How far the publisher is, as far as this relay knows in this term of its lease.
#[derive(Default)]
pub(super) struct Progress {
    known: Option<(u64, u64)>,
}

impl Progress {
    async fn position(&mut self, backends: &Backends, term: u64) -> Result<u64, StateError> {
        match self.known {
            Some((of, position)) if of == term => Ok(position),
            Some(_) | None => {
                let position = backends.state.cursor(CURSOR).await?;
                self.known = Some((term, position));
                Ok(position)
            }
        }
    }
}

/// Publishes what was logged since the cursor, which moves as far as that came. Events that were published before the cursor
/// could be moved are published again with the same ids.
pub(super) async fn publish_step(
    backends: &Backends,
    progress: &mut Progress,
    term: u64,
) -> Result<Step, EventLaneError> {
    let position = progress.position(backends, term).await?;
    let events = backends.state.events_after(position, None, BATCH).await?;
    if events.is_empty() {
        return Ok(Step::Rest);
    }
    // Until all of it is done nothing is known.
    progress.known = None;
    let out = backends.events.publish(&events).await?;
    let Some(last) = events.iter().take(out).next_back().map(|event| event.position) else {
        return Err(EventError::Unavailable("none of the events was taken".to_owned()).into());
    };
    Counter::EventsPublished.add(out as u64);
    backends.state.advance_cursor(CURSOR, last).await?;
    progress.known = Some((term, last));
    Ok(if out < events.len() { Step::More } else { Step::after(out, BATCH) })
}

/// The lane that fills the log.
pub(super) struct Logging<'a> {
    pub(super) backends: &'a Backends,
    pub(super) logged: &'a [Notify],
}

#[async_trait]
impl Work for Logging<'_> {
    type Error = StateError;

    async fn step(&mut self, _: u64) -> Result<Step, StateError> {
        let (logged, next) = log_step(self.backends).await?;
        if logged > 0 {
            self.logged.iter().for_each(Notify::notify_one);
        }
        Ok(next)
    }
}

/// What another relay logged, while two take themselves for the active one, is found after so long.
const ANYWAY: Duration = Duration::from_secs(1);

/// Waits until something was logged.
pub(super) async fn logged(here: &Notify) {
    let _ = tokio::time::timeout(ANYWAY, here.notified()).await;
}

/// The lane of the publisher: roused by the log, not by every change.
pub(super) struct Publishing<'a> {
    pub(super) backends: &'a Backends,
    pub(super) logged: &'a Notify,
    pub(super) progress: Progress,
}

#[async_trait]
impl Work for Publishing<'_> {
    type Error = EventLaneError;

    async fn step(&mut self, term: u64) -> Result<Step, EventLaneError> {
        publish_step(self.backends, &mut self.progress, term).await
    }

    fn looks_at_changes(&self) -> bool {
        false
    }

    async fn called(&mut self) {
        logged(self.logged).await;
    }
}
