//! Takes jobs from the queue, a bounded number at a time, claims deliveries and makes them.

mod attempt;
mod claim;
mod intake;
mod lane;
mod run;
mod settle;
mod shop;

pub(crate) use shop::Shop;

use crate::{
    config::{DestinationConfig, Problem, RouteConfig, WorkersConfig, check},
    failpoint::Failpoints,
    sweep,
};
use dropgate_backends::{
    Backends,
    instance::{Identity, Liveness},
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long what is left may take to give back its claims once the drain is over.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What workers are started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// `[workers]`.
    pub config: WorkersConfig,
    /// `[[destination]]`; see [`crate::config::or_embedded`] for none.
    pub destinations: Vec<DestinationConfig>,
    /// `[[route]]`.
    pub routes: Vec<RouteConfig>,
    /// Where relative paths of destinations begin.
    pub data_dir: PathBuf,
    /// For tests.
    pub failpoints: Failpoints,
}

/// The worker role of this process, running.
#[derive(Debug)]
pub struct Workers {
    tracker: TaskTracker,
    /// No new work is begun.
    stop: CancellationToken,
    /// Work under way is given back.
    give_up: CancellationToken,
    /// Everything ends where it stands.
    kill: CancellationToken,
    drain: Duration,
}

impl Workers {
    /// Starts taking jobs and sweeping, until `shutdown`; then [`Self::drained`] returns soon. What a former self of
    /// `identity` had claimed is free at once. The caller keeps the heartbeat of `identity` going, with `peers` as its
    /// observer, and runs the relay.
    ///
    /// # Errors
    /// Every problem of the config. Nothing is started then.
    pub async fn start(
        setup: Setup,
        backends: Backends,
        identity: Arc<Identity>,
        peers: Arc<Liveness>,
        shutdown: CancellationToken,
    ) -> Result<Self, Vec<Problem>> {
        let problems = check(&setup.config, &setup.destinations, &setup.routes);
        if !problems.is_empty() {
            return Err(problems);
        }
        let workers = Self {
            tracker: TaskTracker::new(),
            stop: shutdown.child_token(),
            give_up: CancellationToken::new(),
            kill: CancellationToken::new(),
            drain: setup.config.drain_seconds.duration(),
        };
        // Others must know this instance before it claims anything, or they would take it for dead.
        let beat = backends.state.heartbeat(identity.id(), identity.role().as_str(), identity.node()).await;
        if let Err(error) = beat {
            tracing::warn!(%error, "the first heartbeat failed; the next one follows");
        }
        let shop = Shop::open(setup, backends, &identity, peers, &workers)?;
        workers.spawn(intake::run(Arc::clone(&shop)));
        workers.spawn(sweep::run(shop));
        Ok(workers)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.kill.clone().run_until_cancelled_owned(task));
    }

    /// Waits for the shutdown, then for the running deliveries to end; what takes longer than the drain allows is given
    /// back to the queue.
    pub async fn drained(self) {
        self.stop.cancelled().await;
        self.tracker.close();
        if tokio::time::timeout(self.drain, self.tracker.wait()).await.is_err() {
            self.give_up.cancel();
            if tokio::time::timeout(LAST_WORDS, self.tracker.wait()).await.is_err() {
                tracing::warn!("some deliveries could not be given back; their leases run out by themselves");
            }
        }
        self.kill.cancel();
        self.tracker.wait().await;
    }

    /// Ends everything where it stands, as a crash would. For tests.
    #[cfg(any(test, feature = "failpoints"))]
    pub async fn crash(self) {
        self.kill.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests;
