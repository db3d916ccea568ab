//! The SFTP front end. In the order of the road: [`listener`] accepts, [`ssh`] authenticates, [`sftp`] speaks, [`vfs`]
//! decides, [`ingest`] moves bytes and commits. [`gateway`] puts them together.

pub mod config;
pub mod gateway;
pub mod ingest;
pub mod journal;
pub mod listener;
pub mod session;
pub mod sftp;
pub mod ssh;
pub mod vfs;

pub use config::GatewayConfig;
pub use gateway::{Gateway, GatewayError};
