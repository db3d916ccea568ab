//! Puts the front end together: ports, tree, engine and listener of one gateway process.

mod engine;
mod observer;

use crate::{
    config::GatewayConfig,
    ingest::{GatewayBudget, Ingest, LiveUploads, recover},
    journal::Journal,
    listener::{Listener, ListenerDependencies, ListenerError},
    ssh::hostkey::HostKeys,
};
use dropgate_backends::{
    Backends, StateError,
    instance::{Identity, Liveness},
    relay::Ringer,
};
use std::{net::SocketAddr, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The listener could not be set up.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// What the last run left behind could not be put in order.
    #[error("unfinished uploads of the last run could not be put in order: {0}")]
    Recovery(#[from] StateError),
}

/// A gateway that is bound and not serving yet.
pub struct Gateway {
    listener: Listener,
    journal: Arc<Journal>,
}

impl Gateway {
    /// Puts in order what the last run left, and binds the address. `liveness` is kept up to date by the heartbeat of the
    /// process.
    ///
    /// # Errors
    /// [`GatewayError`] names the setting or address and what to do.
    pub async fn bind(
        config: &GatewayConfig,
        backends: Backends,
        identity: &Identity,
        liveness: Arc<Liveness>,
        host_keys: HostKeys,
        shutdown: CancellationToken,
    ) -> Result<Self, GatewayError> {
        let node = identity.audit_node();
        // The lock on the data directory is held, so the former self is dead.
        let recovered = recover(backends.state.as_ref(), identity.id(), &node).await?;
        if recovered > 0 {
            tracing::info!(
                uploads = recovered,
                "uploads that the last run was receiving can be resumed or are given up"
            );
        }
        let journal = Journal::new(Arc::clone(&backends.state));
        let ingest = Ingest {
            ringer: Ringer::start(&backends, shutdown),
            live: Arc::new(LiveUploads::default()),
            memory: GatewayBudget::new(config.uploads.memory_bytes),
            options: Arc::new(config.uploads.options()),
            liveness,
            backends: backends.clone(),
        };
        let engines = engine::Engines::new(
            ingest,
            Arc::clone(&journal),
            config.uploads.session_limits(),
            config.uploads.connection_memory_bytes,
            identity.id(),
            node.clone(),
        );
        let with = ListenerDependencies {
            credentials: Arc::clone(&backends.credentials),
            accounts: Arc::new(Arc::clone(&backends.state)),
            engines: Arc::new(engines),
            observer: Arc::new(observer::JournalObserver::new(Arc::clone(&journal), node)),
            host_keys,
        };
        let listener = Listener::bind(config.listener.clone(), with).await?;
        Ok(Self { listener, journal })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then drains: no new connections, uploads that are being closed are finished.
    pub async fn serve(self, shutdown: CancellationToken) {
        let stop_journal = CancellationToken::new();
        let journal = tokio::spawn(Arc::clone(&self.journal).run(stop_journal.clone()));
        self.listener.serve(shutdown).await;
        stop_journal.cancel();
        let _ = journal.await;
    }
}
