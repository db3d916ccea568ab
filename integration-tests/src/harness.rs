//! Starts the real program in directories of its own, drives real clients against it, and watches both from outside.

pub mod binary;
pub mod cli;
pub mod clients;
pub mod gate;
pub mod http;
pub mod openssh;
pub mod payload;
pub mod process;
pub mod records;
pub mod scratch;
pub mod sshd;
pub mod until;
pub mod wire;

pub use gate::{Gate, Roles, Setup};
pub use scratch::{Medium, Scratch};
