//! Jobs for workers: doorbells, at least once, in no promised order.

#[cfg(feature = "amqp")]
pub(crate) mod amqp;
#[cfg(any(test, feature = "conformance"))]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a conformance suite fails by panicking")]
pub mod conformance;
pub(crate) mod sqlite;

use async_trait::async_trait;
use dropgate_schemas::job::Job;
use std::time::Duration;

/// What went wrong with the queue, as what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The queue takes no more: try again later.
    #[error("the job queue is full: {0}")]
    Full(String),
    /// It can't be reached or did not answer in time: try again.
    #[error("the job queue is unavailable: {0}")]
    Unavailable(String),
    /// It refused for a reason that does not pass by itself: credentials, a queue of another type under our name.
    #[error("the job queue refused: {0}")]
    Rejected(String),
}

/// A message that was taken and not settled yet.
#[derive(Debug)]
pub struct Claimed {
    /// The job.
    pub job: Job,
    /// What the adapter needs to settle it.
    pub tag: u64,
    /// How often it was given out before.
    pub redelivered: u32,
}

/// A queue of jobs. A published job is given out at least once, to one taker at a time; one that is neither acked nor
/// released within the adapter's lease is given out again.
#[async_trait]
pub trait JobQueue: Send + Sync + 'static {
    /// Publishes jobs. On return the queue has them on record.
    async fn publish(&self, jobs: &[Job]) -> Result<(), QueueError>;

    /// Takes up to `limit` jobs, waiting up to `wait` for the first.
    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Claimed>, QueueError>;

    /// Settles: the job is done or pointless.
    async fn ack(&self, tags: &[u64]) -> Result<(), QueueError>;

    /// Gives it back, to be given out again not before `delay`.
    async fn release(&self, tag: u64, delay: Duration) -> Result<(), QueueError>;

    /// How many wait, for status and metrics.
    async fn depth(&self) -> Result<u64, QueueError>;

    /// Whether the queue answers; for readiness.
    async fn check(&self) -> Result<(), QueueError>;

    /// Whether it pays for a process to ring for its own commits (see [`crate::relay::Ringer`]): no, if the relay hears of
    /// them as soon as the queue would.
    fn wants_ringing(&self) -> bool {
        true
    }

    /// Gives back what was taken and not settled, where that is possible, and lets go of the queue's resources; for the
    /// end of the process.
    async fn close(&self) {}
}
