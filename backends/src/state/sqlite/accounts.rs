//! Accounts.

use super::{
    MOST,
    apply::{check_revision, document},
    fault::Outcome,
};
use crate::state::StateError;
use dropgate_schemas::account::{Account, AccountName};
use rusqlite::{Connection, OptionalExtension as _, params};

/// An account, ready to be written.
pub(super) struct Row {
    account: Account,
    revision: u64,
    doc: String,
}

impl Row {
    pub(super) fn new(mut account: Account) -> Result<Self, StateError> {
        let revision = account.revision;
        account.revision += 1;
        Ok(Self { doc: document(&account)?, revision, account })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<u64> {
        let name = self.account.name.as_str();
        let mut statement = db.prepare_cached("SELECT revision FROM accounts WHERE name = ?1")?;
        let stored: Option<u64> = statement.query_row([name], |row| row.get(0)).optional()?;
        check_revision(|| format!("account {name}"), self.revision, stored)?;
        db.prepare_cached("INSERT OR REPLACE INTO accounts (name, revision, doc) VALUES (?1, ?2, ?3)")?
            .execute(params![name, self.account.revision, self.doc])?;
        Ok(self.account.revision)
    }
}

fn read(doc: &str) -> Result<Account, StateError> {
    serde_json::from_str(doc)
        .map_err(|e| StateError::Corrupt(format!("the record of an account can't be read: {e}")))
}

/// One account.
pub(super) fn one(db: &Connection, name: &AccountName) -> Outcome<Option<Account>> {
    let mut statement = db.prepare_cached("SELECT doc FROM accounts WHERE name = ?1")?;
    let doc: Option<String> = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
    Ok(doc.as_deref().map(read).transpose()?)
}

/// All accounts by name.
pub(super) fn list(db: &Connection, after: Option<&AccountName>, limit: usize) -> Outcome<Vec<Account>> {
    let mut statement =
        db.prepare_cached("SELECT doc FROM accounts WHERE name > ?1 ORDER BY name LIMIT ?2")?;
    let after = after.map_or("", AccountName::as_str);
    let mut rows = statement.query(params![after, limit.min(MOST)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
