//! One try: stage, record that it will be finished, finish, verify. What an earlier try may have finished is looked at
//! first.

use super::{claim::Held, lane::Lane, shop::Shop};
use crate::{
    conclude::describe,
    deliver::{self, DeliverError, Proof, Recovered, Replace, Staged, Target},
    failpoint,
    record::Verdict,
    route::{siblings, template::suffixed},
};
use dropgate_backends::StateError;
use dropgate_schemas::{
    audit::{Action, AuditResult},
    delivery::{Delivery, DeliveryState, Finalizing, OnCollision},
    time::Timestamp,
};
use std::time::Instant;

/// Temporary names of so many earlier claims are looked for.
const EARLIER: u64 = 32;
/// Finishing is begun again so often, with another key or the right to replace.
const ROUNDS: u32 = 3;
/// Earlier versions that may have put there what is in the way.
const VERSIONS: usize = 200;

/// How a try ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There, and right.
    Delivered(Proof),
    /// Finished, but what is there now can't be called ours any more.
    Unconfirmed(String),
    /// It failed.
    Failed {
        /// Why.
        error: DeliverError,
        /// Whether the finishing call may have had its effect.
        open: bool,
    },
    /// Given back before it could be finished: not a try.
    Stopped,
    /// Somebody else holds it now.
    Lost,
}

/// Makes one try.
pub(super) async fn attempt(shop: &Shop, lane: &Lane, mut held: Held) -> (Held, Outcome) {
    let replace = match held.delivery.on_collision {
        OnCollision::Replace => Replace::Anything,
        OnCollision::Fail | OnCollision::Suffix => Replace::Nothing,
    };
    let Some(mut target) = Target::of(&held.upload, &held.delivery, replace) else {
        let error = DeliverError::Source("the record lacks size or digest".to_owned());
        return (held, Outcome::Failed { error, open: false });
    };
    let staged = match held.unresolved.clone() {
        Some(finalizing) => match lane.destination.recover(&target, &finalizing).await {
            Ok(Recovered::Done(proof)) => return (held, Outcome::Delivered(proof)),
            Ok(Recovered::Gone(found)) => return (held, Outcome::Unconfirmed(found)),
            Ok(Recovered::Staged(staged)) => Ok(staged),
            Ok(Recovered::Again) => {
                held.unresolved = None;
                stage(shop, lane, &mut target, &mut held).await
            }
            Err(error) => return (held, Outcome::Failed { error, open: true }),
        },
        None => stage(shop, lane, &mut target, &mut held).await,
    };
    let planned = target.clone();
    let outcome = match staged {
        Ok(staged) => finish(shop, lane, &mut target, staged, &mut held).await,
        Err(outcome) => outcome,
    };
    // Nothing that could still become visible may stay behind a try that is over.
    let clean = match &outcome {
        Outcome::Failed { open: false, error } => !matches!(error, DeliverError::Unavailable(_)),
        // What an earlier claim staged is finished by the next one.
        Outcome::Stopped => held.unresolved.is_none(),
        Outcome::Delivered(_) => target.epoch > 1,
        Outcome::Failed { open: true, .. } | Outcome::Unconfirmed(_) | Outcome::Lost => false,
    };
    if clean {
        // By the key under which it was staged, should it have got another one since.
        discard(lane, &planned, planned.epoch + 1).await;
    }
    (held, outcome)
}

/// Writes everything under a temporary name, unless the worker is told to stop.
async fn stage(shop: &Shop, lane: &Lane, target: &mut Target, held: &mut Held) -> Result<Staged, Outcome> {
    if target.epoch > 1 {
        discard(lane, target, target.epoch).await;
    }
    let failed = |error| Outcome::Failed { error, open: false };
    let staged = async {
        let source = deliver::source(&shop.backends, &held.upload, &shop.failpoints).await;
        let mut source = source.map_err(failed)?;
        target.begun_as = lane.destination.begin(target).await.map_err(failed)?;
        if target.begun_as.is_some()
            && let Err(outcome) = note_begun(shop, target, held).await
        {
            discard_one(lane, target).await;
            return Err(outcome);
        }
        lane.destination.stage(target, &mut source).await.map_err(failed)
    };
    shop.give_up.run_until_cancelled(staged).await.unwrap_or(Err(Outcome::Stopped))
}

/// Durably records what the bytes will be sent into.
async fn note_begun(shop: &Shop, target: &Target, held: &mut Held) -> Result<(), Outcome> {
    let noted = shop.recorder.decide(held.upload.clone(), |draft| {
        let found = draft.upload.deliveries.iter_mut().find(|d| d.delivery_id == target.delivery);
        let Some(delivery) = found.filter(|d| is_held(shop, target, d)) else { return Verdict::Leave(false) };
        if delivery.begun_as == target.begun_as {
            return Verdict::Leave(true);
        }
        // Finalizing stays: what an earlier epoch may have finished is still to be told from it.
        if delivery.state == DeliveryState::Claimed {
            delivery.state = DeliveryState::Staging;
        }
        delivery.begun_as.clone_from(&target.begun_as);
        Verdict::Write(true)
    });
    match noted.await {
        Ok((upload, true)) => {
            held.look_again(upload);
            Ok(())
        }
        Ok((_, false)) => Err(Outcome::Lost),
        Err(error) => Err(Outcome::Failed { error: DeliverError::Source(error.to_string()), open: false }),
    }
}

/// Whether a delivery in the record is the one of this claim.
fn is_held(shop: &Shop, target: &Target, delivery: &Delivery) -> bool {
    delivery.epoch == target.epoch && delivery.owner == Some(shop.me)
}

/// Records that the file will be finished, finishes it and looks at it.
async fn finish(
    shop: &Shop,
    lane: &Lane,
    target: &mut Target,
    mut staged: Staged,
    held: &mut Held,
) -> Outcome {
    // Known beforehand it saves a round, and with it a durable write, for every later version of a path.
    if target.replace == Replace::Nothing && (held.upload.version > 1 || held.upload.generation > 1) {
        match is_ours(shop, target, held).await {
            Ok(true) => target.replace = Replace::Ours,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, delivery = %target.delivery, "whether the key is ours is found out later");
            }
        }
    }
    for round in 0..ROUNDS {
        let begun = Instant::now();
        match finalize(shop, target, &staged, held).await {
            Ok(true) => {}
            Ok(false) => {
                // Nobody else knows of what this claim wrote, unless an earlier round recorded it.
                if round == 0 && held.unresolved.is_none() {
                    discard_one(lane, target).await;
                }
                return Outcome::Lost;
            }
            Err(error) => {
                tracing::warn!(%error, delivery = %target.delivery, "a delivery can't be finished without its record");
                return Outcome::Stopped;
            }
        }
        shop.failpoints.pass(failpoint::FINALIZING).await;
        if begun.elapsed() > shop.config.finish_within_seconds.duration() {
            tracing::warn!(delivery = %target.delivery, "too late to finish a delivery, it is begun again");
            return Outcome::Stopped;
        }
        let deadline = shop.config.finish_deadline_seconds.duration();
        let finished = tokio::time::timeout(deadline, lane.destination.finish(target, &staged)).await;
        shop.failpoints.pass(failpoint::FINISHED).await;
        let error = match finished {
            Ok(Ok(())) => return verify(shop, lane, target, &staged).await,
            Ok(Err(error)) => error,
            Err(_) => {
                DeliverError::Unavailable(format!("finishing took longer than {} s", deadline.as_secs()))
            }
        };
        match error {
            DeliverError::Collision(_) => match way_around(shop, target, held).await {
                Ok(Around::SameKey) => {}
                Ok(Around::OtherKey) if lane.destination.stages_under_the_key() => {
                    staged = match stage(shop, lane, target, held).await {
                        Ok(staged) => staged,
                        Err(outcome) => return outcome,
                    };
                }
                Ok(Around::OtherKey) => {}
                Ok(Around::None) => return Outcome::Failed { error, open: false },
                Err(why) => {
                    let error = DeliverError::Source(why.to_string());
                    return Outcome::Failed { error, open: false };
                }
            },
            error @ DeliverError::Denied(_) => return Outcome::Failed { error, open: false },
            error @ (DeliverError::Unavailable(_) | DeliverError::Digest(_) | DeliverError::Source(_)) => {
                return Outcome::Failed { error, open: true };
            }
        }
    }
    let error = DeliverError::Collision(format!("the key {} is taken again and again", target.key));
    Outcome::Failed { error, open: false }
}

async fn verify(shop: &Shop, lane: &Lane, target: &Target, staged: &Staged) -> Outcome {
    shop.failpoints.pass(failpoint::VERIFYING).await;
    let verified = lane.destination.verify(target, staged).await;
    shop.failpoints.pass(failpoint::VERIFIED).await;
    match verified {
        Ok(Some(proof)) => Outcome::Delivered(proof),
        Ok(None) => Outcome::Unconfirmed("another file was put in its place at once".to_owned()),
        // It was taken away again.
        Err(error @ DeliverError::Digest(_)) => Outcome::Failed { error, open: false },
        Err(error) => Outcome::Failed { error, open: true },
    }
}

/// Durably records that the finishing call will be made; false if the delivery is somebody else's by now.
async fn finalize(
    shop: &Shop,
    target: &Target,
    staged: &Staged,
    held: &mut Held,
) -> Result<bool, StateError> {
    let finalizing =
        Finalizing { epoch: target.epoch, staged_as: Some(staged.name.clone()), at: Timestamp::now() };
    let (upload, ours) = shop
        .recorder
        .decide(held.upload.clone(), |draft| {
            let found = draft.upload.deliveries.iter_mut().find(|d| d.delivery_id == target.delivery);
            let Some(delivery) = found.filter(|d| is_held(shop, target, d)) else {
                return Verdict::Leave(false);
            };
            let written = delivery.finalizing.as_ref() == Some(&finalizing) && delivery.key == target.key;
            match delivery.state {
                DeliveryState::Finalizing if written => return Verdict::Leave(true),
                DeliveryState::Claimed | DeliveryState::Staging | DeliveryState::Finalizing => {}
                DeliveryState::Pending
                | DeliveryState::Verified
                | DeliveryState::Delivered
                | DeliveryState::RetryWait
                | DeliveryState::Dead
                | DeliveryState::Unconfirmed
                | DeliveryState::Cancelled => return Verdict::Leave(false),
            }
            delivery.state = DeliveryState::Finalizing;
            delivery.finalizing = Some(finalizing.clone());
            delivery.key.clone_from(&target.key);
            let delivery = delivery.clone();
            draft.audit(Action::DeliveryFinalize, AuditResult::Ok, |entry| {
                describe(entry, &delivery);
                entry.reason = None;
            });
            Verdict::Write(true)
        })
        .await?;
    held.look_again(upload);
    Ok(ours)
}

/// What is done about a key that is taken.
enum Around {
    /// Nothing can be done.
    None,
    /// What is there is replaced.
    SameKey,
    /// The target has another key now.
    OtherKey,
}

/// What is to be done about a key that is taken: replace it if our own records say that we put it there, or take another
/// one if the policy says so.
async fn way_around(shop: &Shop, target: &mut Target, held: &Held) -> Result<Around, StateError> {
    let (upload, delivery) = (&held.upload, &held.delivery);
    match target.replace {
        Replace::Anything => return Ok(Around::None),
        // The destination knows better: what is there now is not what we put there.
        Replace::Ours => {}
        Replace::Nothing => {
            if is_ours(shop, target, held).await? {
                target.replace = Replace::Ours;
                return Ok(Around::SameKey);
            }
        }
    }
    let other = suffixed(&target.key, &upload.upload_id.short());
    if delivery.on_collision != OnCollision::Suffix || target.key.contains(&upload.upload_id.short()) {
        return Ok(Around::None);
    }
    let (destination, account) = (delivery.destination.as_str(), &upload.account);
    let reserved = shop.backends.state.reserve_key(destination, &other, account, &upload.path).await?;
    if !reserved {
        return Ok(Around::None);
    }
    target.key = other;
    target.replace = Replace::Nothing;
    Ok(Around::OtherKey)
}

/// Whether our own records say that an earlier version, or an earlier delivery of this one, was put under the key.
async fn is_ours(shop: &Shop, target: &Target, held: &Held) -> Result<bool, StateError> {
    let delivery = &held.delivery;
    let put_there = |d: &Delivery| {
        d.delivery_id != delivery.delivery_id
            && d.destination == delivery.destination
            && d.key == target.key
            && (d.receipt.is_some() || d.finalizing.is_some() || d.state == DeliveryState::Unconfirmed)
    };
    // Mostly it was the version before.
    for limit in [4, VERSIONS] {
        let versions = siblings(&*shop.backends.state, &held.upload, limit).await?;
        if versions.iter().flat_map(|version| &version.deliveries).any(put_there) {
            return Ok(true);
        }
        if versions.len() < limit {
            break;
        }
    }
    Ok(false)
}

/// Removes temporary names of claims before `before`. What can't be removed now is found by the sweep.
async fn discard(lane: &Lane, target: &Target, before: u64) {
    let epochs = before.saturating_sub(EARLIER).max(1)..before;
    left_behind(lane, target, lane.destination.discard(target, epochs).await);
}

/// Removes the temporary name of this claim, and nothing else: somebody else may hold the delivery by now.
async fn discard_one(lane: &Lane, target: &Target) {
    let epochs = target.epoch..target.epoch + 1;
    left_behind(lane, target, lane.destination.discard_later(target, epochs).await);
}

fn left_behind(lane: &Lane, target: &Target, discarded: Result<(), DeliverError>) {
    if let Err(error) = discarded {
        tracing::warn!(%error, delivery = %target.delivery, destination = %lane.name, "a temporary file may be left");
    }
}
