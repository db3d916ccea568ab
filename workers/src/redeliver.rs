//! Sending again what an operator asks for. Needs nothing but the state store: a worker, here or elsewhere, hears of it.

use crate::record::{Recorder, Verdict};
use dropgate_backends::{StateError, StateStore};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    change::OutboxEntry,
    event::{EventBody, Received},
    id::{ReceiptId, UploadId},
    job::Work,
    time::Timestamp,
    upload::{Grade, Upload, UploadState},
};
use std::sync::Arc;

/// Why an upload can't be delivered again. The text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedeliverError {
    /// There is no such upload.
    #[error("there is no upload {0}: look it up with `dropgate uploads list`")]
    NotFound(UploadId),
    /// It stands where nothing can be delivered again.
    #[error("upload {upload} is {state}: {remedy}")]
    WrongState {
        /// Which.
        upload: UploadId,
        /// Where it stands.
        state: UploadState,
        /// What to do.
        remedy: &'static str,
    },
    /// The state store did not do its part.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Begins a new generation of deliveries of an upload that was processed, failed or is kept back: its routes are asked
/// again, and everything is sent. Returns the record as it stands then. `operator` and `node` say in the audit trail who
/// asked, and where.
///
/// # Errors
/// [`RedeliverError`]. Nothing is changed then, or, after [`StateError::Unavailable`], perhaps.
pub async fn redeliver(
    state: Arc<dyn StateStore>,
    upload: UploadId,
    operator: &str,
    node: &str,
) -> Result<Upload, RedeliverError> {
    let recorder = Recorder::operator(state, operator, node);
    let receipt = ReceiptId::new();
    let mut asked = None;
    let decided = recorder
        .look_and_decide(upload, |draft| {
            let record = &mut draft.upload;
            if asked == Some(record.generation) && record.state != UploadState::Failed {
                return Verdict::Leave(Ok(()));
            }
            if let Err(remedy) = may_go(record) {
                let state = record.state;
                return Verdict::Leave(Err(RedeliverError::WrongState { upload, state, remedy }));
            }
            record.generation = record.generation.max(1) + 1;
            asked = Some(record.generation);
            record.state = UploadState::Committed;
            record.reason = None;
            record.settled_at = None;
            // Never renamed, so never accepted: this is its acceptance.
            let accepted = record.received_at.is_none();
            if accepted {
                record.received_at = Some(Timestamp::now());
                record.receipt_id = Some(receipt);
                record.evidence.get_or_insert(Grade::CloseOnly);
            }
            let generation = record.generation;
            let id = record.upload_id;
            draft.audit(Action::UploadRedeliver, AuditResult::Ok, |entry| {
                entry.detail.insert("generation".to_owned(), generation.to_string());
            });
            draft.follow_up(OutboxEntry::job(id, Work::Route));
            if accepted && let Some(received) = Received::from_upload(&draft.upload) {
                draft.event(EventBody::UploadReceived(received));
            }
            Verdict::Write(Ok(()))
        })
        .await?;
    match decided {
        None => Err(RedeliverError::NotFound(upload)),
        Some((record, Ok(()))) => Ok(record),
        Some((_, Err(error))) => Err(error),
    }
}

/// Whether it may be delivered again; if not, what to do.
fn may_go(upload: &Upload) -> Result<(), &'static str> {
    match upload.state {
        UploadState::Processed | UploadState::Failed | UploadState::Quarantined => {}
        UploadState::Committed | UploadState::Delivering => {
            return Err("it is being delivered already, wait for that");
        }
        UploadState::Superseded => return Err("a newer version took its place, deliver that one"),
        UploadState::Receiving | UploadState::Closing | UploadState::Partial | UploadState::Held => {
            return Err("it was not accepted yet, its sender has to finish it");
        }
        UploadState::Aborted => {
            return Err("it was given up before it was complete, its sender has to send it again");
        }
    }
    if upload.deleted_at.is_some() {
        return Err("its sender removed it, restore it first");
    }
    if upload.blob.is_none() || upload.size.is_none() || upload.sha256.is_none() {
        return Err("its bytes are not kept");
    }
    Ok(())
}
