//! Uploads that stop before they are complete: what arrived is kept to be resumed, or given up.

use super::{commit::Committer, open_file::OpenFile};
use crate::{
    sftp::attrs::Attrs,
    vfs::{Refusal, remove::being_accepted},
};
use dropgate_backends::StateError;
use dropgate_schemas::{
    audit::Action,
    change::{Durability, OutboxEntry},
    event::{Event, EventBody, Other},
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Staged, Upload, UploadState},
};

impl Committer {
    /// Writes durable progress into the record.
    pub(super) async fn save_progress(
        &self,
        record: &Upload,
        staged: Option<Staged>,
    ) -> Result<Upload, StateError> {
        let updated = Upload { staged, updated_at: Timestamp::now(), ..record.clone() };
        self.write(updated, None, vec![], vec![], Durability::Visible).await
    }

    /// The connection went away: Partial if there is something to resume, else Aborted.
    pub(super) async fn interrupt(&self, file: &OpenFile, why: &str) {
        let mut record = file.record().lock().await;
        if !file.is_unchanged() {
            self.park(file, &mut record, why).await;
        }
        self.live.remove(record.upload_id, file);
    }

    /// REMOVE of an upload that some session is receiving.
    ///
    /// # Errors
    /// If it can't be taken from that session, or the record can't be written.
    pub async fn withdraw_receiving(&self, upload: &Upload) -> Result<(), Refusal> {
        match self.live.get(upload.upload_id) {
            Some(file) if file.is_closing() => Err(being_accepted(&upload.path)),
            Some(file) => file.withdraw(self).await,
            None => Err(Self::in_use(&upload.path)),
        }
    }

    /// The partner removed its own upload in progress.
    pub(super) async fn withdraw(&self, file: &OpenFile) -> Result<(), Refusal> {
        let record = file.record().lock().await;
        let blobs = file.bytes().abandon().await;
        let reason = Reason::new(ReasonCode::Withdrawn, "the client removed its unfinished upload");
        let aborted = self.abort(record.clone(), "REMOVE", reason).await;
        self.live.remove(record.upload_id, file);
        aborted?;
        // Only now does no record name them any more.
        self.delete_later(blobs);
        Ok(())
    }

    /// Keeps what arrived without a gap, to be resumed. Failures are logged: the sweep of this gateway finds the record.
    pub(super) async fn park(&self, file: &OpenFile, record: &mut Upload, why: &str) {
        let parked = file.bytes().park().await;
        match parked.staged {
            Some(staged) if staged.length > 0 => {
                let before = record.state;
                let partial = Upload {
                    state: UploadState::Partial,
                    staged: Some(staged),
                    attributes: file.attributes(),
                    owner: None,
                    updated_at: Timestamp::now(),
                    ..record.clone()
                };
                let mut entry = self.entry(Action::UploadInterrupt, "", &partial, before);
                entry.request = None;
                entry.size = Some(partial.visible_size());
                entry.reason = Some(why.to_owned());
                match self.write(partial, None, vec![entry], vec![], Durability::Visible).await {
                    Ok(stored) => *record = stored,
                    Err(error) => {
                        tracing::warn!(upload = %record.upload_id, %error, "an interrupted upload was not recorded as partial");
                        return;
                    }
                }
            }
            _ => {
                let reason = Reason::new(ReasonCode::Abandoned, why);
                if self.abort(record.clone(), "", reason).await.is_err() {
                    return;
                }
            }
        }
        self.delete_later(parked.replaced);
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// They are logged here: the sweep of this gateway finds the record later.
    pub(super) async fn abort(
        &self,
        record: Upload,
        request: &str,
        reason: Reason,
    ) -> Result<(), StateError> {
        let before = record.state;
        let id = record.upload_id;
        let aborted = Upload {
            state: UploadState::Aborted,
            reason: Some(reason),
            owner: None,
            updated_at: Timestamp::now(),
            ..record
        };
        let mut entry = self.entry(Action::UploadAbort, request, &aborted, before);
        if request.is_empty() {
            entry.request = None;
        }
        let event =
            OutboxEntry::event(Event::about(&aborted, EventBody::UploadAborted(Other::about(&aborted))));
        let written = self.write(aborted, None, vec![entry], vec![event], Durability::Visible).await;
        written
            .map(|_| ())
            .inspect_err(|error| tracing::warn!(upload = %id, %error, "an aborted upload was not recorded"))
    }

    /// SETSTAT of an upload that another session is receiving: its record belongs to the handle, so the handle is told.
    ///
    /// # Errors
    /// If it is just being closed, or received by another gateway, or its size is to be changed.
    pub fn tell_receiving(&self, upload: &Upload, attrs: &Attrs) -> Result<(), Refusal> {
        match self.live.get(upload.upload_id).filter(|file| file.is_open()) {
            Some(file) if attrs.size.is_none_or(|size| size == file.visible_size()) => {
                file.set_attributes(&Attrs { size: None, ..*attrs })
            }
            Some(_) | None => Err(Self::in_use(&upload.path)),
        }
    }
}
