//! Writing down how a try ended.

use super::{attempt::Outcome, claim::Held, lane::Lane, shop::Shop};
use crate::{
    conclude::{Concluded, conclude, dead_letter, defer, describe},
    deliver::{DeliverError, Proof},
    record::{Draft, Recorder, Verdict},
    retry::next_attempt,
};
use dropgate_backends::{
    StateError,
    observe::{Counter, Timing},
};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    change::OutboxEntry,
    delivery::{Delivery, DeliveryReceipt, DeliveryState},
    event::{EventBody, Succeeded},
    id::{DeliveryId, ReceiptId},
    job::Work,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::Upload,
};
use std::time::Duration;

/// Pause before an outcome is written again after the state store failed.
const PAUSE: Duration = Duration::from_secs(2);

/// What a failed try says of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is down, or may be.
    Down,
    /// It answered, and said no.
    Answered,
    /// It was not asked.
    NotAsked,
}

impl DeliverError {
    pub(super) fn gone(&self) -> Gone {
        match self {
            Self::Unavailable(_) => Gone::Down,
            Self::Denied(_) | Self::Collision(_) => Gone::Answered,
            // A wrong digest may be ours or theirs.
            Self::Digest(_) | Self::Source(_) => Gone::NotAsked,
        }
    }

    fn code(&self) -> ReasonCode {
        match self {
            Self::Unavailable(_) => ReasonCode::DestDown,
            Self::Denied(_) => ReasonCode::Denied,
            Self::Collision(_) => ReasonCode::Collision,
            Self::Digest(_) => ReasonCode::Digest,
            Self::Source(_) => ReasonCode::Unavailable,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Delivered,
    Deferred,
    Dead,
    Released,
    /// It was written before, or is somebody else's.
    Nothing,
}

/// Writes the outcome of a try, as long as it takes. If the process has to end first, the claim stands and the next worker
/// finds out.
pub(super) async fn settle(shop: &Shop, lane: &Lane, held: Held, outcome: Outcome) {
    let Held { upload, delivery, unresolved } = held;
    if matches!(outcome, Outcome::Lost) {
        tracing::warn!(delivery = %delivery.delivery_id, "somebody else took over this delivery");
        return;
    }
    let id = upload.upload_id;
    let receipt_id = ReceiptId::new();
    let write = |draft: &mut Draft<'_>, claimed: &mut Delivery| {
        claimed.owner = None;
        match &outcome {
            Outcome::Delivered(proof) => delivered(draft, claimed, proof, receipt_id),
            Outcome::Unconfirmed(found) => unconfirmed(draft, claimed, found),
            Outcome::Failed { error, open } => failed(shop, draft, claimed, error, *open),
            Outcome::Stopped | Outcome::Lost => {
                claimed.finalizing.clone_from(&unresolved);
                released(draft, claimed)
            }
        }
    };
    let settled =
        insist(shop, &shop.recorder, upload, |draft| {
            let Some(at) = draft.upload.deliveries.iter().position(|d| d.delivery_id == delivery.delivery_id)
            else {
                return Verdict::Leave((Settled::Nothing, Concluded::Not));
            };
            let Some(mut claimed) =
                draft.upload.deliveries.get(at).cloned().filter(|d| {
                    d.epoch == delivery.epoch && d.owner == Some(shop.me) && d.state.is_claimed()
                })
            else {
                return Verdict::Leave((Settled::Nothing, Concluded::Not));
            };
            let settled = write(draft, &mut claimed);
            Verdict::Write((settled, tell(draft, at, claimed, settled)))
        })
        .await;
    let Some((upload, (settled, concluded))) = settled else { return };
    count(&upload, &delivery, settled, concluded);
    let destination = &lane.name;
    tracing::debug!(upload = %id, %destination, ?settled, ?concluded, attempt = delivery.attempts, "settled");
}

/// Puts the settled delivery into the record, and everything on record that follows.
fn tell(draft: &mut Draft<'_>, at: usize, settled: Delivery, how: Settled) -> Concluded {
    if let Some(place) = draft.upload.deliveries.get_mut(at) {
        place.clone_from(&settled);
    }
    match how {
        Settled::Delivered if settled.receipt.is_some() => {
            draft.audit(Action::DeliverySucceed, AuditResult::Ok, |entry| describe(entry, &settled));
            if let Some(succeeded) = Succeeded::from_delivery(&draft.upload, &settled) {
                draft.event(EventBody::DeliverySucceeded(succeeded));
            }
        }
        // Unconfirmed: counts as delivered, flagged until an operator resolves it.
        Settled::Delivered => {
            draft.audit(Action::DeliverySucceed, AuditResult::Failed, |entry| describe(entry, &settled));
        }
        Settled::Deferred => defer(draft, &settled),
        Settled::Dead => dead_letter(draft, &settled),
        Settled::Released => {
            draft.audit(Action::DeliveryRelease, AuditResult::Ok, |entry| describe(entry, &settled));
        }
        Settled::Nothing => {}
    }
    conclude(draft)
}

fn delivered(draft: &Draft<'_>, delivery: &mut Delivery, proof: &Proof, receipt_id: ReceiptId) -> Settled {
    let (Some(size), Some(sha256)) = (draft.upload.size, draft.upload.sha256) else {
        return Settled::Nothing;
    };
    delivery.state = DeliveryState::Delivered;
    delivery.reason = None;
    delivery.finalizing = None;
    delivery.begun_as = None;
    delivery.permanent_failures = 0;
    delivery.receipt = Some(DeliveryReceipt {
        receipt_id,
        uri: proof.uri.clone(),
        container: proof.container.clone(),
        version_tag: proof.version_tag.clone(),
        size,
        sha256,
        verified_by: proof.verified_by,
        delivered_at: Timestamp::now(),
    });
    Settled::Delivered
}

fn unconfirmed(draft: &Draft<'_>, delivery: &mut Delivery, found: &str) -> Settled {
    let sentence = format!(
        "the file was given its name at {}, but can't be found there any more ({found}): its receiver may have taken it away; \
         ask, and deliver it again if not",
        delivery.destination
    );
    tracing::error!(upload = %draft.upload.upload_id, delivery = %delivery.delivery_id, %sentence, "unconfirmed delivery");
    delivery.state = DeliveryState::Unconfirmed;
    delivery.reason = Some(Reason::new(ReasonCode::Unavailable, sentence));
    Settled::Delivered
}

fn failed(
    shop: &Shop,
    draft: &mut Draft<'_>,
    delivery: &mut Delivery,
    error: &DeliverError,
    open: bool,
) -> Settled {
    let now = Timestamp::now();
    let retry = &shop.config.retry;
    delivery.reason = Some(Reason::new(error.code(), error.to_string()));
    if !open {
        delivery.finalizing = None;
    }
    let first = delivery.first_attempt_at.unwrap_or(now);
    let next = match error {
        // The policy was asked before this came out.
        DeliverError::Collision(_) => None,
        DeliverError::Denied(_) | DeliverError::Digest(_) => {
            delivery.permanent_failures += 1;
            let another = delivery.permanent_failures < retry.permanent_tries;
            another.then(|| next_attempt(retry, delivery.attempts, first, now)).flatten()
        }
        DeliverError::Unavailable(_) | DeliverError::Source(_) => {
            delivery.permanent_failures = 0;
            next_attempt(retry, delivery.attempts, first, now)
        }
    };
    delivery.next_attempt_at = next;
    match next {
        Some(next) => {
            delivery.state = DeliveryState::RetryWait;
            ring(draft, delivery.delivery_id, Some(next));
            Settled::Deferred
        }
        None => {
            delivery.state = DeliveryState::Dead;
            Settled::Dead
        }
    }
}

/// Not a try: it is as if it had not been claimed.
fn released(draft: &mut Draft<'_>, delivery: &mut Delivery) -> Settled {
    delivery.attempts = delivery.attempts.saturating_sub(1);
    delivery.state = match delivery.state {
        DeliveryState::Finalizing => DeliveryState::RetryWait,
        _ if delivery.finalizing.is_some() => DeliveryState::RetryWait,
        _ => DeliveryState::Pending,
    };
    ring(draft, delivery.delivery_id, None);
    Settled::Released
}

fn ring(draft: &mut Draft<'_>, delivery: DeliveryId, at: Option<Timestamp>) {
    let entry = OutboxEntry::job(draft.upload.upload_id, Work::Deliver { delivery });
    draft.follow_up(match at {
        Some(at) => entry.at(at),
        None => entry,
    });
}

/// Cancels a delivery that was claimed only to see what its dead holder left: a newer version takes its place.
pub(super) async fn cancel(shop: &Shop, held: Held) {
    let Held { upload, delivery, .. } = held;
    insist(shop, &shop.recorder, upload, |draft| {
        let found = draft.upload.deliveries.iter_mut().find(|d| d.delivery_id == delivery.delivery_id);
        let ours =
            |d: &&mut Delivery| d.epoch == delivery.epoch && d.owner == Some(shop.me) && d.state.is_claimed();
        let Some(found) = found.filter(ours) else { return Verdict::Leave(Concluded::Not) };
        found.owner = None;
        found.state = DeliveryState::Cancelled;
        found.reason =
            Some(Reason::new(ReasonCode::Superseded, "a newer version of the same name was accepted"));
        let found = found.clone();
        draft.audit(Action::DeliveryCancel, AuditResult::Ok, |entry| describe(entry, &found));
        Verdict::Write(conclude(draft))
    })
    .await;
}

/// Why a delivery whose destination is left alone is given up.
pub(super) fn unreachable(shop: &Shop) -> Reason {
    let hours = shop.config.retry.budget_seconds.duration().as_secs() / 3600;
    Reason::new(
        ReasonCode::DestDown,
        format!(
            "the destination could not be reached for {hours} hours: bring it back, then deliver it again"
        ),
    )
}

/// Gives up a delivery whose time is over and that nobody tries.
pub(super) async fn expire(shop: &Shop, upload: Upload, id: DeliveryId, reason: Reason) {
    let written = insist(shop, &shop.recorder, upload, |draft| {
        let found = draft.upload.deliveries.iter_mut().find(|d| d.delivery_id == id);
        let waits = |d: &&mut Delivery| matches!(d.state, DeliveryState::Pending | DeliveryState::RetryWait);
        let Some(found) = found.filter(waits) else {
            return Verdict::Leave((Settled::Nothing, Concluded::Not));
        };
        found.state = DeliveryState::Dead;
        found.next_attempt_at = None;
        found.reason.get_or_insert_with(|| reason.clone());
        let found = found.clone();
        dead_letter(draft, &found);
        Verdict::Write((Settled::Dead, conclude(draft)))
    })
    .await;
    if let Some((_, (Settled::Dead, concluded))) = written {
        Counter::DeliveriesDead.one();
        concluded.count();
    }
}

/// Decides until it is written, or the worker is told to give up. None: it was not written.
async fn insist<T>(
    shop: &Shop,
    recorder: &Recorder,
    upload: Upload,
    mut decide: impl FnMut(&mut Draft<'_>) -> Verdict<T>,
) -> Option<(Upload, T)> {
    let id = upload.upload_id;
    loop {
        match recorder.decide(upload.clone(), &mut decide).await {
            Ok(written) => return Some(written),
            Err(error @ (StateError::Unavailable(_) | StateError::Full(_) | StateError::Conflict { .. })) => {
                tracing::warn!(%error, upload = %id, "the outcome of a delivery can't be recorded yet");
                shop.give_up.run_until_cancelled(tokio::time::sleep(PAUSE)).await?;
            }
            Err(error @ (StateError::NotFound(_) | StateError::Rejected(_) | StateError::Corrupt(_))) => {
                tracing::error!(%error, upload = %id, "the outcome of a delivery can't be recorded");
                return None;
            }
        }
    }
}

fn count(upload: &Upload, delivery: &Delivery, settled: Settled, concluded: Concluded) {
    match settled {
        Settled::Delivered => {
            Counter::DeliveriesSucceeded.one();
            Counter::BytesDelivered.add(upload.size.unwrap_or(0));
            if let (Some(received), 1) = (upload.received_at, delivery.generation) {
                Timing::Delivery.record(Timestamp::now().since(received));
            }
        }
        Settled::Deferred => Counter::DeliveriesDeferred.one(),
        Settled::Dead => Counter::DeliveriesDead.one(),
        Settled::Released | Settled::Nothing => {}
    }
    concluded.count();
}
