//! A state store that fails, or makes wait, when it is told to, in front of the real one.

use async_trait::async_trait;
use bytes::Bytes;
use dropgate_backends::{
    AuditQuery, StateError, StateStore, UploadQuery,
    state::{Backlog, Instance, LoggedEvent, StoredAudit, Usage},
};
use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    change::{Change, OutboxEntry, OutboxKind, Subject},
    directory::Directory,
    event::Event,
    id::{InstanceId, OutboxId, TokenId, UploadId},
    inbox::InboxEntry,
    path::{Area, VirtualPath},
    time::Timestamp,
    token::Token,
    upload::{Upload, UploadState},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// What it is asked for.
    Well,
    /// The next write is made, but nobody hears of it.
    ForgetsAnAnswer,
    /// No write is made and no upload read.
    Down,
    /// The writes that end a CLOSE wait, where the upload's path begins like this.
    Holds(&'static str),
}

pub(crate) struct Shaky {
    inner: Arc<dyn StateStore>,
    mood: watch::Sender<Mood>,
    /// How many writes came to wait.
    held: watch::Sender<usize>,
}

impl Shaky {
    pub(crate) fn new(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self { inner, mood: watch::Sender::new(Mood::Well), held: watch::Sender::new(0) })
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn mood(&self) -> Mood {
        *self.mood.borrow()
    }

    /// Waits until so many writes came to wait.
    pub(crate) async fn holds(&self, writes: usize) {
        let mut held = self.held.subscribe();
        let waiting = held.wait_for(|held| *held >= writes);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    }

    /// Makes a write that ends a CLOSE wait for better times.
    async fn hold(&self, change: &Change) {
        let Subject::Upload { upload, .. } = &change.subject else { return };
        let held = |mood: &Mood| {
            matches!(mood, Mood::Holds(path) if upload.path.as_str().starts_with(path))
                && matches!(upload.state, UploadState::Held | UploadState::Committed)
        };
        if held(&self.mood()) {
            self.held.send_modify(|held| *held += 1);
            self.mood.subscribe().wait_for(|mood| !held(mood)).await.unwrap();
        }
    }
}

fn down<T>() -> Result<T, StateError> {
    Err(StateError::Unavailable("told to".to_owned()))
}

#[async_trait]
impl StateStore for Shaky {
    async fn apply(&self, change: Change) -> Result<u64, StateError> {
        self.hold(&change).await;
        match self.mood() {
            Mood::Well | Mood::Holds(_) => self.inner.apply(change).await,
            Mood::ForgetsAnAnswer => {
                self.is(Mood::Well);
                self.inner.apply(change).await?;
                down()
            }
            Mood::Down => down(),
        }
    }
    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, StateError> {
        if self.mood() == Mood::Down { down() } else { self.inner.upload(id).await }
    }
    async fn find(&self, query: UploadQuery) -> Result<Vec<Upload>, StateError> {
        self.inner.find(query).await
    }
    async fn highest_version(&self, account: &AccountName, path: &VirtualPath) -> Result<u32, StateError> {
        self.inner.highest_version(account, path).await
    }
    async fn mark_answered(&self, ids: &[UploadId]) -> Result<(), StateError> {
        self.inner.mark_answered(ids).await
    }
    async fn inline(&self, id: UploadId) -> Result<Option<Bytes>, StateError> {
        self.inner.inline(id).await
    }
    async fn directory(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<Directory>, StateError> {
        self.inner.directory(account, path).await
    }
    async fn directories(
        &self,
        account: &AccountName,
        parent: &VirtualPath,
        area: Area,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Directory>, StateError> {
        self.inner.directories(account, parent, area, after, limit).await
    }
    async fn inbox_entry(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<InboxEntry>, StateError> {
        self.inner.inbox_entry(account, path).await
    }
    async fn inbox(
        &self,
        account: &AccountName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StateError> {
        self.inner.inbox(account, after, limit).await
    }
    async fn usage(&self, account: &AccountName, since: Option<Timestamp>) -> Result<Usage, StateError> {
        if self.mood() == Mood::Down { down() } else { self.inner.usage(account, since).await }
    }
    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        self.inner.account(name).await
    }
    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        self.inner.accounts(names).await
    }
    async fn list_accounts(
        &self,
        after: Option<&AccountName>,
        limit: usize,
    ) -> Result<Vec<Account>, StateError> {
        self.inner.list_accounts(after, limit).await
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, StateError> {
        self.inner.token(id).await
    }
    async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Token>, StateError> {
        self.inner.list_tokens(after, limit).await
    }
    async fn audit(&self, query: AuditQuery) -> Result<Vec<StoredAudit>, StateError> {
        self.inner.audit(query).await
    }
    async fn outbox_due(
        &self,
        kind: OutboxKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, StateError> {
        self.inner.outbox_due(kind, now, limit).await
    }
    async fn outbox_next_due(&self) -> Result<Option<Timestamp>, StateError> {
        self.inner.outbox_next_due().await
    }
    async fn outbox_done(&self, ids: &[OutboxId]) -> Result<(), StateError> {
        self.inner.outbox_done(ids).await
    }
    async fn outbox_defer(&self, ids: &[OutboxId], until: Timestamp) -> Result<(), StateError> {
        self.inner.outbox_defer(ids, until).await
    }
    async fn log_events(&self, events: Vec<Event>) -> Result<Vec<LoggedEvent>, StateError> {
        self.inner.log_events(events).await
    }
    async fn events_after(
        &self,
        position: u64,
        partner: Option<&PartnerName>,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, StateError> {
        self.inner.events_after(position, partner, limit).await
    }
    async fn cursor(&self, reader: &str) -> Result<u64, StateError> {
        self.inner.cursor(reader).await
    }
    async fn advance_cursor(&self, reader: &str, position: u64) -> Result<(), StateError> {
        self.inner.advance_cursor(reader, position).await
    }
    async fn lease(&self, name: &str, holder: InstanceId, ttl: Duration) -> Result<Option<u64>, StateError> {
        self.inner.lease(name, holder, ttl).await
    }
    async fn release_lease(&self, name: &str, holder: InstanceId) -> Result<(), StateError> {
        self.inner.release_lease(name, holder).await
    }
    async fn heartbeat(&self, id: InstanceId, role: &str, node: &str) -> Result<(), StateError> {
        self.inner.heartbeat(id, role, node).await
    }
    async fn instances(&self) -> Result<Vec<Instance>, StateError> {
        self.inner.instances().await
    }
    async fn reserve_key(
        &self,
        destination: &str,
        key: &str,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<bool, StateError> {
        self.inner.reserve_key(destination, key, account, path).await
    }
    async fn backlog(&self) -> Result<Backlog, StateError> {
        self.inner.backlog().await
    }
    async fn changed(&self, at_most: Duration) {
        self.inner.changed(at_most).await
    }
    async fn check(&self) -> Result<(), StateError> {
        self.inner.check().await
    }
}
