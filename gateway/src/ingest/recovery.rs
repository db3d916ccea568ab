//! Uploads whose gateway is gone: what is left of them.

use super::LiveUploads;
use dropgate_backends::{StateError, StateStore, UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, Subject},
    event::{Event, EventBody, Other},
    id::InstanceId,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// Records in one look.
const PAGE: usize = 500;

/// At start: whatever this instance was receiving when its process ended is interrupted. Returns how many there were.
///
/// # Errors
/// If the state store does not answer.
pub async fn recover(state: &dyn StateStore, instance: InstanceId, node: &str) -> Result<u64, StateError> {
    let mut recovered = 0;
    loop {
        let query = UploadQuery {
            owner: Some(instance),
            states: vec![UploadState::Receiving, UploadState::Closing],
            limit: 500,
            ..UploadQuery::default()
        };
        let found = state.find(query).await?;
        if found.is_empty() {
            return Ok(recovered);
        }
        for upload in found {
            orphan(state, upload, node).await?;
            recovered += 1;
        }
    }
}

/// While running: what is recorded as received by this instance and is not open here was left behind by a request that
/// could not write its last record (the state store did not answer). Nobody else may touch it as long as this process lives.
/// Looks at records that did not change for `age`. Returns how many there were.
///
/// # Errors
/// If the state store does not answer.
pub async fn sweep(
    state: &dyn StateStore,
    live: &LiveUploads,
    instance: InstanceId,
    node: &str,
    age: Duration,
) -> Result<u64, StateError> {
    let before = Timestamp::now().minus(age);
    let (mut order, mut left) = (UploadOrder::NewestFirst, 0);
    loop {
        let query = UploadQuery {
            owner: Some(instance),
            states: vec![UploadState::Receiving, UploadState::Closing],
            updated_before: Some(before),
            order,
            limit: PAGE,
            ..UploadQuery::default()
        };
        let page = state.find(query).await?;
        let last = page.last().filter(|_| page.len() == PAGE).map(|upload| upload.upload_id);
        for upload in page.into_iter().filter(|upload| live.get(upload.upload_id).is_none()) {
            orphan(state, upload, node).await?;
            left += 1;
        }
        match last {
            Some(last) => order = UploadOrder::Before(last),
            None => return Ok(left),
        }
    }
}

/// Takes an upload from an owner that is gone: Partial if something durable can be continued, else Aborted. What was
/// being closed is never resumed, since nobody knows how far its seal came.
///
/// # Errors
/// If the state store does not answer. That somebody else was faster is fine.
pub(super) async fn orphan(state: &dyn StateStore, upload: Upload, node: &str) -> Result<(), StateError> {
    let before = upload.state;
    let resumable = before == UploadState::Receiving && upload.staged.as_ref().is_some_and(|s| s.length > 0);
    let why = "the session or the gateway that received it ended";
    let (after, action) = if resumable {
        (Upload { state: UploadState::Partial, owner: None, ..upload }, Action::UploadInterrupt)
    } else {
        let reason = Some(Reason::new(ReasonCode::Abandoned, why));
        (Upload { state: UploadState::Aborted, owner: None, reason, ..upload }, Action::UploadAbort)
    };
    let after = Upload { updated_at: Timestamp::now(), ..after };
    let mut entry = AuditEntry::new(action, Actor::System { id: "gateway".to_owned() }, AuditResult::Ok);
    entry.partner = Some(after.partner.clone());
    entry.account = Some(after.account.clone());
    entry.subject = Some(after.path.to_string());
    entry.upload = Some(after.upload_id);
    entry.size = Some(after.visible_size());
    entry.reason = Some(why.to_owned());
    entry.before = Some(before.to_string());
    entry.after = Some(after.state.to_string());
    entry.node = node.to_owned();
    let outbox = if resumable {
        vec![]
    } else {
        vec![OutboxEntry::event(Event::about(&after, EventBody::UploadAborted(Other::about(&after))))]
    };
    let subject = Subject::Upload { upload: Box::new(after), inline: None };
    match state.apply(Change { subject, audit: vec![entry], outbox, durability: Durability::Visible }).await {
        Ok(_) | Err(StateError::Conflict { .. }) => Ok(()),
        Err(other) => Err(other),
    }
}
