//! One conditional write: a record, its audit entries and its outbox, all or nothing.

use crate::{
    account::Account,
    audit::AuditEntry,
    directory::Directory,
    event::Event,
    id::{OutboxId, UploadId},
    inbox::InboxEntry,
    job::Work,
    time::Timestamp,
    token::Token,
    upload::Upload,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One write of the state store. It touches one subject only, so that a store with single-document atomicity can make
/// it: the subject, its audit entries and its outbox entries become visible together or not at all.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is written.
    pub subject: Subject,
    /// What is put on record about it. Never empty for a change of state.
    pub audit: Vec<AuditEntry>,
    /// What must follow from it.
    pub outbox: Vec<OutboxEntry>,
    /// Whether it must survive a power cut before anyone hears of it.
    pub durability: Durability,
}

/// What a change writes. The value holds the revision it is based on; the store writes it with the next one, or
/// refuses with a conflict if the stored revision is another. Revision 0 means: must not exist yet.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A version, with its bytes if they ride along with the record.
    Upload {
        /// The record after the change.
        upload: Box<Upload>,
        /// New inline content; none leaves what is there.
        inline: Option<bytes::Bytes>,
    },
    /// A directory.
    Directory(Directory),
    /// An account.
    Account(Account),
    /// An entry of an account's `/inbox`.
    Inbox(InboxEntry),
    /// An operator's token.
    Token(Token),
    /// Nothing but the audit entries (logins, refusals, reads).
    None,
}

/// When a change counts as made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Visible to every reader; may be lost in a power cut, not in a crash of the process.
    Visible,
    /// Synced to stable storage (a majority, in a cluster) before the call returns.
    Durable,
}

/// Something that must follow from a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboxEntry {
    /// Its id.
    pub id: OutboxId,
    /// The upload it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadId>,
    /// What to do.
    pub message: OutboxMessage,
    /// Not before this moment; none: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// What an outbox entry asks the relay for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutboxMessage {
    /// Put a job into the queue.
    Job {
        /// Which.
        work: Work,
    },
    /// Publish an event.
    Event {
        /// Complete but for `sequence`, which the relay assigns.
        event: Box<Event>,
    },
    /// Mark an older version as superseded by the version this entry belongs to, cancelling what is undelivered.
    Supersede {
        /// The older version.
        older: UploadId,
    },
}

/// Which kind of follow-up an outbox entry asks for: each kind is handled on its own, so that one that can't get on
/// doesn't hold up the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutboxKind {
    /// [`OutboxMessage::Job`].
    Job,
    /// [`OutboxMessage::Event`].
    Event,
    /// [`OutboxMessage::Supersede`].
    Supersede,
}

impl OutboxKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Job, Self::Event, Self::Supersede];

    /// The kind as it is stored: `supersede`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Event => "event",
            Self::Supersede => "supersede",
        }
    }
}

impl OutboxMessage {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> OutboxKind {
        match self {
            Self::Job { .. } => OutboxKind::Job,
            Self::Event { .. } => OutboxKind::Event,
            Self::Supersede { .. } => OutboxKind::Supersede,
        }
    }
}

impl OutboxEntry {
    /// A job for the queue, at once.
    #[must_use]
    pub fn job(upload: UploadId, work: Work) -> Self {
        Self {
            id: OutboxId::new(),
            upload: Some(upload),
            message: OutboxMessage::Job { work },
            not_before: None,
        }
    }
    /// An event, at once.
    #[must_use]
    pub fn event(event: Event) -> Self {
        Self {
            id: OutboxId::new(),
            upload: event.upload_id(),
            message: OutboxMessage::Event { event: Box::new(event) },
            not_before: None,
        }
    }
    /// The same entry, held back until `moment`.
    #[must_use]
    pub fn at(mut self, moment: Timestamp) -> Self {
        self.not_before = Some(moment);
        self
    }
}
