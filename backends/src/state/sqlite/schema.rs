//! The schema, its version, and the way from older versions to this one.

use super::failure::OpenFailure;
use dropgate_schemas::{audit::SOFTWARE, time::Timestamp};
use rusqlite::{Connection, TransactionBehavior};

/// `application_id` of our files: what tells them from any other program's database.
const APPLICATION: i32 = i32::from_be_bytes(*b"Drpg");

/// One step for each version; a database of version n has had the first n. Steps that were released are never changed.
const STEPS: [&str; 3] =
    [include_str!("schema.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// Checks that the file is ours, or empty, and no newer than we are. Changes nothing.
pub(super) fn check(db: &Connection) -> Result<(), OpenFailure> {
    // In one transaction, so that another process that just makes the schema is seen before or after it, not in the middle.
    version(&*db.unchecked_transaction()?).map(|_| ())
}

/// Brings the database to the present schema.
pub(super) fn prepare(db: &mut Connection) -> Result<(), OpenFailure> {
    if version(&*db.unchecked_transaction()?)? == STEPS.len() {
        return Ok(());
    }
    // Another process may have been faster: look again under the lock.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = version(&tx)?;
    for (number, step) in (1_u32..).zip(STEPS).skip(from) {
        tx.execute_batch(step)?;
        tx.execute(
            "INSERT INTO schema_versions (version, applied_at, software) VALUES (?1, ?2, ?3)",
            (number, Timestamp::now().to_string(), SOFTWARE),
        )?;
        tx.pragma_update(None, "user_version", number)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.commit()?;
    Ok(())
}

/// How many steps the database has had.
fn version(db: &Connection) -> Result<usize, OpenFailure> {
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(0);
    }
    if application != APPLICATION {
        return Err(OpenFailure::new(
            "it is a database of another program",
            "set the key to another place, or move the file away",
        ));
    }
    match usize::try_from(version) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => Err(OpenFailure::new(
            format!(
                "it has schema {version}, written by a newer version; this one ({SOFTWARE}) knows schemas up to {}",
                STEPS.len()
            ),
            "run the newer version",
        )),
    }
}
