//! The way events leave.

#[cfg(feature = "amqp")]
pub(crate) mod amqp;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod ndjson;

use crate::state::LoggedEvent;
use async_trait::async_trait;

/// What went wrong with publishing, as what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EventError {
    /// It can't be reached or did not answer in time: try again.
    #[error("events can't be published now: {0}")]
    Unavailable(String),
    /// It refused for a reason that does not pass by itself.
    #[error("publishing events was refused: {0}")]
    Rejected(String),
}

/// Publishes events to whoever listens. Nobody listening blocks nothing.
#[async_trait]
pub trait EventPublisher: Send + Sync + 'static {
    /// Publishes events in the order given, at least once. On return they are on record there. An event that is published
    /// again carries the same id.
    async fn publish(&self, events: &[LoggedEvent]) -> Result<(), EventError>;

    /// Whether it answers; for readiness.
    async fn check(&self) -> Result<(), EventError>;

    /// Lets go of the publisher's resources; for the end of the process.
    async fn close(&self) {}
}
