//! Looks after what was lost on the way. Every worker looks for claims of its own that nobody works on; the rest is done by
//! one of them, by lease.

mod accepted;
mod collect;
mod unfinished;

use crate::worker::Shop;
use collect::Collection;
use dropgate_backends::StateError;
use dropgate_schemas::{
    id::{DeliveryId, OutboxId, UploadId},
    job::{Job, Work},
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Name of the lease that makes a sweeper the active one.
pub const LEASE: &str = "sweeper";
/// Records looked at in one go.
const PAGE: usize = 200;
/// Rings that are remembered at most; over that all are forgotten, and some bells may ring twice.
const REMEMBERED: usize = 100_000;

/// Which bells were rung lately, so that none is rung all the time.
#[derive(Default)]
struct Rung(HashMap<(UploadId, Option<DeliveryId>), Instant>);

impl Rung {
    /// The job, unless it was rung for less than `pause` ago.
    fn job(&mut self, upload: UploadId, work: Work, pause: Duration) -> Option<Job> {
        let delivery = match work {
            Work::Route => None,
            Work::Deliver { delivery } => Some(delivery),
        };
        let now = Instant::now();
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < pause);
            if self.0.len() >= REMEMBERED {
                self.0.clear();
            }
        }
        let last = self.0.get(&(upload, delivery));
        if last.is_some_and(|at| now.saturating_duration_since(*at) < pause) {
            return None;
        }
        self.0.insert((upload, delivery), now);
        Some(Job { entry: OutboxId::new(), upload, work })
    }
}

/// Sweeps until the shop stops.
pub(crate) async fn run(shop: Arc<Shop>) {
    let every = shop.config.sweep.every_seconds.duration();
    // Long enough for a sweep that has much to do.
    let ttl = (every * 3).max(Duration::from_secs(15));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut own, mut rung, mut backlog) = (Rung::default(), Rung::default(), accepted::Backlog::default());
    let mut collection = Collection::default();
    let mut returned = shop.returned;
    while shop.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let sweep = async {
            note("own claims", accepted::own_claims(&shop, &mut own).await);
            match shop.backends.state.lease(LEASE, shop.me, ttl).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return note("lease", Err(error)),
            }
            note("lost claims", accepted::lost_claims(&shop, &mut rung).await);
            if returned {
                // What the former self had taken from the queue would otherwise wait for the queue's lease.
                note(
                    "uploads of a former self",
                    accepted::unclaimed(&shop, &mut rung, &mut backlog, true).await,
                );
                returned = backlog.goes_on();
            }
            note("unclaimed uploads", accepted::unclaimed(&shop, &mut rung, &mut backlog, false).await);
            note("dead gateways", unfinished::dead_gateways(&shop).await);
            note("partial uploads", unfinished::expired_partials(&shop).await);
            note("held uploads", unfinished::expired_holds(&shop).await);
            collection.step(&shop).await;
        };
        if shop.stop.run_until_cancelled(sweep).await.is_none() {
            break;
        }
    }
    if let Err(error) = shop.backends.state.release_lease(LEASE, shop.me).await {
        tracing::debug!(%error, "the sweeper could not give its lease back; it runs out by itself");
    }
}

fn note(what: &str, done: Result<(), StateError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "sweeping {what} failed; it is tried again");
    }
}

/// Puts jobs into the queue.
async fn ring(shop: &Shop, jobs: Vec<Job>) {
    if jobs.is_empty() {
        return;
    }
    tracing::info!(jobs = jobs.len(), "rings again for uploads that wait");
    if let Err(error) = shop.backends.queue.publish(&jobs).await {
        tracing::warn!(%error, "could not ring for uploads that wait; it is tried again");
    }
}

#[cfg(test)]
mod tests;
