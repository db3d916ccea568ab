//! The way events leave.

#[cfg(feature = "amqp")]
pub(crate) mod amqp;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod ndjson;
#[cfg(feature = "webhooks")]
pub(crate) mod webhook;

use crate::state::LoggedEvent;
use async_trait::async_trait;
use dropgate_schemas::event::Event;
use std::time::Duration;

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
    /// Publishes events in the order given, at least once, and says how many of them, from the first on, are on record there;
    /// the rest has to be published again. An event that is published again carries the same id.
    async fn publish(&self, events: &[LoggedEvent]) -> Result<usize, EventError>;

    /// Whether it answers; for readiness.
    async fn check(&self) -> Result<(), EventError>;

    /// Lets go of the publisher's resources; for the end of the process.
    async fn close(&self) {}
}

/// What a subscriber answered that did not take an event.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct NotTaken {
    /// What it said, or why it was not reached.
    pub why: String,
    /// It asks to be left alone for so long.
    pub retry_after: Option<Duration>,
}

/// Somebody who is told of events one after the other, besides the publisher. Each has a cursor of its own in the event log,
/// so one that is down keeps nobody else from hearing.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// The name of its cursor.
    fn name(&self) -> &str;

    /// Whether it gets events from before it was first heard of.
    fn wants_the_whole_log(&self) -> bool;

    /// Whether it wants this one.
    fn wants(&self, event: &Event) -> bool;

    /// An event that is so old and was not taken once more is passed over.
    fn patience(&self) -> Duration;

    /// Tells it of one event, at least once; on return it has taken it. Takes no longer than some seconds.
    async fn tell(&self, event: &Event) -> Result<(), NotTaken>;
}
