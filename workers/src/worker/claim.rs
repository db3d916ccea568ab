//! Taking a delivery: one compare-and-set that raises its epoch. Whoever held it before can't settle it any more.
//!
//! No pause is needed between the death of a holder and the next claim: temporary names belong to one epoch, so a late
//! rename of a stalled worker finds nothing to rename once the next holder has renamed or removed what was there.

use super::shop::Shop;
use crate::{
    conclude::{Concluded, conclude, dead_letter, describe},
    record::Verdict,
};
use dropgate_backends::{StateError, observe::Counter};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    delivery::{Delivery, DeliveryState, Finalizing},
    id::DeliveryId,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// A doorbell may ring so much early (clocks differ, sleeps end early); one that rings earlier has a successor.
const EARLY: Duration = Duration::from_secs(60);

/// A delivery this process holds.
#[derive(Debug)]
pub(super) struct Held {
    /// The record with the claim in it.
    pub(super) upload: Upload,
    /// The claimed delivery in it.
    pub(super) delivery: Delivery,
    /// What an earlier epoch may have finished.
    pub(super) unresolved: Option<Finalizing>,
}

impl Held {
    /// The record was written or read anew.
    pub(super) fn look_again(&mut self, upload: Upload) {
        let id = self.delivery.delivery_id;
        self.upload = upload;
        if let Some(delivery) = self.upload.deliveries.iter().find(|d| d.delivery_id == id) {
            self.delivery = delivery.clone();
        }
    }
}

#[derive(Debug)]
pub(super) enum Claim {
    /// It is ours.
    Held(Box<Held>),
    /// It is not due yet.
    Later(Duration),
    /// There is nothing to claim: settled, held by a living worker, kept back, given up.
    No,
}

/// Which way a single look at the record went.
enum Look {
    Held,
    Later(Duration),
    No,
    GivenUp(Concluded),
}

/// Claims a delivery, beginning with the record at hand.
pub(super) async fn claim(shop: &Shop, upload: Upload, id: DeliveryId) -> Result<Claim, StateError> {
    let mut claiming = None;
    let (upload, look) = shop
        .recorder
        .decide(upload, |draft| {
            let claimable = matches!(draft.upload.state, UploadState::Committed | UploadState::Delivering);
            let Some(at) = draft.upload.deliveries.iter().position(|d| d.delivery_id == id) else {
                return Verdict::Leave(Look::No);
            };
            let generation = draft.upload.generation;
            let Some(delivery) = draft.upload.deliveries.get_mut(at) else { return Verdict::Leave(Look::No) };
            if delivery.owner == Some(shop.me) && claiming == Some(delivery.epoch) {
                return Verdict::Leave(Look::Held);
            }
            if !claimable || delivery.generation != generation {
                return Verdict::Leave(Look::No);
            }
            let now = Timestamp::now();
            let mut orphaned = false;
            match delivery.state {
                DeliveryState::Pending | DeliveryState::RetryWait => {
                    let wait = delivery.next_attempt_at.map_or(Duration::ZERO, |due| due.since(now));
                    if wait > EARLY {
                        return Verdict::Leave(Look::No);
                    }
                    if wait > Duration::ZERO {
                        return Verdict::Leave(Look::Later(wait));
                    }
                }
                DeliveryState::Claimed
                | DeliveryState::Staging
                | DeliveryState::Finalizing
                | DeliveryState::Verified => {
                    // A claim of our own that nobody here works on is that of our former self.
                    let dead = delivery.owner.is_none_or(|owner| {
                        owner == shop.me || shop.peers.is_dead(owner, shop.config.lease_seconds.duration())
                    });
                    if !dead {
                        return Verdict::Leave(Look::No);
                    }
                    orphaned = true;
                    delivery.crashes += 1;
                }
                DeliveryState::Delivered
                | DeliveryState::Dead
                | DeliveryState::Unconfirmed
                | DeliveryState::Cancelled => return Verdict::Leave(Look::No),
            }
            if orphaned && delivery.crashes >= shop.config.retry.crashes {
                let sentence = format!(
                    "{} workers died on this delivery: look into their logs, then deliver it again",
                    delivery.crashes
                );
                delivery.state = DeliveryState::Dead;
                delivery.owner = None;
                delivery.reason = Some(Reason::new(ReasonCode::Crashes, sentence));
                let delivery = delivery.clone();
                dead_letter(draft, &delivery);
                return Verdict::Write(Look::GivenUp(conclude(draft)));
            }
            delivery.state = DeliveryState::Claimed;
            delivery.owner = Some(shop.me);
            delivery.epoch += 1;
            delivery.attempts += 1;
            delivery.next_attempt_at = None;
            delivery.first_attempt_at.get_or_insert(now);
            claiming = Some(delivery.epoch);
            let delivery = delivery.clone();
            draft.upload.state = UploadState::Delivering;
            draft.audit(Action::DeliveryClaim, AuditResult::Ok, |entry| {
                describe(entry, &delivery);
                entry.reason = None;
                if orphaned {
                    entry.detail.insert("crashes".to_owned(), delivery.crashes.to_string());
                }
            });
            draft.need_not_last();
            Verdict::Write(Look::Held)
        })
        .await?;
    Ok(match look {
        Look::No => Claim::No,
        Look::Later(wait) => Claim::Later(wait),
        Look::GivenUp(concluded) => {
            Counter::DeliveriesDead.one();
            concluded.count();
            tracing::error!(delivery = %id, upload = %upload.upload_id, "given up: workers died on it again and again");
            Claim::No
        }
        Look::Held => match upload.deliveries.iter().find(|d| d.delivery_id == id).cloned() {
            Some(delivery) => {
                let unresolved = delivery.finalizing.clone();
                Claim::Held(Box::new(Held { upload, delivery, unresolved }))
            }
            None => Claim::No,
        },
    })
}
