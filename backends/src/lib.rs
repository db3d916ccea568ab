//! Ports to what Dropgate keeps things in, and their adapters.
//!
//! A port is a small trait that promises semantics: what is atomic, what is idempotent, what is durable on return.
//! Each has an embedded default and real adapters, and one conformance suite that every adapter passes unchanged.
//! Adapters are private: the only door is [`Backends::open`].

pub mod blob;
pub mod credentials;
pub mod events;
pub mod observe;
pub mod queue;
pub mod secrets;
pub mod state;

pub use blob::{BlobError, BlobReader, BlobStore, BlobWriter};
pub use credentials::{CredentialError, CredentialStore};
pub use events::{EventError, EventPublisher};
pub use queue::{Claimed, JobQueue, QueueError};
pub use secrets::{Secret, SecretError, SecretStore};
pub use state::{AuditQuery, StateError, StateStore, UploadQuery};

use std::sync::Arc;

/// All ports, opened. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    /// Bytes of uploads.
    pub blob: Arc<dyn BlobStore>,
    /// Records.
    pub state: Arc<dyn StateStore>,
    /// Jobs.
    pub queue: Arc<dyn JobQueue>,
    /// Events.
    pub events: Arc<dyn EventPublisher>,
    /// Verifiers.
    pub credentials: Arc<dyn CredentialStore>,
    /// Secrets.
    pub secrets: Arc<dyn SecretStore>,
}
