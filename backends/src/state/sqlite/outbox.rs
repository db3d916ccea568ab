//! What must follow from changes.

use super::{MOST, apply::document, fault::Outcome};
use crate::state::StateError;
use dropgate_schemas::{
    change::{OutboxEntry, OutboxKind},
    id::OutboxId,
    time::Timestamp,
};
use rusqlite::{Connection, params};

/// An entry, ready to be written.
pub(super) struct Row {
    id: OutboxId,
    kind: &'static str,
    upload: Option<[u8; 16]>,
    due: i64,
    not_before: Option<i64>,
    doc: String,
}

impl Row {
    pub(super) fn new(entry: &OutboxEntry) -> Result<Self, StateError> {
        let not_before = entry.not_before.map(Timestamp::millis);
        Ok(Self {
            id: entry.id,
            kind: entry.message.kind().as_str(),
            upload: entry.upload.map(|id| *id.uuid().as_bytes()),
            due: not_before.unwrap_or_else(|| Timestamp::now().millis()),
            not_before,
            doc: document(entry)?,
        })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<()> {
        let written = db
            .prepare_cached(
                "INSERT INTO outbox (entry_id, kind, upload, due, not_before, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (entry_id) DO NOTHING",
            )?
            .execute(params![bytes(self.id), self.kind, self.upload, self.due, self.not_before, self.doc])?;
        if written == 0 {
            return Err(StateError::Conflict {
                what: format!("outbox entry {}", self.id),
                why: "it exists already".to_owned(),
            }
            .into());
        }
        Ok(())
    }
}

/// Entries of one kind that are due, in the order in which they were stored.
pub(super) fn due(
    db: &Connection,
    kind: OutboxKind,
    now: Timestamp,
    limit: usize,
) -> Outcome<Vec<OutboxEntry>> {
    let mut statement = db.prepare_cached(
        "SELECT doc, not_before FROM outbox WHERE id IN (
             SELECT id FROM (SELECT id FROM outbox INDEXED BY outbox_at_once
                             WHERE kind = ?1 AND not_before IS NULL ORDER BY id LIMIT ?3)
             UNION ALL
             SELECT id FROM (SELECT id FROM outbox INDEXED BY outbox_later
                             WHERE kind = ?1 AND not_before <= ?2 ORDER BY id LIMIT ?3)
         ) ORDER BY id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![kind.as_str(), now.millis(), limit.min(MOST)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut entry: OutboxEntry = serde_json::from_str(&row.get::<_, String>(0)?)
            .map_err(|e| StateError::Corrupt(format!("an outbox entry can't be read: {e}")))?;
        // It may have been put off since.
        entry.not_before = row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis);
        found.push(entry);
    }
    Ok(found)
}

/// When the next entry that is not due yet becomes due.
pub(super) fn next_due(db: &Connection, now: Timestamp) -> Outcome<Option<Timestamp>> {
    let mut first = None;
    for kind in OutboxKind::ALL {
        let mut statement = db.prepare_cached(
            "SELECT min(not_before) FROM outbox INDEXED BY outbox_later WHERE kind = ?1 AND not_before > ?2",
        )?;
        let next: Option<i64> = statement.query_row((kind.as_str(), now.millis()), |row| row.get(0))?;
        first = [first, next].into_iter().flatten().min();
    }
    Ok(first.map(Timestamp::from_millis))
}

/// Forgets entries that were handled.
pub(super) fn done(db: &Connection, ids: &[OutboxId]) -> Outcome<()> {
    let mut statement = db.prepare_cached("DELETE FROM outbox WHERE entry_id = ?1")?;
    for id in ids {
        statement.execute([bytes(*id)])?;
    }
    Ok(())
}

/// Puts entries off.
pub(super) fn defer(db: &Connection, ids: &[OutboxId], until: Timestamp) -> Outcome<()> {
    let mut statement = db.prepare_cached("UPDATE outbox SET not_before = ?2 WHERE entry_id = ?1")?;
    for id in ids {
        statement.execute((bytes(*id), until.millis()))?;
    }
    Ok(())
}

fn bytes(id: OutboxId) -> [u8; 16] {
    *id.uuid().as_bytes()
}
