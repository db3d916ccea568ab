//! The SFTP front end.

pub mod ingest;
pub mod listener;
pub mod ssh;
