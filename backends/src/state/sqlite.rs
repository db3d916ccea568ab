//! The embedded state store: one SQLite file, opened by every role of one data directory.
//!
//! All writes of a process go through one thread that puts everything waiting into one transaction ([`writer`]), so that
//! many small changes share one sync. Reads go past it on connections of their own ([`readers`]) and see every write that
//! returned before, from any process, because a read begins with the last commit.
//!
//! The file must be opened by SQLite only: closing any other descriptor of it in the same process would drop the locks
//! that the connections hold (POSIX locks belong to the process, not to the descriptor).

mod accounts;
mod apply;
mod audit;
mod backlog;
mod clock;
mod directories;
mod events;
mod failure;
mod fault;
mod find;
mod inbox;
mod leases;
#[cfg(feature = "mongodb")]
mod left;
mod open;
mod outbox;
mod place;
mod readers;
mod schema;
mod tokens;
mod watch;
mod writer;

pub(crate) use clock::boot_millis;
pub(crate) use failure::OpenFailure;
pub(crate) use fault::Outcome;
#[cfg(feature = "mongodb")]
pub(crate) use left::{Left, left};
pub(crate) use open::Database;
pub(crate) use watch::Bell;

use crate::{
    queue::{JobQueue, sqlite::SqliteQueue},
    state::{
        AuditQuery, Backlog, Instance, LoggedEvent, StateError, StateStore, StoredAudit, UploadQuery, Usage,
        lease::Observed,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    change::{Change, Durability, OutboxEntry, OutboxKind},
    directory::Directory,
    event::Event,
    id::{InstanceId, OutboxId, TokenId, UploadId},
    inbox::InboxEntry,
    path::{Area, VirtualPath},
    time::Timestamp,
    token::Token,
    upload::Upload,
};
use rusqlite::OptionalExtension as _;
use std::{path::Path, sync::Arc, time::Duration};

/// Most that one query gives out, whatever it asks for.
const MOST: usize = 1_000;

/// Most records that are read on the caller's own thread.
const FEW: usize = 16;

/// The two ports that live in the file.
pub(crate) type Ports = (Arc<dyn StateStore>, Arc<dyn JobQueue>);

/// Opens (or makes) the database file and both ports that live in it. They share one writer. Blocks while it looks the
/// file over.
///
/// # Errors
/// [`OpenFailure`] if the file is not a database or is damaged, if it is another program's or a newer version's, if it lies
/// where it can't be used safely, or as the file system says. Nothing in it was changed then.
pub(crate) fn open(path: &Path) -> Result<Ports, OpenFailure> {
    let database = Arc::new(Database::open(path)?);
    let queue = SqliteQueue::new(Arc::clone(&database));
    Ok((Arc::new(SqliteStore { database, observed: Observed::default() }), Arc::new(queue)))
}

/// The state store in a SQLite file.
struct SqliteStore {
    database: Arc<Database>,
    observed: Observed,
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn apply(&self, change: Change) -> Result<u64, StateError> {
        let durability = change.durability;
        let prepared = apply::Prepared::new(change)?;
        self.database.write(durability, Bell::Changed, move |db| prepared.run(db)).await
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>, StateError> {
        self.database.peek(move |db| find::one(db, id)).await
    }

    async fn find(&self, query: UploadQuery) -> Result<Vec<Upload>, StateError> {
        let search = find::Search::new(&query);
        if search.is_small() {
            self.database.peek(move |db| search.run(db)).await
        } else {
            self.database.read(move |db| search.run(db)).await
        }
    }

    async fn highest_version(&self, account: &AccountName, path: &VirtualPath) -> Result<u32, StateError> {
        let (account, path) = (account.as_str().to_owned(), path.key().to_owned());
        self.database
            .peek(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT coalesce(max(version), 0) FROM uploads WHERE account = ?1 AND path_key = ?2",
                )?;
                Ok(statement.query_row((&account, &path), |row| row.get(0))?)
            })
            .await
    }

    async fn mark_answered(&self, ids: &[UploadId]) -> Result<(), StateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        self.database
            .write(Durability::Visible, Bell::None, move |db| {
                let mut mark = db.prepare_cached("UPDATE uploads SET answered = 1 WHERE upload_id = ?1")?;
                for id in &ids {
                    mark.execute([id.uuid().as_bytes()])?;
                }
                Ok(())
            })
            .await
    }

    async fn inline(&self, id: UploadId) -> Result<Option<Bytes>, StateError> {
        self.database
            .peek(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT bytes FROM inline_content WHERE upload = (SELECT id FROM uploads WHERE upload_id = ?1)",
                )?;
                let bytes: Option<Vec<u8>> =
                    statement.query_row([id.uuid().as_bytes()], |row| row.get(0)).optional()?;
                Ok(bytes.map(Bytes::from))
            })
            .await
    }

    async fn directory(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<Directory>, StateError> {
        let (account, path) = (account.clone(), path.clone());
        self.database.peek(move |db| directories::one(db, &account, &path)).await
    }

    async fn directories(
        &self,
        account: &AccountName,
        parent: &VirtualPath,
        area: Area,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Directory>, StateError> {
        let (account, parent, after) = (account.clone(), parent.clone(), after.map(str::to_owned));
        let list = move |db: &rusqlite::Connection| {
            directories::list(db, &account, &parent, area, after.as_deref(), limit)
        };
        self.database.read(list).await
    }

    async fn inbox_entry(
        &self,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<Option<InboxEntry>, StateError> {
        let (account, path) = (account.clone(), path.clone());
        self.database.peek(move |db| inbox::one(db, &account, &path)).await
    }

    async fn inbox(
        &self,
        account: &AccountName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, StateError> {
        let (account, after) = (account.clone(), after.map(str::to_owned));
        self.database.read(move |db| inbox::list(db, &account, after.as_deref(), limit)).await
    }

    async fn usage(&self, account: &AccountName, since: Option<Timestamp>) -> Result<Usage, StateError> {
        let (account, since) = (account.clone(), since.map_or(i64::MIN, Timestamp::millis));
        self.database
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT count(*), coalesce(sum(bytes), 0) FROM uploads INDEXED BY uploads_by_usage
                     WHERE account = ?1 AND opened_at >= ?2 AND bytes IS NOT NULL",
                )?;
                let usage = |row: &rusqlite::Row<'_>| Ok(Usage { uploads: row.get(0)?, bytes: row.get(1)? });
                Ok(statement.query_row((account.as_str(), since), usage)?)
            })
            .await
    }

    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        let name = name.clone();
        self.database.peek(move |db| accounts::one(db, &name)).await
    }

    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        let names = names.to_vec();
        self.database
            .read(move |db| names.iter().filter_map(|name| accounts::one(db, name).transpose()).collect())
            .await
    }

    async fn list_accounts(
        &self,
        after: Option<&AccountName>,
        limit: usize,
    ) -> Result<Vec<Account>, StateError> {
        let after = after.cloned();
        self.database.read(move |db| accounts::list(db, after.as_ref(), limit)).await
    }

    async fn token(&self, id: TokenId) -> Result<Option<Token>, StateError> {
        self.database.peek(move |db| tokens::one(db, id)).await
    }

    async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Token>, StateError> {
        self.database.read(move |db| tokens::list(db, after, limit)).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<StoredAudit>, StateError> {
        self.database.read(move |db| audit::find(db, &query)).await
    }

    async fn outbox_due(
        &self,
        kind: OutboxKind,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, StateError> {
        // Mostly there is little or nothing.
        let few = limit.min(FEW);
        let first = self.database.peek(move |db| outbox::due(db, kind, now, few)).await?;
        if first.len() < few || few == limit {
            return Ok(first);
        }
        self.database.read(move |db| outbox::due(db, kind, now, limit)).await
    }

    async fn outbox_next_due(&self) -> Result<Option<Timestamp>, StateError> {
        self.database.peek(|db| outbox::next_due(db, Timestamp::now())).await
    }

    async fn outbox_done(&self, ids: &[OutboxId]) -> Result<(), StateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        // What is lost in a power cut is done once more, which every follow-up has to bear anyway.
        self.database.write(Durability::Visible, Bell::None, move |db| outbox::done(db, &ids)).await
    }

    async fn outbox_defer(&self, ids: &[OutboxId], until: Timestamp) -> Result<(), StateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        self.database.write(Durability::Visible, Bell::None, move |db| outbox::defer(db, &ids, until)).await
    }

    async fn log_events(&self, events: Vec<Event>) -> Result<Vec<LoggedEvent>, StateError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Durable: a position that was published must never be given to another event.
        self.database.write(Durability::Durable, Bell::Changed, move |db| events::log(db, &events)).await
    }

    async fn events_after(
        &self,
        position: u64,
        partner: Option<&PartnerName>,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, StateError> {
        let partner = partner.cloned();
        self.database.read(move |db| events::after(db, position, partner.as_ref(), limit)).await
    }

    async fn cursor(&self, reader: &str) -> Result<u64, StateError> {
        let reader = reader.to_owned();
        self.database.peek(move |db| events::cursor(db, &reader)).await
    }

    async fn advance_cursor(&self, reader: &str, position: u64) -> Result<(), StateError> {
        let reader = reader.to_owned();
        self.database
            .write(Durability::Visible, Bell::None, move |db| events::advance(db, &reader, position))
            .await
    }

    async fn lease(&self, name: &str, holder: InstanceId, ttl: Duration) -> Result<Option<u64>, StateError> {
        leases::take(&self.database, &self.observed, name, holder, ttl).await
    }

    async fn release_lease(&self, name: &str, holder: InstanceId) -> Result<(), StateError> {
        let name = name.to_owned();
        self.database
            .write(Durability::Visible, Bell::Changed, move |db| leases::release(db, &name, holder))
            .await
    }

    async fn heartbeat(&self, id: InstanceId, role: &str, node: &str) -> Result<(), StateError> {
        let (role, node) = (role.to_owned(), node.to_owned());
        self.database
            .write(Durability::Visible, Bell::None, move |db| leases::heartbeat(db, id, &role, &node))
            .await
    }

    async fn instances(&self) -> Result<Vec<Instance>, StateError> {
        self.database.peek(leases::instances).await
    }

    async fn reserve_key(
        &self,
        destination: &str,
        key: &str,
        account: &AccountName,
        path: &VirtualPath,
    ) -> Result<bool, StateError> {
        let (destination, key) = (destination.to_owned(), key.to_owned());
        let (account, path) = (account.as_str().to_owned(), path.key().to_owned());
        self.database
            .write(Durability::Visible, Bell::None, move |db| {
                db.prepare_cached(
                    "INSERT INTO key_reservations (destination, key, account, path_key) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                )?
                .execute((&destination, &key, &account, &path))?;
                let mut statement = db.prepare_cached(
                    "SELECT account = ?3 AND path_key = ?4 FROM key_reservations WHERE destination = ?1 AND key = ?2",
                )?;
                Ok(statement.query_row((&destination, &key, &account, &path), |row| row.get(0))?)
            })
            .await
    }

    async fn backlog(&self) -> Result<Backlog, StateError> {
        self.database.read(backlog::count).await
    }

    async fn changed(&self, at_most: Duration) {
        self.database.watch().changed(at_most).await;
    }

    async fn check(&self) -> Result<(), StateError> {
        // A change of nothing that matters, to see whether there is room to write.
        self.database
            .write(Durability::Visible, Bell::None, |db| {
                db.prepare_cached("UPDATE probe SET checks = checks + 1")?.execute([])?;
                Ok(())
            })
            .await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

#[cfg(test)]
mod tests;
