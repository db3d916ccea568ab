//! Entries of `/inbox`.

use super::{
    MOST,
    apply::{check_revision, document},
    fault::Outcome,
};
use crate::state::StateError;
use dropgate_schemas::{account::AccountName, inbox::InboxEntry, path::VirtualPath};
use rusqlite::{Connection, OptionalExtension as _, params};

/// An entry, ready to be written.
pub(super) struct Row {
    entry: InboxEntry,
    revision: u64,
    doc: String,
}

impl Row {
    pub(super) fn new(mut entry: InboxEntry) -> Result<Self, StateError> {
        let revision = entry.revision;
        entry.revision += 1;
        Ok(Self { doc: document(&entry)?, revision, entry })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<u64> {
        let (account, name_key) = (self.entry.account.as_str(), self.entry.path.name_key());
        let mut statement =
            db.prepare_cached("SELECT revision FROM inbox WHERE account = ?1 AND name_key = ?2")?;
        let stored: Option<u64> = statement.query_row((account, name_key), |row| row.get(0)).optional()?;
        let what = || format!("entry {} of account {account}", self.entry.path);
        check_revision(what, self.revision, stored)?;
        db.prepare_cached(
            "INSERT OR REPLACE INTO inbox (account, name_key, shown, revision, doc) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![account, name_key, self.entry.removed_at.is_none(), self.entry.revision, self.doc])?;
        Ok(self.entry.revision)
    }
}

fn read(doc: &str) -> Result<InboxEntry, StateError> {
    serde_json::from_str(doc)
        .map_err(|e| StateError::Corrupt(format!("the record of an inbox entry can't be read: {e}")))
}

/// One entry, removed or not.
pub(super) fn one(db: &Connection, account: &AccountName, path: &VirtualPath) -> Outcome<Option<InboxEntry>> {
    let mut statement = db.prepare_cached("SELECT doc FROM inbox WHERE account = ?1 AND name_key = ?2")?;
    let doc: Option<String> =
        statement.query_row((account.as_str(), path.name_key()), |row| row.get(0)).optional()?;
    Ok(doc.as_deref().map(read).transpose()?)
}

/// Entries that were not removed, by name.
pub(super) fn list(
    db: &Connection,
    account: &AccountName,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<InboxEntry>> {
    let mut statement = db.prepare_cached(
        "SELECT doc FROM inbox WHERE account = ?1 AND name_key > ?2 AND shown ORDER BY name_key LIMIT ?3",
    )?;
    // No name is empty, so every name comes after the empty one.
    let after = after.unwrap_or_default();
    let mut rows = statement.query(params![account.as_str(), after, limit.min(MOST)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
