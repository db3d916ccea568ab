//! What follows when a newer version of a name was accepted: the older one is marked as superseded, and what is still
//! undelivered of it is cancelled. A delivery that may already have made its finishing call is left to settle first.

use super::lane::{Step, Work};
use crate::state::{StateError, StateStore};
use async_trait::async_trait;
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, OutboxKind, OutboxMessage, Subject},
    delivery::{Delivery, DeliveryState},
    event::{Event, EventBody, Other},
    id::{OutboxId, UploadId},
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use futures::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};

const BATCH: usize = 64;
/// Entries handled at a time.
const AT_ONCE: usize = 8;
/// How often one entry reads again after somebody else was faster, before it is put off.
const TRIES: u32 = 4;
/// How long an entry waits for a delivery to settle before it looks again.
const SETTLING: Duration = Duration::from_secs(1);
/// How long an entry waits that can't be handled as things are.
const STUCK: Duration = Duration::from_secs(60);

/// The lane that supersedes.
pub(super) struct Superseding<'a> {
    pub(super) state: &'a Arc<dyn StateStore>,
    pub(super) node: &'a str,
}

#[async_trait]
impl Work for Superseding<'_> {
    type Error = StateError;

    async fn step(&mut self, _: u64) -> Result<Step, StateError> {
        step(self.state, self.node).await
    }
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A delivery has to settle first.
    Later(Duration),
}

pub(super) async fn step(state: &Arc<dyn StateStore>, node: &str) -> Result<Step, StateError> {
    let due = state.outbox_due(OutboxKind::Supersede, Timestamp::now(), BATCH).await?;
    let next = Step::after(due.len(), BATCH);
    let handling = due.into_iter().map(|entry| async move {
        let outcome = handle(state.as_ref(), node, &entry).await;
        (entry.id, outcome)
    });
    let mut handled = stream::iter(handling).buffer_unordered(AT_ONCE);
    let (mut done, mut failed) = (Vec::new(), None);
    while let Some((id, outcome)) = handled.next().await {
        match outcome {
            Ok(Outcome::Done) => done.push(id),
            Ok(Outcome::Later(pause)) => defer(state, id, pause).await?,
            Err(error @ (StateError::Unavailable(_) | StateError::Full(_))) => {
                failed = Some(error);
                break;
            }
            Err(error) => {
                tracing::error!(entry = %id, %error, "superseding an older version failed, will try again");
                defer(state, id, STUCK).await?;
            }
        }
    }
    if !done.is_empty() {
        state.outbox_done(&done).await?;
    }
    failed.map_or(Ok(next), Err)
}

async fn defer(state: &Arc<dyn StateStore>, entry: OutboxId, pause: Duration) -> Result<(), StateError> {
    state.outbox_defer(&[entry], Timestamp::now().plus(pause)).await
}

pub(super) async fn handle(
    state: &dyn StateStore,
    node: &str,
    entry: &OutboxEntry,
) -> Result<Outcome, StateError> {
    let (OutboxMessage::Supersede { older }, Some(newer)) = (&entry.message, entry.upload) else {
        tracing::error!(entry = %entry.id, "outbox entry names no newer version: dropped");
        return Ok(Outcome::Done);
    };
    let Some(newer) = state.upload(newer).await? else {
        return Err(StateError::NotFound(format!("upload {newer}")));
    };
    for _ in 0..TRIES {
        let Some(upload) = state.upload(*older).await? else {
            return Err(StateError::NotFound(format!("upload {older}")));
        };
        let Some((change, outcome)) = follow_up(upload, &newer, node) else { return Ok(Outcome::Done) };
        let Some(change) = change else { return Ok(outcome) };
        match state.apply(change).await {
            Ok(_) => return Ok(outcome),
            Err(StateError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::Later(SETTLING))
}

/// Whether the finishing call may have been made, so that the destination may show this version.
fn may_be_there(delivery: &Delivery) -> bool {
    !delivery.state.is_final()
        && (delivery.finalizing.is_some()
            || matches!(delivery.state, DeliveryState::Finalizing | DeliveryState::Verified))
}

/// The change that brings the older version as far as it can go now; nothing if it is there already.
fn follow_up(mut older: Upload, newer: &Upload, node: &str) -> Option<(Option<Change>, Outcome)> {
    match older.state {
        UploadState::Superseded => return None,
        UploadState::Committed
        | UploadState::Delivering
        | UploadState::Quarantined
        | UploadState::Processed
        | UploadState::Failed => {}
        UploadState::Receiving
        | UploadState::Closing
        | UploadState::Partial
        | UploadState::Held
        | UploadState::Aborted => {
            tracing::error!(upload = %older.upload_id, state = %older.state, "was to be superseded but never accepted");
            return None;
        }
    }
    let now = Timestamp::now();
    let before = older.state;
    let reason = Reason::new(
        ReasonCode::Superseded,
        format!("version {} of the same name took its place", newer.version),
    );
    let mut audit = Vec::new();
    let mut unsettled = false;
    for delivery in &mut older.deliveries {
        if delivery.state.is_final() {
            continue;
        }
        if may_be_there(delivery) {
            unsettled = true;
            continue;
        }
        let was = delivery.state;
        delivery.state = DeliveryState::Cancelled;
        delivery.epoch += 1;
        delivery.owner = None;
        delivery.next_attempt_at = None;
        delivery.reason = Some(reason.clone());
        let mut entry = AuditEntry::new(Action::DeliveryCancel, relay(), AuditResult::Ok);
        entry.before = Some(name(was));
        entry.after = Some(name(DeliveryState::Cancelled));
        entry.detail.insert("delivery".to_owned(), delivery.delivery_id.to_string());
        entry.detail.insert("destination".to_owned(), delivery.destination.to_string());
        audit.push(entry);
    }
    let mut outbox = Vec::new();
    if unsettled {
        if audit.is_empty() {
            return Some((None, Outcome::Later(SETTLING)));
        }
        if before != UploadState::Quarantined {
            older.state = older.state_by_deliveries();
        }
    } else {
        older.state = UploadState::Superseded;
        older.superseded_by = Some(newer.upload_id);
        let mut entry = AuditEntry::new(Action::UploadSupersede, relay(), AuditResult::Ok);
        entry.before = Some(before.to_string());
        entry.after = Some(older.state.to_string());
        audit.push(entry);
        let about = Other {
            reason: Some(reason.clone()),
            other_version: Some(newer.upload_id),
            ..Other::about(&older)
        };
        outbox.push(OutboxEntry::event(Event::about(&older, EventBody::UploadSuperseded(about))));
    }
    for entry in &mut audit {
        describe(entry, &older, newer.upload_id, &reason, node);
    }
    older.updated_at = now;
    let subject = Subject::Upload { upload: Box::new(older), inline: None };
    let outcome = if unsettled { Outcome::Later(SETTLING) } else { Outcome::Done };
    Some((Some(Change { subject, audit, outbox, durability: Durability::Durable }), outcome))
}

fn relay() -> Actor {
    Actor::System { id: "relay".to_owned() }
}

fn name(state: DeliveryState) -> String {
    serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn describe(entry: &mut AuditEntry, older: &Upload, newer: UploadId, reason: &Reason, node: &str) {
    entry.partner = Some(older.partner.clone());
    entry.account = Some(older.account.clone());
    entry.subject = Some(older.path.as_str().to_owned());
    entry.upload = Some(older.upload_id);
    entry.size = older.size;
    entry.sha256 = older.sha256;
    entry.reason = Some(reason.sentence.clone());
    entry.detail.insert("superseded_by".to_owned(), newer.to_string());
    entry.node = node.to_owned();
}
