//! Delivery: from the queue to the destination, verified.
//!
//! In the order of the road: [`config`] says what goes where, [`worker`] takes jobs and claims deliveries, [`route`] chooses
//! destinations, `deliver` brings the bytes there and proves it, `conclude` says what an upload's deliveries add up to, and
//! `record` writes all that down in one conditional write with its audit entries and events. [`sweep`] looks after what was
//! lost on the way, [`mod@redeliver`] sends again what an operator asks for.
//!
//! A job is a doorbell; the truth is the record. A delivery belongs to whoever raised its epoch last, and every write says
//! which epoch it belongs to, so a worker that was taken for dead can't settle anything any more.

pub mod config;
pub mod failpoint;
pub mod redeliver;
pub mod route;
pub mod sweep;
pub mod worker;

mod breaker;
mod conclude;
mod deliver;
mod record;
mod retry;

#[cfg(test)]
mod harness;

pub use config::{DestinationConfig, Problem, RouteConfig, WorkersConfig, check};
pub use redeliver::{RedeliverError, redeliver};
pub use worker::{Setup, Workers};
