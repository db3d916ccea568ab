//! One lane for each destination, so that a slow one keeps only its own jobs waiting.

use super::{run::run_delivery, shop::Shop};
use crate::{
    breaker::{Breaker, Permit},
    config::{DestinationConfig, WorkersConfig},
    deliver::Destination,
};
use dropgate_schemas::{account::DestinationName, delivery::DestinationKind, id::DeliveryId, upload::Upload};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Jobs that wait in a lane for each one that runs in it.
const WAITING: usize = 4;
/// So long a full lane is waited for. A destination that works makes room sooner; one that doesn't is passed over from
/// then on, until it has room.
const PATIENCE: Duration = Duration::from_millis(250);

/// A job, and its record as it was when the job was taken.
pub(super) struct InHand {
    pub(super) tag: u64,
    pub(super) upload: Upload,
    pub(super) delivery: DeliveryId,
}

/// A destination and the way to it.
pub(crate) struct Lane {
    pub(crate) name: DestinationName,
    pub(crate) kind: DestinationKind,
    pub(crate) destination: Arc<dyn Destination>,
    pub(super) breaker: Breaker,
    parallel: usize,
    jobs: mpsc::Sender<InHand>,
    congested: AtomicBool,
}

impl Lane {
    pub(super) fn new(
        config: &DestinationConfig,
        destination: Arc<dyn Destination>,
        workers: &WorkersConfig,
    ) -> (Arc<Self>, mpsc::Receiver<InHand>) {
        let parallel = config.parallel().unwrap_or(workers.parallel_per_destination).max(1);
        let (jobs, queue) = mpsc::channel(parallel * WAITING);
        let lane = Self {
            name: config.name().clone(),
            kind: config.kind(),
            destination,
            breaker: Breaker::new(workers.breaker.clone()),
            parallel,
            jobs,
            congested: AtomicBool::new(false),
        };
        (Arc::new(lane), queue)
    }

    /// The right to ask the destination for something besides a delivery; none while it is left alone.
    pub(crate) fn probe(&self) -> Option<Permit<'_>> {
        self.breaker.admit().ok()
    }

    /// Hands a job in, if there is room or will be in a moment; otherwise it comes back.
    pub(super) async fn offer(&self, job: InHand, stop: &CancellationToken) -> Option<InHand> {
        let job = match self.jobs.try_send(job) {
            Ok(()) => {
                self.congested.store(false, Relaxed);
                return None;
            }
            Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) => job,
        };
        if self.congested.load(Relaxed) || stop.is_cancelled() {
            return Some(job);
        }
        match tokio::time::timeout(PATIENCE, self.jobs.reserve()).await {
            Ok(Ok(room)) => {
                room.send(job);
                None
            }
            Ok(Err(_)) | Err(_) => {
                self.congested.store(true, Relaxed);
                Some(job)
            }
        }
    }
}

/// Runs the jobs of a lane, so many at a time, until the shop stops; then gives back those that wait.
pub(super) async fn run(shop: Arc<Shop>, lane: Arc<Lane>, mut queue: mpsc::Receiver<InHand>) {
    let permits = Arc::new(Semaphore::new(lane.parallel));
    while let Some(Some(job)) = shop.stop.run_until_cancelled(queue.recv()).await {
        let both = async {
            let own = Arc::clone(&permits).acquire_owned().await.ok()?;
            let shared = Arc::clone(&shop.permits).acquire_owned().await.ok()?;
            Some((own, shared))
        };
        match shop.stop.run_until_cancelled(both).await.flatten() {
            Some(held) => {
                let (shop_of_task, lane) = (Arc::clone(&shop), Arc::clone(&lane));
                shop.spawn(async move {
                    run_delivery(&shop_of_task, &lane, job).await;
                    drop(held);
                });
            }
            None => shop.again(job.tag, Duration::ZERO).await,
        }
    }
    queue.close();
    while let Some(job) = queue.recv().await {
        shop.again(job.tag, Duration::ZERO).await;
    }
}
