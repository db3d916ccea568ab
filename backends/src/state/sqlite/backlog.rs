//! Counts for status and metrics.

use super::fault::Outcome;
use crate::state::{Backlog, StateError};
use dropgate_schemas::{time::Timestamp, upload::UploadState};
use rusqlite::Connection;

/// Counts what there is.
pub(super) fn count(db: &Connection) -> Outcome<Backlog> {
    let mut statement = db.prepare_cached("SELECT state, n FROM upload_counts WHERE n > 0")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let mut uploads: Vec<(UploadState, u64)> = Vec::new();
    for row in rows {
        let (state, n) = row?;
        uploads.push((state.parse().map_err(StateError::Corrupt)?, n));
    }
    uploads.sort_unstable();
    let mut statement =
        db.prepare_cached("SELECT count(*), min(CASE WHEN due <= ?1 THEN due END) FROM outbox")?;
    let (outbox, oldest): (u64, Option<i64>) =
        statement.query_row([Timestamp::now().millis()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Backlog { uploads, outbox, oldest_outbox: oldest.map(Timestamp::from_millis) })
}
