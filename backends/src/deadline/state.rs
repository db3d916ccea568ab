use super::{Failure, deadlines, sentence};
use crate::state::{
    AuditQuery, Backlog, Instance, LoggedEvent, StateError, StateStore, StoredAudit, UploadQuery, Usage,
};
use bytes::Bytes;
use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    change::{Change, OutboxEntry, OutboxKind},
    directory::Directory,
    event::Event,
    id::{InstanceId, OutboxId, TokenId, UploadId},
    inbox::InboxEntry,
    path::{Area, VirtualPath},
    time::Timestamp,
    token::Token,
    upload::Upload,
};
use std::time::Duration;

impl Failure for StateError {
    fn late(after: Duration) -> Self {
        Self::Unavailable(sentence(after))
    }
    fn is_ours(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Conflict { .. } => false,
            Self::Full(_) | Self::Unavailable(_) | Self::Rejected(_) | Self::Corrupt(_) => true,
        }
    }
}

deadlines! { StateStore, StateError, ErrorsState {
    async fn apply(&self, change: Change) -> u64;
    async fn upload(&self, id: UploadId) -> Option<Upload>;
    async fn find(&self, query: UploadQuery) -> Vec<Upload>;
    async fn highest_version(&self, account: &AccountName, path: &VirtualPath) -> u32;
    async fn mark_answered(&self, ids: &[UploadId]) -> ();
    async fn inline(&self, id: UploadId) -> Option<Bytes>;
    async fn directory(&self, account: &AccountName, path: &VirtualPath) -> Option<Directory>;
    async fn directories(
        &self,
        account: &AccountName,
        parent: &VirtualPath,
        area: Area,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Directory>;
    async fn inbox_entry(&self, account: &AccountName, path: &VirtualPath) -> Option<InboxEntry>;
    async fn inbox(&self, account: &AccountName, after: Option<&str>, limit: usize) -> Vec<InboxEntry>;
    async fn usage(&self, account: &AccountName, since: Option<Timestamp>) -> Usage;
    async fn account(&self, name: &AccountName) -> Option<Account>;
    async fn accounts(&self, names: &[AccountName]) -> Vec<Account>;
    async fn list_accounts(&self, after: Option<&AccountName>, limit: usize) -> Vec<Account>;
    async fn token(&self, id: TokenId) -> Option<Token>;
    async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Vec<Token>;
    async fn audit(&self, query: AuditQuery) -> Vec<StoredAudit>;
    async fn outbox_due(&self, kind: OutboxKind, now: Timestamp, limit: usize) -> Vec<OutboxEntry>;
    async fn outbox_next_due(&self) -> Option<Timestamp>;
    async fn outbox_done(&self, ids: &[OutboxId]) -> ();
    async fn outbox_defer(&self, ids: &[OutboxId], until: Timestamp) -> ();
    async fn log_events(&self, events: Vec<Event>) -> Vec<LoggedEvent>;
    async fn events_after(
        &self,
        position: u64,
        partner: Option<&PartnerName>,
        limit: usize,
    ) -> Vec<LoggedEvent>;
    async fn cursor(&self, reader: &str) -> u64;
    async fn advance_cursor(&self, reader: &str, position: u64) -> ();
    async fn lease(&self, name: &str, holder: InstanceId, ttl: Duration) -> Option<u64>;
    async fn release_lease(&self, name: &str, holder: InstanceId) -> ();
    async fn heartbeat(&self, id: InstanceId, role: &str, node: &str) -> ();
    async fn instances(&self) -> Vec<Instance>;
    async fn reserve_key(
        &self,
        destination: &str,
        key: &str,
        account: &AccountName,
        path: &VirtualPath,
    ) -> bool;
    async fn backlog(&self) -> Backlog;
    async fn check(&self) -> ();
}
    async fn changed(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most + self.limit, self.inner.changed(at_most)).await;
    }

    async fn close(&self) {
        let _ = tokio::time::timeout(self.limit, self.inner.close()).await;
    }
}
