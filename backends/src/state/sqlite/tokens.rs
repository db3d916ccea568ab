//! Operators' tokens.

use super::{
    MOST,
    apply::{check_revision, document},
    fault::Outcome,
};
use crate::state::StateError;
use dropgate_schemas::{id::TokenId, token::Token};
use rusqlite::{Connection, OptionalExtension as _, params};

/// A token, ready to be written.
pub(super) struct Row {
    token: Token,
    revision: u64,
    doc: String,
}

impl Row {
    pub(super) fn new(mut token: Token) -> Result<Self, StateError> {
        let revision = token.revision;
        token.revision += 1;
        Ok(Self { doc: document(&token)?, revision, token })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<u64> {
        let id = *self.token.id.uuid().as_bytes();
        let mut statement = db.prepare_cached("SELECT revision FROM tokens WHERE id = ?1")?;
        let stored: Option<u64> = statement.query_row([id], |row| row.get(0)).optional()?;
        check_revision(|| format!("token {}", self.token.id), self.revision, stored)?;
        db.prepare_cached("INSERT OR REPLACE INTO tokens (id, revision, doc) VALUES (?1, ?2, ?3)")?
            .execute(params![id, self.token.revision, self.doc])?;
        Ok(self.token.revision)
    }
}

fn read(doc: &str) -> Result<Token, StateError> {
    serde_json::from_str(doc)
        .map_err(|e| StateError::Corrupt(format!("the record of a token can't be read: {e}")))
}

/// One token.
pub(super) fn one(db: &Connection, id: TokenId) -> Outcome<Option<Token>> {
    let mut statement = db.prepare_cached("SELECT doc FROM tokens WHERE id = ?1")?;
    let doc: Option<String> = statement.query_row([id.uuid().as_bytes()], |row| row.get(0)).optional()?;
    Ok(doc.as_deref().map(read).transpose()?)
}

/// All tokens by id.
pub(super) fn list(db: &Connection, after: Option<TokenId>, limit: usize) -> Outcome<Vec<Token>> {
    let mut statement = db.prepare_cached("SELECT doc FROM tokens WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let after = after.map_or_else(Vec::new, |id| id.uuid().as_bytes().to_vec());
    let mut rows = statement.query(params![after, limit.min(MOST)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}
