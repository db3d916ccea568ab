//! The record commit: only when it succeeded is a CLOSE, or the RENAME of a temp name, answered with OK.

use super::{
    Content, LiveUploads, Storage, UploadOptions,
    budget::{Budget, Budgets, GatewayBudget},
    content_type::Detector,
    delete_blobs,
    error::IngestError,
    open_file::{OpenFile, refusal},
};
use crate::{
    session::SessionFacts,
    vfs::{Refusal, Tree, lookup::Slot, naming::TempNames},
};
use dropgate_backends::{
    Backends, StateError,
    blob::Space,
    instance::Liveness,
    observe::{Counter, Timing},
    relay::Ringer,
};
use dropgate_schemas::{
    account::OnDuplicate,
    audit::{Action, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, OutboxMessage, Subject},
    digest::Sha256,
    event::{Event, EventBody, Other, Received},
    id::{BlobId, OutboxId, ReceiptId, UploadId},
    job::Work,
    path::VirtualPath,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{BlobRef, Grade, Upload, UploadState},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// A CLOSE is answered within this time; WinSCP gives up after 15 s.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(12);
/// How long it may take then to find out what became of a CLOSE.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How old an unanswered acceptance may be for a repeat to count as its twin.
const TWIN_AGE: Duration = Duration::from_secs(3600);
/// Somebody else may change the name's other versions between our look and our write; so often we look again.
pub(super) const TRIES: usize = 5;

/// How a CLOSE ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum CloseAnswer {
    /// Accepted: the promise stands.
    Accepted(Acceptance),
    /// Complete under a temp name.
    Held,
    /// Under a temp name and shorter than declared: kept to be resumed; its rename will be refused.
    Incomplete,
    /// Nothing was written onto an accepted name: its version stays.
    Unchanged,
}

/// Proof for the client that its file was accepted, and what must follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// Which upload.
    pub upload: UploadId,
    /// Digest of what was accepted.
    pub sha256: Sha256,
    /// Receipt.
    pub receipt: ReceiptId,
    /// What to ring for once the answer is on its way.
    pub jobs: Vec<OutboxEntry>,
}

/// What the uploads of all sessions of a gateway share.
#[derive(Clone)]
pub struct Ingest {
    /// The ports.
    pub backends: Backends,
    /// Uploads that are open in this process.
    pub live: Arc<LiveUploads>,
    /// Memory for payload.
    pub memory: Arc<GatewayBudget>,
    /// Bounds and deadlines.
    pub options: Arc<UploadOptions>,
    /// Names the types of files.
    pub detector: Arc<Detector>,
    /// Which instances are alive.
    pub liveness: Arc<Liveness>,
    /// Rings for what was committed.
    pub ringer: Ringer,
    /// The gateway is about to stop: nothing waits any more for what others do.
    pub draining: CancellationToken,
    /// Whether new uploads can be taken.
    pub storage: Arc<Storage>,
}

/// What all uploads of one session need to be recorded.
pub struct Committer {
    pub(super) backends: Backends,
    pub(super) tree: Arc<Tree>,
    pub(super) facts: Arc<SessionFacts>,
    pub(super) temp_names: TempNames,
    pub(super) live: Arc<LiveUploads>,
    pub(super) budgets: Budgets,
    pub(super) options: Arc<UploadOptions>,
    pub(super) detector: Arc<Detector>,
    pub(super) liveness: Arc<Liveness>,
    pub(super) storage: Arc<Storage>,
    pub(super) draining: CancellationToken,
    ringer: Ringer,
    /// Accepted uploads whose OK was handed to the client and whose record does not say so yet.
    answered: Mutex<Vec<UploadId>>,
    recording: tokio::sync::Mutex<()>,
}

impl Committer {
    /// For one session; `connection` is the memory of its connection.
    #[must_use]
    pub fn new(shared: &Ingest, tree: Arc<Tree>, connection: Arc<Budget>) -> Self {
        let facts = Arc::clone(&tree.facts);
        let temp_names = TempNames::new(&facts.account.temp_patterns);
        Self {
            backends: shared.backends.clone(),
            tree,
            facts,
            temp_names,
            live: Arc::clone(&shared.live),
            budgets: Budgets { connection, gateway: Arc::clone(&shared.memory) },
            options: Arc::clone(&shared.options),
            detector: Arc::clone(&shared.detector),
            liveness: Arc::clone(&shared.liveness),
            storage: Arc::clone(&shared.storage),
            draining: shared.draining.clone(),
            ringer: shared.ringer.clone(),
            answered: Mutex::default(),
            recording: tokio::sync::Mutex::default(),
        }
    }

    /// The session's temp-name grammar.
    #[must_use]
    pub const fn temp_names(&self) -> &TempNames {
        &self.temp_names
    }

    /// Up to this many bytes ride along with the record.
    pub(super) fn inline_max(&self) -> u64 {
        u64::try_from(self.options.inline_max).unwrap_or(u64::MAX)
    }

    /// CLOSE of an open file, answered within [`CLOSE_LIMIT`] and a moment to find out what became of it.
    pub(super) async fn close(&self, file: &OpenFile) -> Result<CloseAnswer, Refusal> {
        let begun = Instant::now();
        let answer = match tokio::time::timeout(CLOSE_LIMIT, self.try_close(file)).await {
            // The write may have been made although its outcome was not told: the record knows.
            Ok(Err(refusal @ (Refusal::Unavailable(_) | Refusal::Conflict))) => {
                self.look_after_close(file, refusal).await
            }
            Ok(answer) => answer,
            Err(_) => self.look_after_close(file, late()).await,
        };
        let id = file.record().lock().await.upload_id;
        self.live.remove(id, file);
        if let Ok(CloseAnswer::Accepted(_)) = &answer {
            Timing::Acceptance.record(begun.elapsed());
        }
        answer
    }

    async fn try_close(&self, file: &OpenFile) -> Result<CloseAnswer, Refusal> {
        let mut record = file.record().lock().await;
        self.close_record(file, &mut record).await
    }

    async fn close_record(&self, file: &OpenFile, record: &mut Upload) -> Result<CloseAnswer, Refusal> {
        let temp = self.temp_names.is_temp(record.path.name_key());
        if file.is_unchanged() {
            return Ok(CloseAnswer::Held);
        }
        if file.is_resumed_untouched() && !temp {
            self.park(file, record, "nothing was written after it was opened to be continued").await;
            return Err(Refusal::failure(format!(
                "{} is not complete yet and nothing was written: resume it, or upload it again",
                record.path
            )));
        }
        if let Some(kept) = file.kept() {
            return self.keep(file, record, kept).await;
        }
        if let Some(why) = file.refused_resume() {
            self.park(file, record, &why.to_string()).await;
            return Err(why);
        }
        if file.received() > self.inline_max() && record.state == UploadState::Receiving {
            let closing =
                Upload { state: UploadState::Closing, updated_at: Timestamp::now(), ..record.clone() };
            let entry = self.entry(Action::UploadClose, "CLOSE", &closing, record.state);
            *record = self.write(closing, None, vec![entry], vec![], Durability::Visible).await?;
        }
        let finished = match file.bytes().finish().await {
            Ok(finished) => finished,
            Err(error) => {
                self.park(file, record, &error.to_string()).await;
                return match error {
                    // WinSCP cancels a transfer by closing its temp file early; the rename would be refused.
                    IngestError::Short { .. } if temp => Ok(CloseAnswer::Incomplete),
                    other => Err(refusal(&other)),
                };
            }
        };
        let before = record.state;
        let (blob, inline) = match finished.content {
            Content::Inline(bytes) => (BlobRef::Inline, Some(bytes)),
            Content::Stored(blob) => (BlobRef::Stored { blob }, None),
        };
        let complete = Upload {
            blob: Some(blob),
            size: Some(finished.size),
            sha256: Some(finished.sha256),
            content_type: Some(finished.content_type),
            evidence: Some(file.evidence(finished.size)),
            attributes: file.attributes(),
            staged: None,
            owner: None,
            updated_at: Timestamp::now(),
            ..record.clone()
        };
        let answer = if temp {
            let held = Upload { state: UploadState::Held, ..complete };
            let entry = self.entry(Action::UploadHold, "CLOSE", &held, before);
            *record = self.write(held, inline, vec![entry], vec![], Durability::Durable).await?;
            CloseAnswer::Held
        } else {
            CloseAnswer::Accepted(self.accept(complete, inline, "CLOSE", before).await?)
        };
        self.delete_later(finished.replaced);
        Ok(answer)
    }

    /// CLOSE of an accepted name that nothing was written to: no new version comes of it.
    async fn keep(&self, file: &OpenFile, record: &Upload, kept: &Upload) -> Result<CloseAnswer, Refusal> {
        let unused = file.bytes().abandon().await;
        let aborted = Upload {
            state: UploadState::Aborted,
            reason: Some(Reason::new(ReasonCode::Withdrawn, "nothing was written")),
            owner: None,
            updated_at: Timestamp::now(),
            ..record.clone()
        };
        let entry = self.entry(Action::UploadAbort, "CLOSE", &aborted, record.state);
        // No event: for everybody else nothing happened.
        self.write(aborted, None, vec![entry], vec![], Durability::Visible).await?;
        self.delete_later(unused);
        if kept.state == UploadState::Failed {
            let reason = kept.reason.as_ref().map_or("it failed", |r| r.sentence.as_str());
            return Err(Refusal::failure(format!(
                "{} is complete but was not delivered ({reason}): upload it whole to send it again",
                record.path
            )));
        }
        Ok(CloseAnswer::Unchanged)
    }

    /// The limit passed while the commit was under way, or its outcome is unknown: finds out what became of it. An upload
    /// that was not accepted is given up; if that can't be written now, the sweep of this gateway does it.
    async fn look_after_close(&self, file: &OpenFile, refusal: Refusal) -> Result<CloseAnswer, Refusal> {
        match tokio::time::timeout(LOOK_LIMIT, self.outcome_of_close(file)).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(refusal),
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %file.path(), "what became of a CLOSE is not known yet");
                Err(refusal)
            }
            Err(_) => Err(refusal),
        }
    }

    async fn outcome_of_close(&self, file: &OpenFile) -> Result<Option<CloseAnswer>, StateError> {
        let (id, epoch) = {
            let record = file.record().lock().await;
            (record.upload_id, record.epoch)
        };
        for _ in 0..TRIES {
            let Some(stored) = self.backends.state.upload(id).await? else { return Ok(None) };
            if stored.epoch != epoch {
                return Ok(None);
            }
            if stored.state.is_accepted()
                && let (Some(sha256), Some(receipt)) = (stored.sha256, stored.receipt_id)
            {
                // Its jobs are rung by the relay.
                let acceptance = Acceptance { upload: id, sha256, receipt, jobs: vec![] };
                return Ok(Some(CloseAnswer::Accepted(acceptance)));
            }
            if stored.state == UploadState::Held {
                return Ok(Some(CloseAnswer::Held));
            }
            let ours = stored.owner == Some(self.facts.instance)
                && matches!(stored.state, UploadState::Closing | UploadState::Receiving);
            if !ours {
                return Ok(None);
            }
            let reason = Reason::new(ReasonCode::Unavailable, "storage or database did not answer in time");
            match self.abort(stored, "CLOSE", reason).await {
                // The commit was faster after all.
                Err(StateError::Conflict { .. }) => {}
                other => return other.map(|()| None),
            }
        }
        Ok(None)
    }

    /// Makes `complete` the current version of its name. The caller's revision must be that of the stored record.
    pub(super) async fn accept(
        &self,
        mut complete: Upload,
        inline: Option<bytes::Bytes>,
        request: &str,
        before: UploadState,
    ) -> Result<Acceptance, Refusal> {
        let (Some(size), Some(sha256), Some(evidence)) = (complete.size, complete.sha256, complete.evidence)
        else {
            return Err(Refusal::failure("the upload is not complete"));
        };
        if evidence < self.facts.account.minimum_grade {
            let text = match self.facts.account.minimum_grade {
                Grade::RenamedFromTemp => {
                    "this account's uploads must be renamed from a temporary name when they are complete"
                }
                Grade::DeclaredSize | Grade::FsetstatSize | Grade::CloseOnly => {
                    "this account's uploads must tell their size"
                }
            };
            self.abort(complete, request, Reason::new(ReasonCode::Refused, text)).await?;
            return Err(Refusal::denied(text));
        }
        for _ in 0..TRIES {
            let slot = self.tree.slot(&complete.path).await?;
            if let Some(answer) = self.repeat_of(&complete, &slot, size, sha256, request).await? {
                return Ok(answer);
            }
            // The highest accepted number is the current version. Another upload may have been accepted under the name
            // since this one took its number, so that this one is the newer nevertheless.
            let overtaken = |u: &Upload| u.upload_id != complete.upload_id && u.version >= complete.version;
            if slot.accepted().is_some_and(overtaken) {
                complete.version = self.next_version(&complete.path).await?;
            }
            let accepted = self.accepted_record(&complete, &slot, evidence);
            let (Some(receipt), Some(received)) = (accepted.receipt_id, Received::from_upload(&accepted))
            else {
                return Err(Refusal::failure("the upload is not complete"));
            };
            let job = OutboxEntry::job(accepted.upload_id, Work::Route);
            let jobs = vec![job.clone()];
            let mut outbox =
                vec![job, OutboxEntry::event(Event::about(&accepted, EventBody::UploadReceived(received)))];
            outbox.extend(slot.all_accepted().filter(|u| u.upload_id != accepted.upload_id).map(|older| {
                OutboxEntry {
                    id: OutboxId::new(),
                    upload: Some(accepted.upload_id),
                    message: OutboxMessage::Supersede { older: older.upload_id },
                    not_before: None,
                }
            }));
            let mut entry = self.entry(Action::UploadAccept, request, &accepted, before);
            entry.detail.insert("receipt".into(), receipt.to_string());
            entry.detail.insert("version".into(), accepted.version.to_string());
            if complete.opened_as != accepted.path {
                entry.detail.insert("opened_as".into(), complete.opened_as.to_string());
            }
            let path = accepted.path.clone();
            match self.write(accepted, inline.clone(), vec![entry], outbox, Durability::Durable).await {
                Ok(stored) => {
                    self.tree.remember(&path);
                    return Ok(Acceptance { upload: stored.upload_id, sha256, receipt, jobs });
                }
                Err(StateError::Conflict { what, why }) => {
                    tracing::debug!(what, why, "acceptance met a conflict");
                    let now = self.backends.state.upload(complete.upload_id).await?;
                    if now.is_none_or(|u| u.revision != complete.revision) {
                        return Err(Refusal::Conflict);
                    }
                    // Then somebody took the number.
                    complete.version = self.next_version(&complete.path).await?;
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(Refusal::Conflict)
    }

    fn accepted_record(&self, complete: &Upload, slot: &Slot, evidence: Grade) -> Upload {
        let now = Timestamp::now();
        Upload {
            state: UploadState::Committed,
            evidence: Some(evidence),
            received_at: Some(now),
            updated_at: now,
            receipt_id: Some(complete.receipt_id.unwrap_or_else(ReceiptId::new)),
            supersedes: slot.accepted().map(|u| u.upload_id).filter(|id| *id != complete.upload_id),
            supersede_intent: None,
            owner: None,
            ..complete.clone()
        }
    }

    /// Whether `complete` only repeats what is there: a twin whose answer was lost, or a duplicate the account suppresses.
    async fn repeat_of(
        &self,
        complete: &Upload,
        slot: &Slot,
        size: u64,
        sha256: Sha256,
        request: &str,
    ) -> Result<Option<Acceptance>, Refusal> {
        let Some(first) =
            slot.accepted().filter(|u| u.upload_id != complete.upload_id && u.deleted_at.is_none())
        else {
            return Ok(None);
        };
        if first.size != Some(size) || first.sha256 != Some(sha256) {
            return Ok(None);
        }
        let Some(receipt) = first.receipt_id else { return Ok(None) };
        let fresh = first.received_at.is_some_and(|at| Timestamp::now().since(at) < TWIN_AGE);
        let unanswered = !first.answered
            && !self.live.is_connected(first.client.session)
            && first.client.session != self.facts.session;
        let twin = fresh && unanswered;
        let suppressed =
            self.facts.account.on_duplicate == OnDuplicate::Suppress && first.state == UploadState::Processed;
        if !twin && !suppressed {
            return Ok(None);
        }
        let sentence = if twin {
            format!("repeats upload {}, whose answer was lost", first.upload_id)
        } else {
            format!("repeats upload {}, which was delivered", first.upload_id)
        };
        let repeat = Upload {
            state: UploadState::Aborted,
            retry_of: Some(first.upload_id),
            reason: Some(Reason::new(ReasonCode::Withdrawn, sentence)),
            owner: None,
            updated_at: Timestamp::now(),
            ..complete.clone()
        };
        let mut entry = self.entry(Action::UploadAbort, request, &repeat, complete.state);
        entry.detail.insert("repeats".into(), first.upload_id.to_string());
        let outbox = if twin {
            vec![]
        } else {
            let other = Other { other_version: Some(first.upload_id), ..Other::about(&repeat) };
            vec![OutboxEntry::event(Event::about(&repeat, EventBody::UploadDuplicate(other)))]
        };
        self.write(repeat, None, vec![entry], outbox, Durability::Durable).await?;
        Ok(Some(Acceptance { upload: first.upload_id, sha256, receipt, jobs: vec![] }))
    }

    /// Writes the record and returns it with its new revision.
    pub(super) async fn write(
        &self,
        upload: Upload,
        inline: Option<bytes::Bytes>,
        audit: Vec<AuditEntry>,
        outbox: Vec<OutboxEntry>,
        durability: Durability,
    ) -> Result<Upload, StateError> {
        let mut stored = upload.clone();
        let actions: Vec<Action> = audit.iter().map(|entry| entry.action).collect();
        let subject = Subject::Upload { upload: Box::new(upload), inline };
        stored.revision = self.backends.state.apply(Change { subject, audit, outbox, durability }).await?;
        actions.into_iter().filter_map(step).for_each(Counter::one);
        Ok(stored)
    }

    /// An audit entry about an upload of this session.
    pub(super) fn entry(
        &self,
        action: Action,
        request: &str,
        upload: &Upload,
        before: UploadState,
    ) -> AuditEntry {
        let mut entry = self.facts.entry(action, AuditResult::Ok);
        entry.request = Some(request.to_owned());
        entry.subject = Some(upload.path.to_string());
        entry.upload = Some(upload.upload_id);
        entry.size = upload.size;
        entry.sha256 = upload.sha256;
        entry.reason = upload.reason.as_ref().map(|r| r.sentence.clone());
        entry.before = Some(before.to_string());
        entry.after = Some(upload.state.to_string());
        entry
    }

    /// Rings for jobs whose commit was answered. What is not rung here is rung by the relay.
    pub fn ring(&self, jobs: &[OutboxEntry]) {
        self.ringer.ring(jobs);
    }

    /// Notes that the client got its OK.
    pub fn was_answered(&self, upload: UploadId) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).push(upload);
    }

    /// Writes down which acceptances were answered, so that a repeat of them is a new version and not a twin.
    pub async fn record_answers(&self) {
        // Whoever comes second waits until the first one's are written, too.
        let _turn = self.recording.lock().await;
        let ids = std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner));
        for chunk in ids.chunks(500) {
            if let Err(error) = self.backends.state.mark_answered(chunk).await {
                tracing::debug!(%error, "answers were not recorded; repeats may count as twins");
            }
        }
    }

    /// How much room the blob store has, if it knows.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn space(&self) -> Result<Option<Space>, Refusal> {
        self.backends.blob.space().await.map_err(|error| {
            tracing::warn!(%error, "the blob store does not tell its room");
            Refusal::Unavailable("the server's storage does not answer: try again later".to_owned())
        })
    }

    /// Deletes blobs that no record names any more, in its own time.
    pub(super) fn delete_later(&self, blobs: Vec<BlobId>) {
        if !blobs.is_empty() {
            let store = Arc::clone(&self.backends.blob);
            tokio::spawn(async move { delete_blobs(store.as_ref(), &blobs).await });
        }
    }

    /// The path in an error message.
    pub(super) fn in_use(path: &VirtualPath) -> Refusal {
        Refusal::failure(format!(
            "{path} is being uploaded already: wait until that is done, or try again in 10 seconds if it was interrupted"
        ))
    }
}

fn late() -> Refusal {
    Refusal::Unavailable(
        "the server could not store the file in time: upload it again in a few minutes".to_owned(),
    )
}

/// The counter of a step that an upload reached.
fn step(action: Action) -> Option<Counter> {
    let steps = [
        (Action::UploadOpen, Counter::UploadsOpened),
        (Action::UploadInterrupt, Counter::UploadsInterrupted),
        (Action::UploadAbort, Counter::UploadsAborted),
        (Action::UploadHold, Counter::UploadsHeld),
        (Action::UploadAccept, Counter::UploadsAccepted),
    ];
    steps.into_iter().find(|(of, _)| *of == action).map(|(_, counter)| counter)
}
