//! One delivery job, from the doorbell to the settled record.

use super::{
    attempt::{Outcome, attempt},
    claim::{Claim, claim},
    lane::{InHand, Lane},
    settle::{Gone, cancel, expire, settle, unreachable},
    shop::Shop,
};
use crate::failpoint;
use dropgate_backends::{StateError, UploadQuery, observe::Gauge, state::UploadOrder};
use dropgate_schemas::{
    delivery::{Delivery, DeliveryState},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use rand::RngExt as _;
use std::time::Duration;

/// How long a newer version waits before it looks again whether the older one is settled.
const TURN: Duration = Duration::from_millis(500);
/// When a job is tried again after the state store failed.
const LATER: Duration = Duration::from_secs(2);
/// Unsettled versions of one path that are looked at.
const VERSIONS: usize = 200;

/// What the other versions of the path mean for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It may go.
    Mine,
    /// An older one is not settled at this destination yet.
    Wait,
    /// A newer one was accepted.
    Past,
}

/// Does what a delivery job asks for, if there is anything to do.
pub(super) async fn run_delivery(shop: &Shop, lane: &Lane, job: InHand) {
    let InHand { tag, upload, delivery: id } = job;
    shop.failpoints.pass(failpoint::TAKEN).await;
    let Some(active) = shop.enter(id) else {
        // A second doorbell for what is under way here.
        return shop.ack(tag).await;
    };
    let Some(delivery) = upload.deliveries.iter().find(|d| d.delivery_id == id) else {
        return shop.ack(tag).await;
    };
    let turn = match turn(shop, &upload, delivery).await {
        Ok(turn) => turn,
        Err(error) => {
            tracing::warn!(%error, delivery = %id, "a delivery is put off");
            return shop.again(tag, LATER).await;
        }
    };
    match turn {
        Turn::Wait => return shop.again(tag, TURN).await,
        // The relay cancels it. What was claimed must be looked after first.
        Turn::Past if !delivery.state.is_claimed() && delivery.finalizing.is_none() => {
            return shop.ack(tag).await;
        }
        Turn::Mine | Turn::Past => {}
    }
    let permit = match lane.breaker.admit() {
        Ok(permit) => permit,
        Err(_) if is_spent(shop, &upload, delivery) => {
            expire(shop, upload, id, unreachable(shop)).await;
            return shop.ack(tag).await;
        }
        Err(wait) => {
            let spread = Duration::from_millis(rand::rng().random_range(0..=2_000));
            return shop.again(tag, wait + spread).await;
        }
    };
    let held = match claim(shop, upload, id).await {
        Ok(Claim::Held(held)) => *held,
        Ok(Claim::Later(delay)) => return shop.again(tag, delay).await,
        Ok(Claim::No) => return shop.ack(tag).await,
        Err(error) => {
            tracing::warn!(%error, delivery = %id, "a delivery could not be claimed");
            return shop.again(tag, LATER).await;
        }
    };
    shop.failpoints.pass(failpoint::CLAIMED).await;
    let running = Gauge::DeliveriesRunning.enter();
    if turn == Turn::Past && held.delivery.finalizing.is_none() {
        cancel(shop, held).await;
        return shop.ack(tag).await;
    }
    shop.ack(tag).await;
    let (held, outcome) = attempt(shop, lane, held).await;
    match &outcome {
        Outcome::Delivered(_) | Outcome::Unconfirmed(_) => permit.worked(),
        Outcome::Failed { error, .. } => match error.gone() {
            Gone::Down => permit.failed(),
            Gone::Answered => permit.worked(),
            Gone::NotAsked => drop(permit),
        },
        Outcome::Stopped | Outcome::Lost => drop(permit),
    }
    settle(shop, lane, held, outcome).await;
    drop((running, active));
    shop.failpoints.pass(failpoint::RECORDED).await;
}

/// Versions of one path go to a destination in order.
async fn turn(shop: &Shop, upload: &Upload, delivery: &Delivery) -> Result<Turn, StateError> {
    let query = UploadQuery {
        account: Some(upload.account.clone()),
        path: Some(upload.path.clone()),
        states: vec![UploadState::Committed, UploadState::Delivering],
        order: UploadOrder::ByVersion,
        limit: VERSIONS,
        ..UploadQuery::default()
    };
    let mut turn = Turn::Mine;
    for other in shop.backends.state.find(query).await? {
        if other.version > upload.version {
            turn = Turn::Past;
        } else if other.version < upload.version {
            let mut current = other.current_deliveries().peekable();
            let unrouted = current.peek().is_none();
            if unrouted || current.any(|d| d.destination == delivery.destination && !d.state.is_final()) {
                return Ok(Turn::Wait);
            }
        }
    }
    Ok(turn)
}

/// Whether the time in which a delivery must succeed is over. While nobody tries (the breaker keeps everybody away), one
/// that never was tried counts from when it began to wait.
pub(super) fn is_spent(shop: &Shop, upload: &Upload, delivery: &Delivery) -> bool {
    let since = delivery.first_attempt_at.unwrap_or(upload.updated_at);
    matches!(delivery.state, DeliveryState::Pending | DeliveryState::RetryWait)
        && Timestamp::now().since(since) > shop.config.retry.budget_seconds.duration()
}
