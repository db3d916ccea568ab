//! Pure data that crosses a process boundary: what the state store keeps, what the queue carries, what
//! downstream systems receive. No I/O and no async runtime live here, so every other crate can depend on it.
//!
//! In the order of the road: [`account`] and [`path`] (who puts what where), [`upload`] and [`delivery`] (the
//! record and its deliveries), [`change`] (one conditional write of a record with its audit entries and outbox),
//! [`job`], [`event`] and [`audit`] (what follows from it); [`token`] (who may read it over HTTP).

pub mod account;
pub mod audit;
pub mod change;
pub mod content;
pub mod delivery;
pub mod digest;
pub mod directory;
pub mod event;
pub mod id;
pub mod inbox;
pub mod job;
pub mod path;
pub mod reason;
pub mod time;
pub mod token;
pub mod upload;
