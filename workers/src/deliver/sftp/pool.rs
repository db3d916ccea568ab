//! Connections are kept for a while: a login costs more than a small file.

use super::{connect::Connection, hostkey::Pins};
use crate::{config::SftpConfig, deliver::DeliverError};
use dropgate_backends::SecretStore;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A connection that was unused for longer is asked whether it still works.
const TRUSTED: Duration = Duration::from_secs(1);
/// So long it may take to answer that.
const PROBE: Duration = Duration::from_secs(5);
/// No more than so many are kept.
const KEPT: usize = 8;

/// The idle connections to one destination.
pub(super) struct Pool {
    config: SftpConfig,
    pins: Arc<Pins>,
    secrets: Arc<dyn SecretStore>,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pool {
    pub(super) fn new(config: SftpConfig, pins: Pins, secrets: Arc<dyn SecretStore>) -> Self {
        Self { config, pins: Arc::new(pins), secrets, idle: Mutex::new(Vec::new()) }
    }

    pub(super) const fn config(&self) -> &SftpConfig {
        &self.config
    }

    /// A connection that works, as far as can be known.
    pub(super) async fn take(&self) -> Result<Connection, DeliverError> {
        while let Some((connection, since)) = self.pop() {
            let unused = since.elapsed();
            if connection.client.is_closed() || unused > self.config.idle_seconds.duration() {
                continue;
            }
            if unused <= TRUSTED {
                return Ok(connection);
            }
            let probe = tokio::time::timeout(PROBE, connection.client.real_path(".")).await;
            if probe.is_ok_and(|answer| !matches!(answer, Err(super::client::ClientError::Lost(_)))) {
                return Ok(connection);
            }
        }
        super::connect::connect(&self.config, &self.pins, self.secrets.as_ref()).await
    }

    /// Keeps a connection for the next one, if it still works.
    pub(super) fn put(&self, connection: Connection) {
        if connection.client.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = self.config.idle_seconds.duration();
        idle.retain(|(connection, since)| !connection.client.is_closed() && since.elapsed() <= longest);
        if idle.len() < KEPT {
            idle.push((connection, Instant::now()));
        }
    }

    fn pop(&self) -> Option<(Connection, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
