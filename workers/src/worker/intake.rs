//! From the queue to the lane of the destination.

use super::{lane::InHand, run::is_spent, settle::expire, shop::Shop};
use crate::route::{Routed, route};
use dropgate_backends::{Claimed, StateError};
use dropgate_schemas::{
    job::Work,
    reason::{Reason, ReasonCode},
    upload::Upload,
};
use rand::RngExt as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Jobs taken at a time.
const TAKE: usize = 32;
/// Longest wait for a job: so long at most does a shutdown wait for the queue.
const WAIT: Duration = Duration::from_secs(2);
/// Uploads routed at a time.
const ROUTING: usize = 16;
/// Pause after the queue failed.
const PAUSE: Duration = Duration::from_secs(1);
/// When a job is tried again that could not be looked at.
const LATER: Duration = Duration::from_secs(2);
/// A record that can't be read is not asked for again before that.
const MUCH_LATER: Duration = Duration::from_secs(60);

/// Takes jobs until the shop stops.
pub(super) async fn run(shop: Arc<Shop>) {
    let routing = Arc::new(Semaphore::new(ROUTING));
    while let Some(taken) = shop.stop.run_until_cancelled(shop.backends.queue.take(TAKE, WAIT)).await {
        match taken {
            Ok(jobs) => {
                for job in jobs {
                    dispatch(&shop, &routing, job).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no jobs can be taken from the queue");
                let _ = shop.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
    }
}

async fn dispatch(shop: &Arc<Shop>, routing: &Arc<Semaphore>, claimed: Claimed) {
    let (tag, job) = (claimed.tag, claimed.job);
    if shop.stop.is_cancelled() {
        return shop.again(tag, Duration::ZERO).await;
    }
    let upload = match shop.backends.state.upload(job.upload).await {
        Ok(Some(upload)) => upload,
        // Records are never removed: this job belongs to another installation, or to a database that was replaced.
        Ok(None) => return shop.ack(tag).await,
        Err(error) => return put_off(shop, tag, &error).await,
    };
    match job.work {
        Work::Route => {
            let Ok(permit) = Arc::clone(routing).acquire_owned().await else { return };
            let routed = Arc::clone(shop);
            shop.spawn(async move {
                route_upload(&routed, tag, upload).await;
                drop(permit);
            });
        }
        Work::Deliver { delivery } => {
            let Some(found) = upload.deliveries.iter().find(|d| d.delivery_id == delivery) else {
                return shop.ack(tag).await;
            };
            if found.state.is_final() {
                return shop.ack(tag).await;
            }
            let Some(lane) = shop.lanes.get(&found.destination) else {
                if is_spent(shop, &upload, found) {
                    let sentence = format!(
                        "the destination {} is in no worker's config any more: add it again, then deliver it again",
                        found.destination
                    );
                    expire(shop, upload, delivery, Reason::new(ReasonCode::DestDown, sentence)).await;
                    return shop.ack(tag).await;
                }
                // Another worker may know it, or this one after its config was put right.
                tracing::error!(destination = %found.destination, upload = %upload.upload_id,
                    "a delivery waits for a destination that is not in the config: add it again");
                return shop.again(tag, MUCH_LATER).await;
            };
            let in_hand = InHand { tag, upload, delivery };
            if let Some(in_hand) = lane.offer(in_hand, &shop.stop).await {
                // Its destination is slow: the others' jobs behind it must not wait for it.
                let delay = Duration::from_millis(rand::rng().random_range(4_000..8_000));
                shop.again(in_hand.tag, delay).await;
            }
        }
    }
}

async fn route_upload(shop: &Shop, tag: u64, upload: Upload) {
    let id = upload.upload_id;
    let kind = |name: &_| shop.lanes.get(name).map(|lane| lane.kind);
    match route(&shop.recorder, &shop.routes, kind, upload).await {
        Ok(Routed::Done(concluded)) => {
            concluded.count();
            tracing::debug!(upload = %id, ?concluded, "routed");
            shop.ack(tag).await;
        }
        Ok(Routed::Nothing) => shop.ack(tag).await,
        Err(error) => put_off(shop, tag, &error).await,
    }
}

async fn put_off(shop: &Shop, tag: u64, error: &StateError) {
    let delay = match error {
        StateError::Conflict { .. } => Duration::ZERO,
        StateError::Unavailable(_) | StateError::Full(_) => LATER,
        StateError::NotFound(_) | StateError::Rejected(_) | StateError::Corrupt(_) => MUCH_LATER,
    };
    tracing::warn!(%error, ?delay, "a job is put off");
    shop.again(tag, delay).await;
}
