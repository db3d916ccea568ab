//! The `route` job: chooses destinations once and stores the deliveries, with their final keys and a doorbell each, in one
//! write. A second run finds them.

use super::{Choice, Routes, template::suffixed};
use crate::{
    conclude::{Concluded, conclude, dead_letter},
    record::{Recorder, Verdict},
};
use dropgate_backends::{StateError, StateStore, UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    account::DestinationName,
    audit::{Action, AuditResult},
    change::{OutboxEntry, OutboxMessage},
    delivery::{Delivery, DeliveryState, DestinationKind, OnCollision},
    event::{EventBody, Failed},
    id::{DeliveryId, OutboxId, UploadId},
    job::Work,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};

/// How often routing begins again because the upload was renamed meanwhile.
const ROUNDS: u32 = 5;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// Deliveries are stored, now or before, or it failed for want of a route.
    Done(Concluded),
    /// There is nothing to route: it is not waiting for that, or a newer version took its place.
    Nothing,
}

/// Routes an upload.
pub(crate) async fn route(
    recorder: &Recorder,
    routes: &Routes,
    kind: impl Fn(&DestinationName) -> Option<DestinationKind>,
    upload: Upload,
) -> Result<Routed, StateError> {
    let mut upload = upload;
    for _ in 0..ROUNDS {
        if upload.state != UploadState::Committed || upload.current_deliveries().next().is_some() {
            return Ok(Routed::Nothing);
        }
        let siblings = siblings(&*recorder.state, &upload, 8).await?;
        let newer = siblings.iter().find(|other| other.version > upload.version && other.state.is_accepted());
        if let Some(newer) = newer.map(|newer| newer.upload_id) {
            overtaken(recorder, upload, newer).await?;
            return Ok(Routed::Nothing);
        }
        let generation = upload.generation.max(1);
        let mut deliveries = Vec::new();
        for choice in routes.evaluate(&upload) {
            let chosen = delivery(recorder, &upload, generation, choice, &kind, &siblings).await?;
            deliveries.push(chosen);
        }
        let path = upload.path.clone();
        let (written, routed) = recorder
            .decide(upload, |draft| {
                let record = &mut draft.upload;
                if record.state != UploadState::Committed || record.current_deliveries().next().is_some() {
                    return Verdict::Leave(Some(Routed::Nothing));
                }
                if record.path != path || record.generation.max(1) != generation {
                    return Verdict::Leave(None);
                }
                record.generation = generation;
                record.deliveries.extend(deliveries.iter().map(|(delivery, _)| delivery.clone()));
                if deliveries.is_empty() {
                    return Verdict::Write(Some(Routed::Done(no_route(draft))));
                }
                draft.audit(Action::UploadRoute, AuditResult::Ok, |entry| {
                    for (delivery, route) in &deliveries {
                        let name = delivery.destination.as_str();
                        entry.detail.insert(format!("key.{name}"), delivery.key.clone());
                        entry.detail.insert(format!("route.{name}"), route.clone());
                    }
                });
                for (delivery, _) in &deliveries {
                    if delivery.state == DeliveryState::Dead {
                        dead_letter(draft, delivery);
                    } else {
                        let work = Work::Deliver { delivery: delivery.delivery_id };
                        draft.follow_up(OutboxEntry::job(draft.upload.upload_id, work));
                    }
                }
                let concluded = conclude(draft);
                if deliveries.iter().all(|(delivery, _)| delivery.state == DeliveryState::Pending) {
                    // Lost in a power cut, it is done again with the same result: nobody but workers hears of it.
                    draft.need_not_last();
                }
                Verdict::Write(Some(Routed::Done(concluded)))
            })
            .await?;
        match routed {
            Some(routed) => return Ok(routed),
            None => upload = written,
        }
    }
    Err(StateError::Unavailable("the upload was renamed again and again while it was routed".to_owned()))
}

/// Asks for the supersession of an upload that was never routed. The newer version asked for it when it was accepted, unless
/// both were accepted in the same moment and did not see each other; then each would wait for the other for ever. Asking
/// twice does no harm.
async fn overtaken(recorder: &Recorder, upload: Upload, newer: UploadId) -> Result<(), StateError> {
    let asked = recorder.decide(upload, |draft| {
        if draft.upload.state != UploadState::Committed {
            return Verdict::Leave(());
        }
        draft.follow_up(OutboxEntry {
            id: OutboxId::new(),
            upload: Some(newer),
            message: OutboxMessage::Supersede { older: draft.upload.upload_id },
            not_before: None,
        });
        Verdict::Write(())
    });
    asked.await.map(|_| ())
}

/// The newest versions of an upload's path, itself included.
pub(crate) async fn siblings(
    state: &dyn StateStore,
    upload: &Upload,
    limit: usize,
) -> Result<Vec<Upload>, StateError> {
    let query = UploadQuery {
        account: Some(upload.account.clone()),
        path: Some(upload.path.clone()),
        order: UploadOrder::ByVersion,
        limit,
        ..UploadQuery::default()
    };
    state.find(query).await
}

fn no_route(draft: &mut crate::record::Draft<'_>) -> Concluded {
    let sentence = "no route of the config takes this upload: add one and deliver it again";
    let reason = Reason::new(ReasonCode::NoRoute, sentence);
    draft.upload.state = UploadState::Failed;
    draft.upload.settled_at = Some(Timestamp::now());
    draft.upload.reason = Some(reason.clone());
    draft
        .audit(Action::UploadFail, AuditResult::Failed, |entry| entry.reason = Some(reason.sentence.clone()));
    draft.event(EventBody::UploadFailed(Failed {
        upload_id: draft.upload.upload_id,
        version: draft.upload.version,
        path: draft.upload.path.clone(),
        reason,
        deliveries: Vec::new(),
    }));
    Concluded::Failed
}

/// The delivery that follows from a choice, and the route's name. It is born dead if there can be none.
async fn delivery(
    recorder: &Recorder,
    upload: &Upload,
    generation: u32,
    choice: Choice,
    kind: &impl Fn(&DestinationName) -> Option<DestinationKind>,
    siblings: &[Upload],
) -> Result<(Delivery, String), StateError> {
    let Choice { destination, route, key, on_collision } = choice;
    let found = kind(&destination);
    let mut reason = None;
    let mut final_key = String::new();
    match (found, key) {
        (None, _) => {
            let sentence =
                format!("the route names the destination {destination}, which is not in the config: add it");
            reason = Some(Reason::new(ReasonCode::Denied, sentence));
        }
        (Some(_), Err(why)) => reason = Some(Reason::new(ReasonCode::Refused, why)),
        (Some(_), Ok(key)) => {
            match reserve(recorder, upload, &destination, &key, on_collision, siblings).await? {
                Some(reserved) => final_key = reserved,
                None => {
                    let sentence = format!(
                        "the key {key} at {destination} belongs to another upload path: make the route's template tell them \
                     apart, or set its on_collision"
                    );
                    reason = Some(Reason::new(ReasonCode::Collision, sentence));
                    final_key = key;
                }
            }
        }
    }
    let delivery = Delivery {
        delivery_id: DeliveryId::derive(upload.upload_id, destination.as_str(), generation),
        destination,
        kind: found.unwrap_or(DestinationKind::Directory),
        key: final_key,
        on_collision,
        generation,
        state: if reason.is_some() { DeliveryState::Dead } else { DeliveryState::Pending },
        epoch: 0,
        owner: None,
        attempts: 0,
        permanent_failures: 0,
        crashes: 0,
        first_attempt_at: None,
        next_attempt_at: None,
        reason,
        begun_as: None,
        finalizing: None,
        receipt: None,
    };
    Ok((delivery, route))
}

/// Reserves a key by the rules of the policy; none if it can't be had.
async fn reserve(
    recorder: &Recorder,
    upload: &Upload,
    destination: &DestinationName,
    key: &str,
    on_collision: OnCollision,
    siblings: &[Upload],
) -> Result<Option<String>, StateError> {
    let ours = async |key: &str| {
        recorder.state.reserve_key(destination.as_str(), key, &upload.account, &upload.path).await
    };
    if ours(key).await? {
        return Ok(Some(key.to_owned()));
    }
    match on_collision {
        OnCollision::Fail => Ok(None),
        OnCollision::Replace => Ok(Some(key.to_owned())),
        OnCollision::Suffix => {
            // A later version goes where the one before it went.
            let earlier = siblings
                .iter()
                .flat_map(|sibling| &sibling.deliveries)
                .find(|d| d.destination == *destination && d.key != key && d.key.contains('~'))
                .map(|d| d.key.clone());
            if let Some(earlier) = earlier
                && ours(&earlier).await?
            {
                return Ok(Some(earlier));
            }
            let own = suffixed(key, &upload.upload_id.short());
            Ok(ours(&own).await?.then_some(own))
        }
    }
}
