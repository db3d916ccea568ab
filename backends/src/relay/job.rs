//! Doorbells: outbox -> job queue.

use super::{
    BATCH,
    lane::{Step, Work},
    ring::is_fresh,
};
use crate::{Backends, observe::Counter, queue::QueueError, state::StateError};
use async_trait::async_trait;
use dropgate_schemas::{
    change::{OutboxEntry, OutboxKind, OutboxMessage},
    job::Job,
    time::Timestamp,
};

/// More fresh commits than wait at a time to be marked by those who rang for them.
const FRESH: usize = 512;

/// The lane that rings.
pub(super) struct Ringing<'a>(pub(super) &'a Backends);

#[async_trait]
impl Work for Ringing<'_> {
    type Error = JobLaneError;

    async fn step(&mut self, _: u64) -> Result<Step, JobLaneError> {
        step(self.0).await
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JobLaneError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// The job that an entry asks for, if it asks for one.
pub(super) fn job_of(entry: &OutboxEntry) -> Option<Job> {
    match (&entry.message, entry.upload) {
        (OutboxMessage::Job { work }, Some(upload)) => Some(Job { entry: entry.id, upload, work: *work }),
        (OutboxMessage::Job { .. }, None) => {
            tracing::error!(entry = %entry.id, "outbox entry asks for work on no upload: dropped");
            None
        }
        (OutboxMessage::Event { .. } | OutboxMessage::Supersede { .. }, _) => None,
    }
}

/// Rings for what is due. A bell that was rung but could not be marked is rung again.
pub(super) async fn step(backends: &Backends) -> Result<Step, JobLaneError> {
    let now = Timestamp::now();
    // Where others ring too, their fresh commits must not hide what waits behind them.
    let limit = if backends.queue.wants_ringing() { FRESH + BATCH } else { BATCH };
    let mut due = backends.state.outbox_due(OutboxKind::Job, now, limit).await?;
    let found = due.len();
    if backends.queue.wants_ringing() {
        due.retain(|entry| !is_fresh(entry, now));
    }
    if due.is_empty() {
        return Ok(Step::Rest);
    }
    let jobs: Vec<Job> = due.iter().filter_map(job_of).collect();
    backends.queue.publish(&jobs).await?;
    Counter::JobsPublished.add(jobs.len() as u64);
    let ids: Vec<_> = due.iter().map(|entry| entry.id).collect();
    backends.state.outbox_done(&ids).await?;
    Ok(Step::after(found, limit))
}
