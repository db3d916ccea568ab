//! Puts the front end together: ports, tree, engine and listener of one gateway process.

mod engine;
mod observer;

pub use observer::WEAK_ALGORITHMS;

use crate::{
    config::GatewayConfig,
    ingest::{GatewayBudget, Ingest, LiveUploads, Storage, content_type::Detector, recover, sweep},
    journal::Journal,
    listener::{Listener, ListenerDependencies, ListenerError},
    ssh::hostkey::HostKeys,
};
use dropgate_backends::{
    Backends, BlobStore, StateError, StateStore,
    instance::{Identity, Liveness},
    relay::Ringer,
};
use dropgate_schemas::id::InstanceId;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often it is looked for uploads that a failed request left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What did not change for so long and is not open was left behind: longer than any request takes to write a record. Together
/// they are well below the minute within which everything is to be settled once the state store is back.
const LEFT_BEHIND: Duration = Duration::from_secs(30);

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
    more_listeners: Vec<Listener>,
    journal: Arc<Journal>,
    sweep: Sweep,
    storage: (Arc<Storage>, Arc<dyn BlobStore>),
}

/// What the sweep of a gateway's own unfinished uploads needs.
struct Sweep {
    state: Arc<dyn StateStore>,
    live: Arc<LiveUploads>,
    instance: InstanceId,
    node: String,
}

impl Sweep {
    async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_some() {
            let (state, live) = (self.state.as_ref(), self.live.as_ref());
            match sweep(state, live, self.instance, &self.node, LEFT_BEHIND).await {
                Ok(0) => {}
                Ok(uploads) => {
                    tracing::info!(uploads, "uploads that failed requests left behind were settled")
                }
                Err(error) => {
                    tracing::warn!(%error, "looking for uploads left behind failed; it is tried again")
                }
            }
        }
    }
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
        let detector = Detector::new(&config.content_type);
        detector.load();
        let ingest = Ingest {
            ringer: Ringer::start(&backends, shutdown.clone()),
            draining: shutdown,
            live: Arc::new(LiveUploads::default()),
            memory: GatewayBudget::new(config.uploads.memory_bytes),
            options: Arc::new(config.uploads.options()),
            detector: Arc::new(detector),
            liveness,
            storage: Arc::default(),
            backends: backends.clone(),
        };
        let storage = (Arc::clone(&ingest.storage), Arc::clone(&backends.blob));
        let sweep = Sweep {
            state: Arc::clone(&backends.state),
            live: Arc::clone(&ingest.live),
            instance: identity.id(),
            node: node.clone(),
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
        let listener = Listener::bind(config.listener.clone(), with.clone()).await?;
        let mut more_listeners = Vec::new();
        for more in &config.more_listeners {
            more_listeners.push(listener.bind_beside(more.beside(&config.listener), with.clone()).await?);
        }
        Ok(Self { listener, more_listeners, journal, sweep, storage })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// The bound addresses of further listeners, in the order of the config.
    #[must_use]
    pub fn more_local_addrs(&self) -> Vec<SocketAddr> {
        self.more_listeners.iter().map(Listener::local_addr).collect()
    }

    /// Serves until `shutdown`, then drains: no new connections, uploads that are being closed are finished.
    pub async fn serve(self, shutdown: CancellationToken) {
        let stop_journal = CancellationToken::new();
        let journal = tokio::spawn(Arc::clone(&self.journal).run(stop_journal.clone()));
        let stop_sweep = CancellationToken::new();
        let sweeping = tokio::spawn(self.sweep.run(stop_sweep.clone()));
        let (storage, blob) = self.storage;
        let watching = tokio::spawn(storage.watch(blob, stop_sweep.clone()));
        let more = self.more_listeners.into_iter().map(|listener| listener.serve(shutdown.clone()));
        tokio::join!(self.listener.serve(shutdown.clone()), futures::future::join_all(more));
        stop_sweep.cancel();
        let _ = sweeping.await;
        let _ = watching.await;
        stop_journal.cancel();
        let _ = journal.await;
    }
}
