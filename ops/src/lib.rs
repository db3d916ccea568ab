//! What operators and their machines ask over HTTP: health, readiness and metrics.
//!
//! Never on the partners' network: the listener is on loopback unless configured otherwise. [`server`] accepts, [`health`] says
//! whether the process lives and can do its work, [`metrics`] prints the figures of this process and the backlog of the stores.

pub mod config;
pub mod health;
pub mod metrics;
pub mod server;

pub use config::OpsConfig;
pub use health::Probe;
pub use server::serve;
