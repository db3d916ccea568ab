//! The log of events: one numbering for all, one for each partner, both without a gap. The numbers are given under the
//! lock that every writer of every process needs, so two relays at once do no harm.

use super::{MOST, apply::document, fault::Outcome};
use crate::state::{LoggedEvent, StateError};
use dropgate_schemas::{account::PartnerName, event::Event};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Digits of a sequence number.
const DIGITS: usize = 20;

/// Appends events, each once, and returns them with their numbers.
pub(super) fn log(db: &Connection, events: &[Event]) -> Outcome<Vec<LoggedEvent>> {
    events.iter().map(|event| append(db, event)).collect()
}

fn append(db: &Connection, event: &Event) -> Outcome<LoggedEvent> {
    let id = *event.id.uuid().as_bytes();
    let mut known = db.prepare_cached("SELECT position, doc FROM event_log WHERE event_id = ?1")?;
    let known = known.query_row([id], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()?;
    if let Some((position, doc)) = known {
        return Ok(LoggedEvent { position, event: read(&doc)? });
    }
    let mut last = db.prepare_cached("SELECT coalesce(max(position), 0) FROM event_log")?;
    let position: u64 = last.query_row([], |row| row.get(0))?;
    let position = position + 1;
    let mut last =
        db.prepare_cached("SELECT coalesce(max(sequence), 0) FROM event_log WHERE partner = ?1")?;
    let sequence: u64 = last.query_row([event.partner.as_str()], |row| row.get(0))?;
    let sequence = sequence + 1;
    let event = Event { sequence: format!("{sequence:0DIGITS$}"), ..event.clone() };
    db.prepare_cached(
        "INSERT INTO event_log (position, event_id, partner, sequence, doc) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![position, id, event.partner.as_str(), sequence, document(&event)?])?;
    Ok(LoggedEvent { position, event })
}

fn read(doc: &str) -> Result<Event, StateError> {
    serde_json::from_str(doc)
        .map_err(|e| StateError::Corrupt(format!("an event of the log can't be read: {e}")))
}

/// Events after a position, of one partner or of all.
pub(super) fn after(
    db: &Connection,
    position: u64,
    partner: Option<&PartnerName>,
    limit: usize,
) -> Outcome<Vec<LoggedEvent>> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let limit = limit.min(MOST);
    let (mut all, mut of_one);
    let mut rows = match partner {
        None => {
            all = db.prepare_cached(
                "SELECT position, doc FROM event_log WHERE position > ?1 ORDER BY position LIMIT ?2",
            )?;
            all.query(params![position, limit])?
        }
        Some(partner) => {
            // Named, since without it all events of the partner are read and sorted for each page.
            of_one = db.prepare_cached(
                "SELECT position, doc FROM event_log INDEXED BY event_log_of_partner
                 WHERE partner = ?3 AND position > ?1 ORDER BY position LIMIT ?2",
            )?;
            of_one.query(params![position, limit, partner.as_str()])?
        }
    };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(LoggedEvent { position: row.get(0)?, event: read(&row.get::<_, String>(1)?)? });
    }
    Ok(found)
}

/// How far a reader has come.
pub(super) fn cursor(db: &Connection, reader: &str) -> Outcome<u64> {
    let mut statement = db.prepare_cached("SELECT position FROM cursors WHERE reader = ?1")?;
    Ok(statement.query_row([reader], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Moves a reader on, never back.
pub(super) fn advance(db: &Connection, reader: &str, position: u64) -> Outcome<()> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    db.prepare_cached(
        "INSERT INTO cursors (reader, position) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
    )?
    .execute((reader, position))?;
    Ok(())
}
