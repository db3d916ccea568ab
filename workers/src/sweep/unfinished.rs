//! Uploads that were never accepted: what a dead gateway was receiving, and what waited too long.

use super::PAGE;
use crate::{
    record::{Draft, Verdict},
    worker::Shop,
};
use dropgate_backends::{StateError, UploadQuery, observe::Counter, state::UploadOrder};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    event::{EventBody, Failed, Other},
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// Interrupts what dead gateways were receiving: what is durably staged can be resumed, the rest is given up.
pub(super) async fn dead_gateways(shop: &Shop) -> Result<(), StateError> {
    let lease = shop.config.sweep.gateway_lease_seconds.duration();
    let dead = |upload: &Upload| upload.owner.is_none_or(|owner| shop.peers.is_dead(owner, lease));
    for upload in all(shop, &[UploadState::Receiving, UploadState::Closing], Duration::ZERO).await? {
        if !dead(&upload) {
            continue;
        }
        let (owner, epoch) = (upload.owner, upload.epoch);
        let interrupted = shop.sweeper.decide(upload, |draft| {
            let record = &mut draft.upload;
            let unfinished = matches!(record.state, UploadState::Receiving | UploadState::Closing);
            if !unfinished || record.owner != owner || record.epoch != epoch {
                return Verdict::Leave(false);
            }
            let sentence = "the gateway that was receiving the upload stopped: send the file again";
            let resumable = record.staged.as_ref().is_some_and(|staged| staged.length > 0);
            // CLOSE came, so the client believes that it sent everything: nothing to resume.
            if record.state == UploadState::Closing || !resumable {
                abort(draft, sentence);
                Verdict::Write(true)
            } else {
                record.state = UploadState::Partial;
                record.owner = None;
                record.epoch += 1;
                draft.audit(Action::UploadInterrupt, AuditResult::Failed, |entry| {
                    entry.reason = Some("the gateway that was receiving the upload stopped".to_owned());
                });
                Verdict::Write(false)
            }
        });
        if skip_lost(interrupted.await)? == Some(true) {
            Counter::UploadsAborted.one();
        }
    }
    Ok(())
}

/// Gives up uploads that nobody resumed in time.
pub(super) async fn expired_partials(shop: &Shop) -> Result<(), StateError> {
    let age = shop.config.sweep.partial_seconds.duration();
    for upload in all(shop, &[UploadState::Partial], age).await? {
        let revision = upload.revision;
        let aborted = shop.sweeper.decide(upload, |draft| {
            if draft.upload.state != UploadState::Partial || draft.upload.revision != revision {
                return Verdict::Leave(false);
            }
            abort(
                draft,
                "the connection was lost and nobody resumed the upload in time: send the file again",
            );
            Verdict::Write(true)
        });
        if skip_lost(aborted.await)? == Some(true) {
            Counter::UploadsAborted.one();
        }
    }
    Ok(())
}

/// Fails uploads that were never renamed. Their bytes are kept, and an operator can deliver them.
pub(super) async fn expired_holds(shop: &Shop) -> Result<(), StateError> {
    let age = shop.config.sweep.held_seconds.duration();
    for upload in all(shop, &[UploadState::Held], age).await? {
        let revision = upload.revision;
        let failed = shop.sweeper.decide(upload, |draft| {
            if draft.upload.state != UploadState::Held || draft.upload.revision != revision {
                return Verdict::Leave(false);
            }
            never_renamed(draft);
            Verdict::Write(true)
        });
        if skip_lost(failed.await)? == Some(true) {
            Counter::UploadsFailed.one();
        }
    }
    Ok(())
}

fn abort(draft: &mut Draft<'_>, sentence: &str) {
    let reason = Reason::new(ReasonCode::Abandoned, sentence);
    draft.upload.state = UploadState::Aborted;
    draft.upload.owner = None;
    draft.upload.epoch += 1;
    draft.upload.reason = Some(reason.clone());
    draft.upload.settled_at = Some(Timestamp::now());
    draft.audit(Action::UploadAbort, AuditResult::Failed, |entry| entry.reason = Some(reason.sentence));
    let about = Other::about(&draft.upload);
    draft.event(EventBody::UploadAborted(about));
}

fn never_renamed(draft: &mut Draft<'_>) {
    let sentence = "the file was uploaded under a temporary name and never renamed: rename it next time, or ask for its \
                    delivery";
    let reason = Reason::new(ReasonCode::NeverRenamed, sentence);
    draft.upload.state = UploadState::Failed;
    draft.upload.owner = None;
    draft.upload.epoch += 1;
    draft.upload.reason = Some(reason.clone());
    draft.upload.settled_at = Some(Timestamp::now());
    draft
        .audit(Action::UploadFail, AuditResult::Failed, |entry| entry.reason = Some(reason.sentence.clone()));
    let event = Failed {
        upload_id: draft.upload.upload_id,
        version: draft.upload.version,
        path: draft.upload.path.clone(),
        reason,
        deliveries: Vec::new(),
    };
    draft.event(EventBody::UploadFailed(event));
}

/// All uploads in these states that did not change for so long.
async fn all(shop: &Shop, states: &[UploadState], unchanged: Duration) -> Result<Vec<Upload>, StateError> {
    let before = (!unchanged.is_zero()).then(|| Timestamp::now().minus(unchanged));
    let mut found: Vec<Upload> = Vec::new();
    let mut order = UploadOrder::NewestFirst;
    loop {
        let query = UploadQuery {
            states: states.to_vec(),
            updated_before: before,
            order,
            limit: PAGE,
            ..UploadQuery::default()
        };
        let page = shop.backends.state.find(query).await?;
        let last = page.last().map(|upload| upload.upload_id);
        let full = page.len() == PAGE;
        found.extend(page);
        match last {
            // What is left over comes next time.
            Some(last) if full && found.len() < 50 * PAGE => order = UploadOrder::Before(last),
            Some(_) | None => return Ok(found),
        }
    }
}

/// One upload that can't be changed must not keep the others waiting.
fn skip_lost<T>(done: Result<(Upload, T), StateError>) -> Result<Option<T>, StateError> {
    match done {
        Ok((_, value)) => Ok(Some(value)),
        Err(error @ (StateError::Unavailable(_) | StateError::Full(_))) => Err(error),
        Err(error) => {
            tracing::error!(%error, "an unfinished upload could not be settled");
            Ok(None)
        }
    }
}
