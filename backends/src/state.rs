//! The record of everything: uploads, directories, accounts, audit entries, outbox, event log, leases.

#[cfg(any(test, feature = "conformance"))]
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a conformance suite fails by panicking"
)]
pub mod conformance;
mod lease;
#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
pub(crate) mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    audit::AuditEntry,
    change::{Change, OutboxEntry, OutboxKind},
    directory::Directory,
    event::Event,
    id::{BlobId, InstanceId, OutboxId, TokenId, UploadId},
    inbox::InboxEntry,
    path::{Area, VirtualPath},
    time::Timestamp,
    token::Token,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// What went wrong with the state store, as what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The subject of a conditional change does not exist.
    #[error("{0} does not exist in the state store")]
    NotFound(String),
    /// Somebody else was faster: read again and decide again.
    #[error("{what} was changed by somebody else: {why}")]
    Conflict {
        /// Which subject.
        what: String,
        /// Which condition did not hold.
        why: String,
    },
    /// The store has no room.
    #[error("the state store is full: {0}")]
    Full(String),
    /// The store can't be reached or did not answer in time. A change may or may not have been made: read back.
    #[error("the state store is unavailable: {0}")]
    Unavailable(String),
    /// The store refused for a reason that does not pass by itself.
    #[error("the state store refused: {0}")]
    Rejected(String),
    /// What is stored can't be read.
    #[error("the state store is corrupt: {0}")]
    Corrupt(String),
}

/// Which uploads to find. All conditions hold together; `None` and empty lists are no condition.
#[derive(Clone, Debug, Default)]
pub struct UploadQuery {
    /// Whose.
    pub account: Option<AccountName>,
    /// Of which partner.
    pub partner: Option<PartnerName>,
    /// With this exact path (by key) under `/upload`.
    pub path: Option<VirtualPath>,
    /// Directly in this directory (by key) under `/upload`.
    pub directory: Option<VirtualPath>,
    /// Below this directory at any depth (by key) under `/upload`.
    pub under: Option<VirtualPath>,
    /// In one of these states.
    pub states: Vec<UploadState>,
    /// Listed in this area: by state, and not deleted.
    pub area: Option<Area>,
    /// Received by this gateway instance, or with a delivery claimed by this worker instance.
    pub owner: Option<InstanceId>,
    /// With this digest.
    pub sha256: Option<dropgate_schemas::digest::Sha256>,
    /// Whose bytes are, or are being staged, in this blob: for the collector of orphans.
    pub blob: Option<BlobId>,
    /// Opened at or after.
    pub since: Option<Timestamp>,
    /// Opened before.
    pub until: Option<Timestamp>,
    /// Last changed before.
    pub updated_before: Option<Timestamp>,
    /// Order and where to begin.
    pub order: UploadOrder,
    /// At most so many (the store may cap it at 1,000).
    pub limit: usize,
}

/// In which order uploads are found, and after which one to begin.
#[derive(Clone, Debug, Default)]
pub enum UploadOrder {
    /// Newest first, by upload id.
    #[default]
    NewestFirst,
    /// Newest first, older than this one.
    Before(UploadId),
    /// By the key of the last component of the path, then by descending version: for listings.
    ByName,
    /// The same, names after this one.
    ByNameAfter(String),
    /// Highest version first: for one path.
    ByVersion,
}

/// Which audit entries to find. All conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Of this account.
    pub account: Option<AccountName>,
    /// By this actor's id.
    pub actor: Option<String>,
    /// About this upload.
    pub upload: Option<UploadId>,
    /// About this path (the subject as printed).
    pub path: Option<String>,
    /// With this result (`ok`, `refused`, `failed`).
    pub result: Option<String>,
    /// With this action (`upload.accept`).
    pub action: Option<String>,
    /// With this reference.
    pub reference: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// With a position greater than this one.
    pub after: Option<u64>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
    /// At most so many (the store may cap it at 1,000).
    pub limit: usize,
}

/// One stored audit entry.
#[derive(Clone, Debug)]
pub struct StoredAudit {
    /// Its place in the trail, from 1, in the order of storing; may have gaps, never repeats.
    pub position: u64,
    /// The canonical bytes as they were stored.
    pub canonical: Bytes,
}

impl StoredAudit {
    /// The entry read back from its bytes.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] if the bytes are not those of an entry.
    pub fn entry(&self) -> Result<AuditEntry, StateError> {
        serde_json::from_slice(&self.canonical)
            .map_err(|e| StateError::Corrupt(format!("audit entry {}: {e}", self.position)))
    }
}

/// One event of the log.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    /// Global number, from 1, without a gap. `after=` means this.
    pub position: u64,
    /// The event, `sequence` set.
    pub event: Event,
}

/// What an instance tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// `gateway`, `worker`, `ops`.
    pub role: String,
    /// Host name and process id, for people.
    pub node: String,
    /// Raised by every heartbeat. An observer that sees it unchanged for long enough on its own monotonic clock may
    /// take the instance for dead; wall clocks are never compared.
    pub beats: u64,
    /// Wall clock of the last heartbeat, for people.
    pub seen_at: Timestamp,
}

/// What an account has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub uploads: u64,
    /// Bytes of all of them. A single file counts as a PiB at most.
    pub bytes: u64,
}

/// A file counts as this at most, so that no sum of sizes ends beyond what stores can add up.
const MOST_COUNTED: u64 = 1 << 50;

/// Counts for status, readiness and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Uploads by state (not deleted).
    pub uploads: Vec<(UploadState, u64)>,
    /// Outbox entries not yet handled.
    pub outbox: u64,
    /// When the oldest of them was due.
    pub oldest_outbox: Option<Timestamp>,
}

/// The state store. Every write is conditional on a revision; a subject, its audit entries and its outbox entries are
/// written together or not at all. Reads see every write that returned before, from any process.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// Makes one change and returns the subject's new revision (0 for [`dropgate_schemas::change::Subject::None`]).
    ///
    /// Refused as `Conflict` if the stored revision is not the one the subject carries, if (account, path, version) is
    /// taken, and as `NotFound` if a subject with a revision does not exist. After `Unavailable` the outcome is unknown.
    async fn apply(&self, change: Change) -> Result<u64, StateError>;

    /// One upload.
    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, StateError>;

    /// Uploads by query.
    async fn find(&self, query: UploadQuery) -> Result<Vec<Upload>, StateError>;

    /// The highest version number that a record of (account, path) has; 0 if there is none. A record that was renamed took
    /// its number with it, and gave it up.
    async fn highest_version(&self, account: &AccountName, path: &VirtualPath) -> Result<u32, StateError>;

    /// Marks uploads as answered ([`Upload::answered`]), without a change of revision: it says only that the client is known
    /// to have its OK, and must not get in the way of a worker. Ids that are not there are skipped.
    async fn mark_answered(&self, ids: &[UploadId]) -> Result<(), StateError>;

    /// Inline content of an upload.
    async fn inline(&self, id: UploadId) -> Result<Option<Bytes>, StateError>;

    /// One directory, whether it still shows anywhere or not.
    async fn directory(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<Directory>, StateError>;

    /// Directories directly below `parent` (a path under `/upload`) that show in `area`, by name, names after `after`.
    async fn directories(
        &self,
        account: &AccountName,
        parent: &VirtualPath,
        area: Area,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Directory>, StateError>;

    /// One entry of an account's `/inbox`, removed or not.
    async fn inbox_entry(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<InboxEntry>, StateError>;

    /// Entries of an account's `/inbox` that were not removed, by name, names after `after`.
    async fn inbox(
        &self,
        account: &AccountName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StateError>;

    /// What an account has sent: its uploads that are complete, aborted ones not counted, of all times or opened at `since`
    /// or later.
    async fn usage(&self, account: &AccountName, since: Option<Timestamp>) -> Result<Usage, StateError>;

    /// One account, removed ones included.
    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError>;

    /// Several accounts at once: for the watch over live sessions.
    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError>;

    /// All accounts by name, names after `after`.
    async fn list_accounts(
        &self,
        after: Option<&AccountName>,
        limit: usize,
    ) -> Result<Vec<Account>, StateError>;

    /// One token, revoked ones included.
    async fn token(&self, id: TokenId) -> Result<Option<Token>, StateError>;

    /// All tokens by id, ids after `after`.
    async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Token>, StateError>;

    /// Audit entries by query.
    async fn audit(&self, query: AuditQuery) -> Result<Vec<StoredAudit>, StateError>;

    /// Outbox entries of one kind that are due (`not_before` passed), in the order in which they were stored.
    async fn outbox_due(
        &self,
        kind: OutboxKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, StateError>;

    /// When the next entry that is not due yet becomes due.
    async fn outbox_next_due(&self) -> Result<Option<Timestamp>, StateError>;

    /// Marks outbox entries as handled. Marking twice is fine.
    async fn outbox_done(&self, ids: &[OutboxId]) -> Result<(), StateError>;

    /// Puts off outbox entries: they are due again at `until`. Those that are marked as handled stay so.
    async fn outbox_defer(&self, ids: &[OutboxId], until: Timestamp) -> Result<(), StateError>;

    /// Puts events into the log, in order, giving each the next position and its partner's next sequence number, and
    /// returns them as logged. An event that is in the log already keeps its numbers and is returned with them.
    async fn log_events(&self, events: Vec<Event>) -> Result<Vec<LoggedEvent>, StateError>;

    /// Logged events after a position, of one partner or of all, in order.
    async fn events_after(
        &self,
        position: u64,
        partner: Option<&PartnerName>,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, StateError>;

    /// How far a named reader of the event log has come: the position it handled last, 0 at first.
    async fn cursor(&self, reader: &str) -> Result<u64, StateError>;

    /// Records that a named reader has handled the log up to `position`. A cursor never goes back: a lower position
    /// changes nothing.
    async fn advance_cursor(&self, reader: &str, position: u64) -> Result<(), StateError>;

    /// Takes or renews a named lease for `holder`. Returns the lease's token, which rises with every change of holder,
    /// or none if another holder has it and its counter moved within `ttl` of this observer's monotonic clock.
    async fn lease(&self, name: &str, holder: InstanceId, ttl: Duration) -> Result<Option<u64>, StateError>;

    /// Gives a lease back, if `holder` has it.
    async fn release_lease(&self, name: &str, holder: InstanceId) -> Result<(), StateError>;

    /// Raises the heartbeat counter of an instance, making it known if it was not.
    async fn heartbeat(&self, id: InstanceId, role: &str, node: &str) -> Result<(), StateError>;

    /// All instances that ever beat and were not forgotten.
    async fn instances(&self) -> Result<Vec<Instance>, StateError>;

    /// Reserves `(destination, key)` for an upload path, so that two paths can't be delivered to one key. True if it is
    /// this path's now (or was already), false if it belongs to another path.
    async fn reserve_key(
        &self,
        destination: &str,
        key: &str,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<bool, StateError>;

    /// Counts for status and metrics.
    async fn backlog(&self) -> Result<Backlog, StateError>;

    /// Waits until something may have changed, by this process or another, but not longer than `at_most`. May return
    /// early without a reason.
    async fn changed(&self, at_most: Duration);

    /// Whether the store answers and can be written to; for readiness.
    async fn check(&self) -> Result<(), StateError>;

    /// Finishes what was begun and lets go of the store's resources; for the end of the process. Later calls are answered
    /// with [`StateError::Unavailable`] or not refused at all.
    async fn close(&self) {}
}
