//! What operators, their machines and consumers of events ask over HTTP: health, readiness, metrics, and the event log.
//!
//! Never on the partners' network: the listener is on loopback unless configured otherwise. [`server`] accepts, [`health`] says
//! whether the process lives and can do its work, [`metrics`] prints the figures of this process and the backlog of the stores.
//! What lies below `/api/v1` asks for a token.

mod api;
mod auth;
pub mod config;
mod events;
pub mod health;
pub mod metrics;
mod problem;
pub mod server;

pub use config::OpsConfig;
pub use health::Probe;
pub use server::{all_routes, health_routes, serve};
