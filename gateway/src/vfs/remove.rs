//! REMOVE: soft in `/sent` and `/failed`; under `/upload` only what the account has not finished, or what it is about to
//! replace.

use super::{Refusal, Tree, lookup::Slot, naming::TempNames};
use dropgate_backends::{StateError, UploadQuery};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    change::{Change, Durability, OutboxEntry, Subject},
    event::{Event, EventBody, Other},
    path::{Area, Place, VirtualPath},
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{SupersedeIntent, Upload, UploadState},
};
use std::time::Duration;

/// How long a REMOVE of a target waits for the RENAME that replaces it.
pub const SUPERSEDE_INTENT: Duration = Duration::from_secs(60);

/// A worker may change the record between our read and our write; so often we read again.
const TRIES: usize = 5;

/// What a REMOVE comes to.
#[derive(Debug)]
pub enum RemoveDecision {
    /// Done.
    Removed,
    /// The account's own upload in progress must be aborted by whoever receives it.
    AbortReceiving(Box<Upload>),
}

impl Tree {
    /// REMOVE.
    ///
    /// # Errors
    /// If the name does not exist or must not be removed.
    pub async fn remove(
        &self,
        path: &VirtualPath,
        temp_names: &TempNames,
    ) -> Result<RemoveDecision, Refusal> {
        for _ in 0..TRIES {
            let outcome = match path.place() {
                Place::Below(area @ (Area::Sent | Area::Failed)) => self.remove_settled(path, area).await,
                Place::Below(Area::Upload) => self.remove_in_upload(path, temp_names).await,
                Place::Below(Area::Inbox) => {
                    return Err(Refusal::denied("entries of /inbox can't be removed from here"));
                }
                Place::Root | Place::System(_) => {
                    return Err(Refusal::denied(format!(
                        "{path} belongs to the server and can't be removed"
                    )));
                }
                Place::Outside => return Err(Refusal::missing(path)),
            };
            match outcome {
                Err(Refusal::Conflict) => {}
                other => return other,
            }
        }
        Err(Refusal::Conflict)
    }

    async fn remove_settled(&self, path: &VirtualPath, area: Area) -> Result<RemoveDecision, Refusal> {
        let slot = self.slot(path).await?;
        let Some(upload) = slot.settled_in(area) else {
            if self.directory_row(path, area).await?.is_some() {
                return Err(Refusal::failure(format!("{path} is a directory: use rmdir below /upload")));
            }
            return Err(Refusal::missing(path));
        };
        let mut upload = upload.clone();
        let before = upload.state;
        upload.deleted_at = Some(Timestamp::now());
        upload.updated_at = Timestamp::now();
        let event = Event::about(&upload, EventBody::UploadDeleted(Other::about(&upload)));
        self.write(
            before,
            upload,
            Action::UploadDelete,
            "REMOVE",
            vec![OutboxEntry::event(event)],
            Durability::Durable,
        )
        .await?;
        self.tidy_mirror(&path.parent(), area).await?;
        Ok(RemoveDecision::Removed)
    }

    async fn remove_in_upload(
        &self,
        path: &VirtualPath,
        temp_names: &TempNames,
    ) -> Result<RemoveDecision, Refusal> {
        let slot = self.slot(path).await?;
        // A target that a held temp name is about to replace: nothing is destroyed, the RENAME makes the new version.
        if slot.accepted().is_some()
            && let Some(held) = self.held_for(path, temp_names).await?
        {
            self.note_intent(held, path).await?;
            return Ok(RemoveDecision::Removed);
        }
        match shown(&slot) {
            Some(upload) if upload.state == UploadState::Receiving => {
                Ok(RemoveDecision::AbortReceiving(Box::new(upload.clone())))
            }
            Some(upload) if matches!(upload.state, UploadState::Partial | UploadState::Held) => {
                self.withdraw(upload.clone()).await?;
                Ok(RemoveDecision::Removed)
            }
            Some(upload) if upload.state == UploadState::Closing => Err(being_accepted(path)),
            Some(_) => Err(Refusal::denied(format!(
                "{path} was accepted and can't be removed; to replace it, upload it again"
            ))),
            None if self.just_settled(path, &slot).is_some() => Err(Refusal::denied(format!(
                "{path} was accepted and can't be removed here; remove it in /sent or /failed"
            ))),
            None if self.directory_row(path, Area::Upload).await?.is_some() => {
                Err(Refusal::failure(format!("{path} is a directory: use rmdir")))
            }
            None => Err(Refusal::missing(path)),
        }
    }

    /// The account's complete upload under a temp name that stands for `target`.
    pub(crate) async fn held_for(
        &self,
        target: &VirtualPath,
        temp_names: &TempNames,
    ) -> Result<Option<Upload>, Refusal> {
        let held = self
            .state
            .find(UploadQuery {
                account: Some(self.facts.account.name.clone()),
                directory: Some(target.parent()),
                states: vec![UploadState::Held],
                limit: 1000,
                ..UploadQuery::default()
            })
            .await?;
        Ok(held
            .into_iter()
            .find(|u| temp_names.final_name(u.path.name_key()).is_some_and(|name| name == target.name_key())))
    }

    async fn note_intent(&self, held: Upload, target: &VirtualPath) -> Result<(), Refusal> {
        let before = held.state;
        let upload = Upload {
            supersede_intent: Some(SupersedeIntent { target: target.clone(), at: Timestamp::now() }),
            updated_at: Timestamp::now(),
            ..held
        };
        Ok(self
            .write(before, upload, Action::UploadSupersedeIntent, "REMOVE", vec![], Durability::Visible)
            .await?)
    }

    /// The partner takes back its own unfinished upload.
    async fn withdraw(&self, upload: Upload) -> Result<(), Refusal> {
        let before = upload.state;
        let reason = Reason::new(ReasonCode::Withdrawn, "the client removed its unfinished upload");
        let upload = Upload {
            state: UploadState::Aborted,
            reason: Some(reason),
            updated_at: Timestamp::now(),
            owner: None,
            ..upload
        };
        let event = Event::about(&upload, EventBody::UploadAborted(Other::about(&upload)));
        Ok(self
            .write(
                before,
                upload,
                Action::UploadAbort,
                "REMOVE",
                vec![OutboxEntry::event(event)],
                Durability::Durable,
            )
            .await?)
    }

    async fn write(
        &self,
        before: UploadState,
        upload: Upload,
        action: Action,
        request: &str,
        outbox: Vec<OutboxEntry>,
        durability: Durability,
    ) -> Result<(), StateError> {
        let mut entry = self.facts.entry(action, AuditResult::Ok);
        entry.request = Some(request.to_owned());
        entry.subject =
            Some(upload.supersede_intent.as_ref().map_or(&upload.path, |i| &i.target).to_string());
        entry.upload = Some(upload.upload_id);
        entry.before = Some(before.to_string());
        entry.after = Some(upload.state.to_string());
        entry.size = upload.size;
        entry.sha256 = upload.sha256;
        entry.reason = upload.reason.as_ref().map(|r| r.sentence.clone());
        let change = Change {
            subject: Subject::Upload { upload: Box::new(upload), inline: None },
            audit: vec![entry],
            outbox,
            durability,
        };
        self.state.apply(change).await.map(|_| ())
    }
}

fn shown(slot: &Slot) -> Option<&Upload> {
    slot.shown_in_upload()
}

/// The answer to a REMOVE of an upload whose CLOSE is under way.
pub(crate) fn being_accepted(path: &VirtualPath) -> Refusal {
    Refusal::failure(format!("{path} is just being accepted: try again in a moment"))
}
