//! The state store of a cluster: a MongoDB database that every process opens.
//!
//! Nothing here needs a transaction. A change is one write of one document, which holds the record, and until they are placed
//! its audit entries and follow-ups ([`apply`], [`placing`]); everything else is a conditional write or a unique index. Writes
//! are confirmed by a majority of the servers, those that must survive a power cut also by their journals; reads see what a
//! majority confirmed, on the primary.
//!
//! [`collections`] lists what is kept where.

mod accounts;
mod apply;
mod audit;
mod backlog;
mod collections;
mod configured;
mod directories;
mod document;
mod events;
mod failure;
mod fault;
mod find;
mod inbox;
mod leases;
mod open;
mod outbox;
mod placing;
mod schema;
#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;
mod tokens;
mod watch;

pub(crate) use configured::open_configured;

use crate::state::{
    AuditQuery, Backlog, Instance, LoggedEvent, StateError, StateStore, StoredAudit, UploadQuery, Usage,
    lease::Observed,
};
use ::mongodb::bson::doc;
use async_trait::async_trait;
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
use std::{sync::Arc, time::Duration};

/// Most that one query gives out, whatever it asks for.
const MOST: usize = 1_000;

/// Connects to the database, checks that it is ours and of this version, and makes the collections and indexes that are
/// missing. Fails if the server can't be reached or does not let us in, or if what is there is another program's, a newer
/// version's, or not what we rely on; no record was changed then.
async fn open(settings: &open::Settings) -> Result<Arc<dyn StateStore>, failure::OpenFailure> {
    let database = open::Database::open(settings).await?;
    Ok(Arc::new(MongoStore { database, observed: Observed::default() }))
}

/// The state store in a MongoDB database.
struct MongoStore {
    database: Arc<open::Database>,
    observed: Observed,
}

#[async_trait]
impl StateStore for MongoStore {
    async fn apply(&self, change: Change) -> Result<u64, StateError> {
        let prepared = apply::Prepared::new(change)?;
        let revision = prepared.run(&self.database).await?;
        self.database.watch.ring();
        if prepared.has_entries() {
            self.database.placing.wake();
        }
        Ok(revision)
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, StateError> {
        Ok(find::one(&self.database, id).await?)
    }

    async fn find(&self, query: UploadQuery) -> Result<Vec<Upload>, StateError> {
        Ok(find::find(&self.database, &query).await?)
    }

    async fn highest_version(&self, account: &AccountName, path: &VirtualPath) -> Result<u32, StateError> {
        Ok(find::highest_version(&self.database, account, path).await?)
    }

    async fn mark_answered(&self, ids: &[UploadId]) -> Result<(), StateError> {
        for ids in ids.chunks(MOST) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let these = doc! { "_id": { "$in": ids } };
            let these = &these;
            let mark = move || async move {
                let mark =
                    self.database.uploads.update_many(these.clone(), doc! { "$set": { "answered": true } });
                self.database.command(mark.write_concern(open::visible()).into_future()).await
            };
            self.database.insist(mark).await?;
        }
        Ok(())
    }

    async fn inline(&self, id: UploadId) -> Result<Option<Bytes>, StateError> {
        Ok(find::inline(&self.database, id).await?)
    }

    async fn directory(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<Directory>, StateError> {
        Ok(directories::one(&self.database, account, path).await?)
    }

    async fn directories(
        &self,
        account: &AccountName,
        parent: &VirtualPath,
        area: Area,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Directory>, StateError> {
        Ok(directories::list(&self.database, account, parent, area, after, limit).await?)
    }

    async fn inbox_entry(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<InboxEntry>, StateError> {
        Ok(inbox::one(&self.database, account, path).await?)
    }

    async fn inbox(
        &self,
        account: &AccountName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StateError> {
        Ok(inbox::list(&self.database, account, after, limit).await?)
    }

    async fn usage(&self, account: &AccountName, since: Option<Timestamp>) -> Result<Usage, StateError> {
        Ok(find::usage(&self.database, account, since).await?)
    }

    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        Ok(accounts::one(&self.database, name).await?)
    }

    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        Ok(accounts::several(&self.database, names).await?)
    }

    async fn list_accounts(
        &self,
        after: Option<&AccountName>,
        limit: usize,
    ) -> Result<Vec<Account>, StateError> {
        Ok(accounts::list(&self.database, after, limit).await?)
    }

    async fn token(&self, id: TokenId) -> Result<Option<Token>, StateError> {
        Ok(tokens::one(&self.database, id).await?)
    }

    async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Token>, StateError> {
        Ok(tokens::list(&self.database, after, limit).await?)
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<StoredAudit>, StateError> {
        self.database.placing.place(&self.database).await?;
        Ok(audit::find(&self.database, &query).await?)
    }

    async fn outbox_due(
        &self,
        kind: OutboxKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, StateError> {
        self.database.placing.place(&self.database).await?;
        Ok(outbox::due(&self.database, kind, now, limit).await?)
    }

    async fn outbox_next_due(&self) -> Result<Option<Timestamp>, StateError> {
        self.database.placing.place(&self.database).await?;
        Ok(outbox::next_due(&self.database, Timestamp::now()).await?)
    }

    async fn outbox_done(&self, ids: &[OutboxId]) -> Result<(), StateError> {
        outbox::done(&self.database, ids).await
    }

    async fn outbox_defer(&self, ids: &[OutboxId], until: Timestamp) -> Result<(), StateError> {
        outbox::defer(&self.database, ids, until).await
    }

    async fn log_events(&self, events: Vec<Event>) -> Result<Vec<LoggedEvent>, StateError> {
        let logged = events::log(&self.database, &events).await?;
        if !logged.is_empty() {
            self.database.watch.ring();
        }
        Ok(logged)
    }

    async fn events_after(
        &self,
        position: u64,
        partner: Option<&PartnerName>,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, StateError> {
        Ok(events::after(&self.database, position, partner, limit).await?)
    }

    async fn cursor(&self, reader: &str) -> Result<u64, StateError> {
        Ok(events::cursor(&self.database, reader).await?)
    }

    async fn advance_cursor(&self, reader: &str, position: u64) -> Result<(), StateError> {
        Ok(events::advance(&self.database, reader, position).await?)
    }

    async fn lease(&self, name: &str, holder: InstanceId, ttl: Duration) -> Result<Option<u64>, StateError> {
        leases::take(&self.database, &self.observed, name, holder, ttl).await
    }

    async fn release_lease(&self, name: &str, holder: InstanceId) -> Result<(), StateError> {
        leases::release(&self.database, name, holder).await?;
        self.database.watch.ring();
        Ok(())
    }

    async fn heartbeat(&self, id: InstanceId, role: &str, node: &str) -> Result<(), StateError> {
        Ok(leases::heartbeat(&self.database, id, role, node).await?)
    }

    async fn instances(&self) -> Result<Vec<Instance>, StateError> {
        Ok(leases::instances(&self.database).await?)
    }

    async fn reserve_key(
        &self,
        destination: &str,
        key: &str,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<bool, StateError> {
        Ok(leases::reserve(&self.database, destination, key, account, path).await?)
    }

    async fn backlog(&self) -> Result<Backlog, StateError> {
        self.database.placing.place(&self.database).await?;
        Ok(backlog::count(&self.database).await?)
    }

    async fn changed(&self, at_most: Duration) {
        self.database.watch.changed(at_most).await;
    }

    async fn check(&self) -> Result<(), StateError> {
        // A change of nothing that matters, to see whether it can be written to.
        let probe = doc! { "$inc": { "checks": 1_i64 } };
        Ok(self.database.upsert(&self.database.meta, doc! { "_id": "probe" }, probe).await?)
    }

    async fn close(&self) {
        self.database.close().await;
    }
}
