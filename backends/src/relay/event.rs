//! Events: outbox -> event log -> publisher.
//!
//! The log gives each event its numbers once and for all and is the queue of the publisher, which reads it by cursor:
//! so events leave in the order of their positions without a gap, whatever fails, and a publisher that is down
//! keeps nobody from reading the log.

use super::{
    BATCH,
    lane::{Step, Work},
};
use crate::{
    Backends,
    events::EventError,
    observe::Counter,
    state::{LoggedEvent, StateError},
};
use async_trait::async_trait;
use dropgate_schemas::{
    change::{OutboxEntry, OutboxKind, OutboxMessage},
    event::Event,
    time::Timestamp,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
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

/// Puts what is due into the log, and gives out the events as logged. One that was logged but could not be marked keeps its
/// numbers when it comes again.
pub(super) async fn log_step(backends: &Backends) -> Result<(Vec<LoggedEvent>, Step), StateError> {
    let due = backends.state.outbox_due(OutboxKind::Event, Timestamp::now(), BATCH).await?;
    if due.is_empty() {
        return Ok((Vec::new(), Step::Rest));
    }
    let ids: Vec<_> = due.iter().map(|entry| entry.id).collect();
    let next = Step::after(due.len(), BATCH);
    let logged = backends.state.log_events(due.into_iter().filter_map(event_of).collect()).await?;
    backends.state.outbox_done(&ids).await?;
    Ok((logged, next))
}

/// What was logged here lately: the publisher need not read back what it can be handed.
#[derive(Default)]
pub(super) struct Fresh(Mutex<VecDeque<LoggedEvent>>);

/// Events that wait to be handed over at most; over that the publisher reads the log.
const HANDED: usize = 4 * BATCH;

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, VecDeque<LoggedEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, events: Vec<LoggedEvent>) {
        let mut waiting = self.lock();
        if waiting.len() + events.len() > HANDED {
            waiting.clear();
        } else {
            waiting.extend(events);
        }
    }

    /// The events from the one after `position` on, as far as there is none missing between them.
    fn after(&self, position: u64) -> Vec<LoggedEvent> {
        let mut waiting = self.lock();
        let mut next = position.saturating_add(1);
        let mut events = Vec::new();
        while let Some(first) = waiting.front().map(|event| event.position)
            && first <= next
            && events.len() < BATCH
        {
            let Some(event) = waiting.pop_front() else { break };
            // One that was logged before keeps its older place.
            if first == next {
                events.push(event);
                next = next.saturating_add(1);
            }
        }
        events
    }
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
    fresh: &Fresh,
    term: u64,
) -> Result<Step, EventLaneError> {
    let position = progress.position(backends, term).await?;
    let handed = fresh.after(position);
    let events =
        if handed.is_empty() { backends.state.events_after(position, None, BATCH).await? } else { handed };
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
    pub(super) fresh: &'a Fresh,
}

#[async_trait]
impl Work for Logging<'_> {
    type Error = StateError;

    async fn step(&mut self, _: u64) -> Result<Step, StateError> {
        let (logged, next) = log_step(self.backends).await?;
        if !logged.is_empty() {
            self.fresh.add(logged);
            self.logged.iter().for_each(Notify::notify_one);
        }
        Ok(next)
    }
}

/// What another relay logged, while two take themselves for the active one, is found after so long.
const ANYWAY: Duration = Duration::from_secs(5);

/// Waits until something was logged.
pub(super) async fn logged(here: &Notify) {
    let _ = tokio::time::timeout(ANYWAY, here.notified()).await;
}

/// The lane of the publisher: roused by the log, not by every change.
pub(super) struct Publishing<'a> {
    pub(super) backends: &'a Backends,
    pub(super) logged: &'a Notify,
    pub(super) progress: Progress,
    pub(super) fresh: &'a Fresh,
}

#[async_trait]
impl Work for Publishing<'_> {
    type Error = EventLaneError;

    async fn step(&mut self, term: u64) -> Result<Step, EventLaneError> {
        publish_step(self.backends, &mut self.progress, self.fresh, term).await
    }

    fn looks_at_changes(&self) -> bool {
        false
    }

    async fn called(&mut self) {
        logged(self.logged).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::conformance::samples;
    use dropgate_schemas::event::{EventBody, Other};

    fn logged(positions: &[u64]) -> Vec<LoggedEvent> {
        let upload = samples::upload("demo", "/upload/x", 1);
        let event = Event::about(&upload, EventBody::UploadAborted(Other::about(&upload)));
        positions.iter().map(|position| LoggedEvent { position: *position, event: event.clone() }).collect()
    }

    fn positions(events: &[LoggedEvent]) -> Vec<u64> {
        events.iter().map(|event| event.position).collect()
    }

    #[test]
    fn what_was_logged_is_handed_over_once_in_order_and_without_a_gap() {
        let fresh = Fresh::default();
        assert!(fresh.after(0).is_empty());
        // 2 was logged before, 8 comes after one of another relay.
        fresh.add(logged(&[4, 5, 2, 6, 8]));
        assert!(fresh.after(2).is_empty(), "3 is missing: the log has it");
        assert_eq!(positions(&fresh.after(4)), [5, 6]);
        assert!(fresh.after(6).is_empty());
        assert_eq!(positions(&fresh.after(7)), [8]);
        assert!(fresh.after(7).is_empty());
        let many: Vec<u64> = (1..=HANDED as u64).collect();
        fresh.add(logged(&many));
        assert_eq!(fresh.after(0).len(), BATCH);
        fresh.add(logged(&many));
        assert!(fresh.after(BATCH as u64).is_empty(), "too much is left to the log");
    }
}
