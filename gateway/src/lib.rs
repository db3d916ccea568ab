//! The SFTP front end.
