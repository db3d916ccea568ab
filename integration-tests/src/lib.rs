//! End-to-end tests against the real program, real servers and real clients.
//!
//! Nothing here calls the product's code: the program is a child process, the client's packets are encoded by hand,
//! records are read from the outside. What is wrong there can't be wrong here in the same way.

pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod harness;
pub mod matrix;
pub mod raw;
pub mod resuming;
