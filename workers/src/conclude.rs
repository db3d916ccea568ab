//! What the deliveries of an upload add up to, and the words in which it is told.

use crate::record::Draft;
use dropgate_backends::observe::Counter;
use dropgate_schemas::{
    audit::{Action, AuditResult},
    delivery::{Delivery, DeliveryState},
    event::{
        AttemptFailed, Delivered, DestinationOutcome, DestinationRef, EventBody, Failed, Received, Succeeded,
    },
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};

/// Where an upload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concluded {
    /// Something is still to be done.
    Not,
    /// Every destination has it.
    Processed,
    /// Some destination will not get it.
    Failed,
    /// A worker died on it too often; an operator decides.
    Quarantined,
}

impl Concluded {
    /// Counts it, once it is written.
    pub(crate) fn count(self) {
        match self {
            Self::Not | Self::Quarantined => {}
            Self::Processed => Counter::UploadsProcessed.one(),
            Self::Failed => Counter::UploadsFailed.one(),
        }
    }
}

/// Gives the upload the state that its deliveries call for, with audit entry and event where that is a final one.
pub(crate) fn conclude(draft: &mut Draft<'_>) -> Concluded {
    let upload = &mut draft.upload;
    if !matches!(upload.state, UploadState::Committed | UploadState::Delivering) {
        return Concluded::Not;
    }
    match upload.state_by_deliveries() {
        state @ (UploadState::Committed | UploadState::Delivering) => {
            upload.state = state;
            Concluded::Not
        }
        // A newer version is taking its place: the relay, which cancelled the rest, says how this one ends.
        _ if upload.current_deliveries().any(|d| d.state == DeliveryState::Cancelled) => {
            upload.state = UploadState::Committed;
            Concluded::Not
        }
        UploadState::Processed => {
            processed(draft);
            Concluded::Processed
        }
        _ => failed(draft),
    }
}

fn processed(draft: &mut Draft<'_>) {
    draft.upload.state = UploadState::Processed;
    draft.upload.settled_at = Some(Timestamp::now());
    draft.upload.reason = None;
    draft.audit(Action::UploadProcess, AuditResult::Ok, |_| ());
    let upload = &draft.upload;
    let deliveries =
        upload.current_deliveries().filter_map(|d| Succeeded::from_delivery(upload, d)).collect();
    match Received::from_upload(upload) {
        Some(received) => draft.event(EventBody::UploadDelivered(Delivered { received, deliveries })),
        // Acceptance fills in what is missing, so this record was never accepted.
        None => {
            tracing::error!(upload = %upload.upload_id, "delivered an upload whose record lacks its acceptance")
        }
    }
}

fn failed(draft: &mut Draft<'_>) -> Concluded {
    let upload = &mut draft.upload;
    let dead = |d: &&Delivery| d.state == DeliveryState::Dead;
    let reason = upload.current_deliveries().find(dead).and_then(|d| d.reason.clone());
    let reason = reason.unwrap_or_else(|| Reason::new(ReasonCode::DestDown, "a delivery was given up"));
    let crashed = |d: &Delivery| d.reason.as_ref().is_some_and(|r| r.code == ReasonCode::Crashes);
    let quarantined = upload.current_deliveries().filter(dead).any(crashed);
    upload.state = if quarantined { UploadState::Quarantined } else { UploadState::Failed };
    upload.reason = Some(reason.clone());
    if !quarantined {
        upload.settled_at = Some(Timestamp::now());
    }
    draft
        .audit(Action::UploadFail, AuditResult::Failed, |entry| entry.reason = Some(reason.sentence.clone()));
    if quarantined {
        return Concluded::Quarantined;
    }
    let upload = &draft.upload;
    let event = EventBody::UploadFailed(Failed {
        upload_id: upload.upload_id,
        version: upload.version,
        path: upload.path.clone(),
        reason,
        deliveries: upload.current_deliveries().map(outcome).collect(),
    });
    draft.event(event);
    Concluded::Failed
}

fn outcome(delivery: &Delivery) -> DestinationOutcome {
    DestinationOutcome {
        delivery_id: delivery.delivery_id,
        destination: DestinationRef::of(delivery),
        state: delivery.state,
        reason: delivery.reason.clone(),
    }
}

/// Puts on record that a delivery was given up, and announces it.
pub(crate) fn dead_letter(draft: &mut Draft<'_>, delivery: &Delivery) {
    draft.audit(Action::DeliveryDeadLetter, AuditResult::Failed, |entry| describe(entry, delivery));
    draft.event(EventBody::DeliveryDeadLettered(attempt_failed(&draft.upload, delivery)));
}

/// Puts on record that a delivery failed and will be tried again, and announces it.
pub(crate) fn defer(draft: &mut Draft<'_>, delivery: &Delivery) {
    draft.audit(Action::DeliveryDefer, AuditResult::Failed, |entry| describe(entry, delivery));
    draft.event(EventBody::DeliveryDeferred(attempt_failed(&draft.upload, delivery)));
}

fn attempt_failed(upload: &Upload, delivery: &Delivery) -> AttemptFailed {
    AttemptFailed {
        upload_id: upload.upload_id,
        delivery_id: delivery.delivery_id,
        attempt: delivery.attempts,
        destination: DestinationRef::of(delivery),
        reason: delivery.reason.clone().unwrap_or_else(|| Reason::new(ReasonCode::DestDown, "it failed")),
        next_attempt_at: delivery.next_attempt_at,
    }
}

/// What every audit entry about a delivery says of it.
pub(crate) fn describe(entry: &mut dropgate_schemas::audit::AuditEntry, delivery: &Delivery) {
    let mut tell = |name: &str, value: String| entry.detail.insert(name.to_owned(), value);
    tell("destination", delivery.destination.to_string());
    tell("delivery", delivery.delivery_id.to_string());
    tell("key", delivery.key.clone());
    tell("epoch", delivery.epoch.to_string());
    tell("attempt", delivery.attempts.to_string());
    if let Some(next) = delivery.next_attempt_at {
        tell("next_attempt_at", next.to_string());
    }
    if let Some(receipt) = &delivery.receipt {
        tell("uri", receipt.uri.clone());
        tell("receipt", receipt.receipt_id.to_string());
    }
    if let Some(reason) = &delivery.reason {
        tell("code", reason.code.to_string());
        entry.reason = Some(reason.sentence.clone());
    }
}
