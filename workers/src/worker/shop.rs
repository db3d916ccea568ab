//! What all parts of the worker role share.

use super::{Setup, Workers, lane::Lane};
use crate::{
    config::{Problem, WorkersConfig},
    deliver::{self, Surroundings},
    failpoint::Failpoints,
    record::Recorder,
    route::Routes,
};
use dropgate_backends::{
    Backends,
    instance::{Identity, Liveness},
};
use dropgate_schemas::{
    account::DestinationName,
    id::{DeliveryId, InstanceId},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Settled jobs that wait to be acked together; more make their workers wait.
const ACKS: usize = 256;

pub(crate) struct Shop {
    pub(crate) config: WorkersConfig,
    pub(crate) routes: Routes,
    pub(crate) lanes: HashMap<DestinationName, Arc<Lane>>,
    pub(crate) backends: Backends,
    pub(crate) recorder: Recorder,
    pub(crate) sweeper: Recorder,
    pub(crate) me: InstanceId,
    /// Whether this instance existed before.
    pub(crate) returned: bool,
    pub(crate) peers: Arc<Liveness>,
    pub(crate) failpoints: Failpoints,
    pub(crate) stop: CancellationToken,
    pub(crate) give_up: CancellationToken,
    /// Deliveries at a time, over all destinations.
    pub(super) permits: Arc<Semaphore>,
    acks: mpsc::Sender<u64>,
    active: Mutex<HashSet<DeliveryId>>,
    tracker: TaskTracker,
    kill: CancellationToken,
}

/// The mark that this process works on a delivery.
pub(crate) struct Active<'a>(&'a Shop, DeliveryId);

impl Shop {
    pub(super) fn open(
        setup: Setup,
        backends: Backends,
        identity: &Identity,
        peers: Arc<Liveness>,
        workers: &Workers,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let Setup { config, destinations, routes, data_dir, failpoints } = setup;
        let node = identity.audit_node();
        let around = Surroundings { backends: &backends, data_dir: &data_dir };
        let (mut lanes, mut queues, mut problems) = (HashMap::new(), Vec::new(), Vec::new());
        for destination in &destinations {
            match deliver::open(destination, &around) {
                Ok(adapter) => {
                    let (lane, queue) = Lane::new(destination, adapter, &config);
                    queues.push((Arc::clone(&lane), queue));
                    lanes.insert(destination.name().clone(), lane);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let routes = Routes::compile(&routes)?;
        if !problems.is_empty() {
            return Err(problems);
        }
        let (acks, settled) = mpsc::channel(ACKS);
        let shop = Arc::new(Self {
            routes,
            lanes,
            recorder: Recorder::system(backends.state.clone(), "worker", &node),
            sweeper: Recorder::system(backends.state.clone(), "sweeper", &node),
            backends,
            me: identity.id(),
            returned: identity.returned(),
            peers,
            failpoints,
            stop: workers.stop.clone(),
            give_up: workers.give_up.clone(),
            permits: Arc::new(Semaphore::new(config.parallel)),
            config,
            acks,
            active: Mutex::new(HashSet::new()),
            tracker: workers.tracker.clone(),
            kill: workers.kill.clone(),
        });
        let queue = shop.backends.queue.clone();
        shop.spawn(acker(queue, settled));
        for (lane, queue) in queues {
            shop.spawn(super::lane::run(Arc::clone(&shop), lane, queue));
        }
        Ok(shop)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.kill.clone().run_until_cancelled_owned(task));
    }

    /// Marks a delivery as worked on here; none if it is already.
    pub(super) fn enter(&self, delivery: DeliveryId) -> Option<Active<'_>> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        // Not `then_some`: a mark made in vain would take the other one's away when it is dropped.
        if active.insert(delivery) { Some(Active(self, delivery)) } else { None }
    }

    /// Whether this process works on a delivery now.
    pub(crate) fn is_active(&self, delivery: DeliveryId) -> bool {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).contains(&delivery)
    }

    /// Settles a job, soon.
    pub(super) async fn ack(&self, tag: u64) {
        // Without an acker the queue gives the job out again, which does no harm.
        let _ = self.acks.send(tag).await;
    }

    /// Gives a job back, to be given out again not before `delay`.
    pub(super) async fn again(&self, tag: u64, delay: Duration) {
        if let Err(error) = self.backends.queue.release(tag, delay).await {
            tracing::warn!(%error, "a job could not be given back; its lease runs out by itself");
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Acks settled jobs, all that are there in one call.
async fn acker(queue: Arc<dyn dropgate_backends::JobQueue>, mut settled: mpsc::Receiver<u64>) {
    let mut tags = Vec::with_capacity(ACKS);
    while settled.recv_many(&mut tags, ACKS).await > 0 {
        if let Err(error) = queue.ack(&tags).await {
            tracing::warn!(%error, jobs = tags.len(), "settled jobs could not be acked; they will be found done");
        }
        tags.clear();
    }
}
