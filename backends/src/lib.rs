//! Ports to what Dropgate keeps things in, and their adapters.
//!
//! A port is a small trait that promises semantics: what is atomic, what is idempotent, what is durable on return.
//! Each has an embedded default and real adapters, and one conformance suite that every adapter passes unchanged.
//! Adapters are private: the only door is [`Backends::open`].

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "azure")]
pub mod azure;
pub mod blob;
pub mod cache;
pub mod config;
pub mod credentials;
mod deadline;
mod durable;
pub mod events;
pub mod instance;
pub mod observe;
mod open;
pub mod queue;
pub mod relay;
pub mod secrets;
pub mod state;
#[cfg(feature = "vault")]
mod vault;

pub use blob::{BlobError, BlobReader, BlobStore, BlobWriter};
pub use config::BackendsConfig;
pub use credentials::{CredentialError, CredentialStore};
pub use events::{EventError, EventPublisher};
pub use instance::{Identity, Role};
pub use open::{Backends, OpenError};
pub use queue::{Claimed, JobQueue, QueueError};
pub use relay::{Relay, Ringer};
pub use secrets::{Secret, SecretError, SecretStore};
pub use state::{AuditQuery, StateError, StateStore, UploadQuery};
