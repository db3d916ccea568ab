//! RENAME: the acceptance of what was held, or a new name for what was accepted.

use super::{
    commit::{Acceptance, Committer, TRIES},
    opening::WAIT,
};
use crate::vfs::{Refusal, lookup::Slot, rename::RenameDecision};
use dropgate_backends::{StateError, observe::Timing};
use dropgate_schemas::{
    audit::Action,
    change::{Durability, OutboxEntry, OutboxMessage},
    delivery::{Delivery, DeliveryState},
    event::{Event, EventBody, Other},
    id::OutboxId,
    job::Work,
    path::VirtualPath,
    time::Timestamp,
    upload::{Grade, Upload, UploadState},
};
use std::time::{Duration, Instant};

/// How long a RENAME waits for a CLOSE of its source.
const WAIT_FOR_CLOSE: Duration = Duration::from_secs(60);

/// How a RENAME ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum RenameAnswer {
    /// It was the acceptance.
    Accepted(Acceptance),
    /// It has another name now.
    Renamed,
}

impl Committer {
    /// RENAME and `posix-rename` (`replace`).
    ///
    /// # Errors
    /// Why it is not possible.
    pub async fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        replace: bool,
    ) -> Result<RenameAnswer, Refusal> {
        let begun = Instant::now();
        let deadline = begun + WAIT_FOR_CLOSE;
        let request = if replace { "posix-rename" } else { "RENAME" };
        let mut conflicts = 0;
        loop {
            let outcome = match self.tree.decide_rename(from, to, replace, &self.temp_names).await? {
                RenameDecision::Nothing => return Ok(RenameAnswer::Renamed),
                RenameDecision::NotClosed(upload) => {
                    if !self.is_closing(&upload) {
                        return Err(Refusal::failure(format!(
                            "{from} is still being uploaded: close it first"
                        )));
                    }
                    if Instant::now() >= deadline {
                        return Err(Refusal::failure(format!(
                            "{from} is still being closed: try again in a moment"
                        )));
                    }
                    self.backends.state.changed(Duration::from_millis(100)).await;
                    continue;
                }
                RenameDecision::WaitForDelivery => {
                    if begun.elapsed() >= WAIT || self.draining.is_cancelled() {
                        return Err(Refusal::failure(format!(
                            "{to} is being delivered: try again in a moment"
                        )));
                    }
                    self.backends.state.changed(Duration::from_millis(200)).await;
                    continue;
                }
                RenameDecision::Accept { held, .. } => {
                    let before = held.state;
                    let version = self.next_version(to).await?;
                    let complete =
                        Upload { path: to.clone(), version, evidence: Some(Grade::RenamedFromTemp), ..*held };
                    let begun = Instant::now();
                    let accepted = self.accept(complete, None, request, before).await;
                    accepted
                        .inspect(|_| Timing::Acceptance.record(begun.elapsed()))
                        .map(RenameAnswer::Accepted)
                }
                RenameDecision::MoveHeld(held) => self.move_held(*held, to, request).await,
                RenameDecision::MoveAccepted { upload, target } => {
                    self.move_accepted(*upload, to, &target, request).await
                }
            };
            match outcome {
                Err(Refusal::Conflict) if conflicts < TRIES => conflicts += 1,
                other => return other,
            }
        }
    }

    /// Whether the CLOSE of an upload that its record shows as unfinished is under way, or just over.
    fn is_closing(&self, upload: &Upload) -> bool {
        match self.live.get(upload.upload_id) {
            Some(file) => !file.is_open(),
            None => upload.state == UploadState::Closing || upload.owner == Some(self.facts.instance),
        }
    }

    pub(super) async fn next_version(&self, path: &VirtualPath) -> Result<u32, Refusal> {
        Ok(self.backends.state.highest_version(&self.facts.account.name, path).await?.saturating_add(1))
    }

    async fn move_held(
        &self,
        held: Upload,
        to: &VirtualPath,
        request: &str,
    ) -> Result<RenameAnswer, Refusal> {
        let before = held.state;
        let version = self.next_version(to).await?;
        let moved = Upload { path: to.clone(), version, updated_at: Timestamp::now(), ..held };
        let entry = self.entry(Action::UploadRename, request, &moved, before);
        self.write(moved, None, vec![entry], vec![], Durability::Durable).await.map_err(conflict)?;
        Ok(RenameAnswer::Renamed)
    }

    /// The upload keeps its id; only the name changes, before any worker claimed it. If it was routed by then, it is routed
    /// again: routes and keys depend on the name.
    async fn move_accepted(
        &self,
        upload: Upload,
        to: &VirtualPath,
        target: &Slot,
        request: &str,
    ) -> Result<RenameAnswer, Refusal> {
        if upload.state == UploadState::Quarantined {
            return Err(Refusal::failure(format!(
                "{} is kept back for the operator and can't be renamed: upload it under the new name",
                upload.path
            )));
        }
        let unclaimed = |d: &Delivery| d.state == DeliveryState::Pending && d.epoch == 0;
        if !upload.deliveries.iter().all(unclaimed) {
            return Err(Refusal::failure(format!(
                "{} is on its way already and can't be renamed any more: upload it under the new name",
                upload.path
            )));
        }
        let was_routed = !upload.deliveries.is_empty();
        let before = upload.state;
        let previous = upload.path.clone();
        let version = self.next_version(to).await?;
        let supersedes = target.accepted().map(|u| u.upload_id);
        let moved = Upload {
            path: to.clone(),
            version,
            supersedes,
            deliveries: Vec::new(),
            updated_at: Timestamp::now(),
            ..upload
        };
        let mut entry = self.entry(Action::UploadRename, request, &moved, before);
        entry.detail.insert("previous_path".into(), previous.to_string());
        let other = Other { previous_path: Some(previous), ..Other::about(&moved) };
        let mut outbox = vec![OutboxEntry::event(Event::about(&moved, EventBody::UploadRenamed(other)))];
        let route: Vec<_> =
            was_routed.then(|| OutboxEntry::job(moved.upload_id, Work::Route)).into_iter().collect();
        outbox.extend(route.iter().cloned());
        outbox.extend(target.all_accepted().map(|older| OutboxEntry {
            id: OutboxId::new(),
            upload: Some(moved.upload_id),
            message: OutboxMessage::Supersede { older: older.upload_id },
            not_before: None,
        }));
        let path = moved.path.clone();
        self.write(moved, None, vec![entry], outbox, Durability::Durable).await.map_err(conflict)?;
        self.ring(&route);
        self.tree.remember(&path);
        Ok(RenameAnswer::Renamed)
    }
}

fn conflict(error: StateError) -> Refusal {
    match error {
        StateError::Conflict { .. } | StateError::NotFound(_) => Refusal::Conflict,
        StateError::Full(_)
        | StateError::Unavailable(_)
        | StateError::Rejected(_)
        | StateError::Corrupt(_) => error.into(),
    }
}
