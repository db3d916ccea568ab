//! The SFTP engine on the real embedded stores, driven packet by packet.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod client;
mod closing;
mod differential;
mod digests;
mod inbox;
mod model;
mod names;
mod quota;
mod resume;
mod shaky;
mod tree;
mod trouble;
mod uploads;
