//! The one door to the records: read, decide, write if nobody was faster, otherwise decide again.

use dropgate_backends::{StateError, StateStore};
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, Subject},
    event::{Event, EventBody},
    id::UploadId,
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::{sync::Arc, time::Duration};

/// How often a decision is made again because somebody else was faster or the outcome of a write is unknown.
const ROUNDS: u32 = 16;
/// Pause before a record is read back after a write with an unknown outcome; doubled each time.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes records on behalf of one role.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) state: Arc<dyn StateStore>,
    actor: Actor,
    node: String,
}

/// What a decision comes to.
pub(crate) enum Verdict<T> {
    /// The draft is to be written.
    Write(T),
    /// Nothing is written: there is nothing to do, or it must not be done.
    Leave(T),
}

/// A record as it is to be, with what goes on record and what follows.
pub(crate) struct Draft<'a> {
    /// The record, changed in place.
    pub(crate) upload: Upload,
    before: UploadState,
    audit: Vec<AuditEntry>,
    outbox: Vec<OutboxEntry>,
    durability: Durability,
    recorder: &'a Recorder,
}

impl Recorder {
    /// For a role of the system: `worker`, `sweeper`.
    pub(crate) fn system(state: Arc<dyn StateStore>, role: &str, node: &str) -> Self {
        Self { state, actor: Actor::System { id: role.to_owned() }, node: node.to_owned() }
    }

    /// For a person.
    pub(crate) fn operator(state: Arc<dyn StateStore>, who: &str, node: &str) -> Self {
        Self { state, actor: Actor::Operator { id: who.to_owned() }, node: node.to_owned() }
    }

    /// Decides about an upload, beginning with the record at hand. `decide` may be asked again, with a fresh record, when
    /// somebody else was faster, and also when the outcome of its write is unknown: it must recognise its own work.
    /// Returns the record as it stands then.
    pub(crate) async fn decide<T>(
        &self,
        upload: Upload,
        mut decide: impl FnMut(&mut Draft<'_>) -> Verdict<T>,
    ) -> Result<(Upload, T), StateError> {
        let id = upload.upload_id;
        let mut at_hand = upload;
        let mut pause = PAUSE;
        let mut last = None;
        for _ in 0..ROUNDS {
            let mut draft = self.draft(at_hand.clone());
            let value = match decide(&mut draft) {
                Verdict::Leave(value) => return Ok((at_hand, value)),
                Verdict::Write(value) => value,
            };
            let mut written = draft.upload.clone();
            match self.state.apply(draft.into_change()).await {
                Ok(revision) => {
                    written.revision = revision;
                    return Ok((written, value));
                }
                Err(error @ StateError::Conflict { .. }) => last = Some(error),
                Err(error @ StateError::Unavailable(_)) => {
                    last = Some(error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
            at_hand = match self.state.upload(id).await {
                Ok(Some(upload)) => upload,
                Ok(None) => return Err(StateError::NotFound(format!("upload {id}"))),
                // Ask once more with what is at hand: a write that is refused now tells as much as a read.
                Err(StateError::Unavailable(_)) => at_hand,
                Err(error) => return Err(error),
            };
        }
        Err(last.unwrap_or_else(|| StateError::Unavailable(format!("upload {id} did not hold still"))))
    }

    /// As [`Self::decide`], reading the record first. None if there is no such upload.
    pub(crate) async fn look_and_decide<T>(
        &self,
        id: UploadId,
        decide: impl FnMut(&mut Draft<'_>) -> Verdict<T>,
    ) -> Result<Option<(Upload, T)>, StateError> {
        match self.state.upload(id).await? {
            Some(upload) => self.decide(upload, decide).await.map(Some),
            None => Ok(None),
        }
    }

    fn draft(&self, upload: Upload) -> Draft<'_> {
        let before = upload.state;
        Draft {
            upload,
            before,
            audit: Vec::new(),
            outbox: Vec::new(),
            durability: Durability::Durable,
            recorder: self,
        }
    }
}

impl Draft<'_> {
    /// Puts an act on record; `more` fills in what is particular.
    pub(crate) fn audit(&mut self, action: Action, result: AuditResult, more: impl FnOnce(&mut AuditEntry)) {
        let upload = &self.upload;
        let mut entry = AuditEntry::new(action, self.recorder.actor.clone(), result);
        entry.partner = Some(upload.partner.clone());
        entry.account = Some(upload.account.clone());
        entry.subject = Some(upload.path.to_string());
        entry.upload = Some(upload.upload_id);
        entry.size = upload.size;
        entry.sha256 = upload.sha256;
        entry.node.clone_from(&self.recorder.node);
        if self.before != upload.state {
            entry.before = Some(self.before.to_string());
            entry.after = Some(upload.state.to_string());
        }
        more(&mut entry);
        self.audit.push(entry);
    }

    /// Announces it.
    pub(crate) fn event(&mut self, body: EventBody) {
        self.outbox.push(OutboxEntry::event(Event::about(&self.upload, body)));
    }

    /// Asks for a follow-up.
    pub(crate) fn follow_up(&mut self, entry: OutboxEntry) {
        self.outbox.push(entry);
    }

    /// The change need not survive a power cut: losing it only repeats work.
    pub(crate) fn need_not_last(&mut self) {
        self.durability = Durability::Visible;
    }

    fn into_change(self) -> Change {
        let Self { mut upload, before, mut audit, outbox, durability, .. } = self;
        upload.updated_at = Timestamp::now();
        // Some acts are told before it is known which state they lead to: the last one told is the one that led there.
        let after = Some(upload.state.to_string());
        if before != upload.state
            && !audit.iter().any(|entry| entry.after == after)
            && let Some(entry) = audit.last_mut()
        {
            entry.before = Some(before.to_string());
            entry.after = after;
        }
        Change {
            subject: Subject::Upload { upload: Box::new(upload), inline: None },
            audit,
            outbox,
            durability,
        }
    }
}
