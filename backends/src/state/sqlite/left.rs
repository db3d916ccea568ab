//! What an embedded database still has to do, for a program that is told to keep its records elsewhere.

use super::{failure::OpenFailure, schema};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// What would be forgotten if nobody opened the file any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Accepted uploads whose deliveries are not done.
    pub(crate) undelivered: u64,
    /// Events that nobody has heard of.
    pub(crate) unpublished: u64,
}

/// Looks into a database without changing it. None if there is none, or nothing is left in it.
pub(crate) fn left(path: &Path) -> Result<Option<Left>, OpenFailure> {
    if !path.exists() {
        return Ok(None);
    }
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    schema::check(&db)?;
    if db.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, u64>(0))? == 0 {
        return Ok(None);
    }
    let count = |sql: &str| db.query_row(sql, (), |row| row.get::<_, u64>(0));
    let left = Left {
        undelivered: count("SELECT count(*) FROM uploads WHERE state IN ('committed', 'delivering')")?,
        unpublished: count("SELECT count(*) FROM outbox WHERE kind = 'event'")?,
    };
    Ok((left != Left::default()).then_some(left))
}
