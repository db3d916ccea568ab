//! The SFTP front end.

pub mod ingest;
