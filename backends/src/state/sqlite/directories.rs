//! Directories.

use super::{
    MOST,
    apply::{check_revision, document},
    fault::Outcome,
};
use crate::state::StateError;
use dropgate_schemas::{
    account::AccountName,
    directory::Directory,
    path::{Area, VirtualPath},
};
use rusqlite::{Connection, OptionalExtension as _, params};

/// A directory, ready to be written.
pub(super) struct Row {
    directory: Directory,
    revision: u64,
    doc: String,
}

impl Row {
    pub(super) fn new(mut directory: Directory) -> Result<Self, StateError> {
        let revision = directory.revision;
        directory.revision += 1;
        Ok(Self { doc: document(&directory)?, revision, directory })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<u64> {
        let directory = &self.directory;
        let (dir_key, name_key) = (directory.path.parent(), directory.path.name_key());
        let mut statement = db.prepare_cached(
            "SELECT revision FROM directories WHERE account = ?1 AND dir_key = ?2 AND name_key = ?3",
        )?;
        let stored: Option<u64> = statement
            .query_row((directory.account.as_str(), dir_key.key(), name_key), |row| row.get(0))
            .optional()?;
        let what = || format!("directory {} of account {}", directory.path, directory.account);
        check_revision(what, self.revision, stored)?;
        db.prepare_cached(
            "INSERT OR REPLACE INTO directories
             (account, path_key, dir_key, name_key, in_upload, in_sent, in_failed, revision, doc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            directory.account.as_str(),
            directory.path.key(),
            dir_key.key(),
            name_key,
            directory.in_upload,
            directory.in_sent,
            directory.in_failed,
            directory.revision,
            self.doc,
        ])?;
        Ok(directory.revision)
    }
}

fn read(doc: &str) -> Result<Directory, StateError> {
    serde_json::from_str(doc)
        .map_err(|e| StateError::Corrupt(format!("the record of a directory can't be read: {e}")))
}

/// One directory.
pub(super) fn one(db: &Connection, account: &AccountName, path: &VirtualPath) -> Outcome<Option<Directory>> {
    let mut statement = db.prepare_cached(
        "SELECT doc FROM directories WHERE account = ?1 AND dir_key = ?2 AND name_key = ?3",
    )?;
    let doc: Option<String> = statement
        .query_row((account.as_str(), path.parent().key(), path.name_key()), |row| row.get(0))
        .optional()?;
    Ok(doc.as_deref().map(read).transpose()?)
}

/// Directories directly below `parent` that show in `area`, by name.
pub(super) fn list(
    db: &Connection,
    account: &AccountName,
    parent: &VirtualPath,
    area: Area,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<Directory>> {
    let shown = match area {
        Area::Upload => "in_upload",
        Area::Sent => "in_sent",
        Area::Failed => "in_failed",
        Area::Inbox => return Ok(Vec::new()),
    };
    let mut statement = db.prepare_cached(&format!(
        "SELECT doc FROM directories WHERE account = ?1 AND dir_key = ?2 AND name_key > ?3 AND {shown}
         ORDER BY name_key LIMIT ?4"
    ))?;
    // No name is empty, so every name comes after the empty one.
    let after = after.unwrap_or_default();
    let mut rows = statement.query(params![account.as_str(), parent.key(), after, limit.min(MOST)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
