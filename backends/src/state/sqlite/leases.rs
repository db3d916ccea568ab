//! Leases and heartbeats. Who holds a lease raises its counter; who wants it watches the counter and takes the lease when
//! that stood still for long enough on the watcher's own monotonic clock. No wall clocks are compared.

use super::{fault::Outcome, open::Database, watch::Bell};
use crate::state::{
    Instance, StateError,
    lease::{Held, Observed},
};
use dropgate_schemas::{change::Durability, id::InstanceId, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

enum Answer {
    Ours(u64),
    Theirs(Held),
}

/// Takes or renews a lease.
pub(super) async fn take(
    database: &Database,
    observed: &Observed,
    name: &str,
    holder: InstanceId,
    ttl: Duration,
) -> Result<Option<u64>, StateError> {
    let expired = observed.expired(name, ttl);
    let key = name.to_owned();
    let holder = *holder.uuid().as_bytes();
    // A renewal that a power cut takes back was of no use to anybody; a token that it takes back is given again, but
    // every process that knew it is gone then.
    let answer =
        database.write(Durability::Visible, Bell::None, move |db| acquire(db, &key, holder, expired)).await?;
    Ok(match answer {
        Answer::Ours(token) => {
            observed.forget(name);
            Some(token)
        }
        Answer::Theirs(lease) => {
            observed.note(name, lease);
            None
        }
    })
}

fn acquire(db: &Connection, name: &str, me: [u8; 16], expired: Option<Held>) -> Outcome<Answer> {
    let mut statement = db.prepare_cached("SELECT holder, token, renewed FROM leases WHERE name = ?1")?;
    let stored: Option<(Option<[u8; 16]>, u64, i64)> =
        statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let (token, renewed) = match stored {
        None => (1, 0),
        Some((Some(holder), token, renewed)) if holder == me => (token, renewed),
        Some((Some(holder), token, renewed)) => {
            let lease = Held { holder, renewed };
            if expired != Some(lease) {
                return Ok(Answer::Theirs(lease));
            }
            (token + 1, renewed)
        }
        // Given back.
        Some((None, token, renewed)) => (token + 1, renewed),
    };
    db.prepare_cached(
        "INSERT OR REPLACE INTO leases (name, holder, token, renewed) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![name, me, token, renewed + 1])?;
    Ok(Answer::Ours(token))
}

/// Gives a lease back.
pub(super) fn release(db: &Connection, name: &str, holder: InstanceId) -> Outcome<()> {
    db.prepare_cached("UPDATE leases SET holder = NULL WHERE name = ?1 AND holder = ?2")?
        .execute((name, holder.uuid().as_bytes()))?;
    Ok(())
}

/// Raises the counter of an instance.
pub(super) fn heartbeat(db: &Connection, id: InstanceId, role: &str, node: &str) -> Outcome<()> {
    db.prepare_cached(
        "INSERT INTO instances (id, role, node, beats, seen_at) VALUES (?1, ?2, ?3, 1, ?4)
         ON CONFLICT DO UPDATE SET role = excluded.role, node = excluded.node, beats = beats + 1, seen_at = excluded.seen_at",
    )?
    .execute(params![id.uuid().as_bytes(), role, node, Timestamp::now().millis()])?;
    Ok(())
}

/// All instances.
pub(super) fn instances(db: &Connection) -> Outcome<Vec<Instance>> {
    let mut statement =
        db.prepare_cached("SELECT id, role, node, beats, seen_at FROM instances ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        Ok(Instance {
            id: InstanceId::from_uuid(uuid::Uuid::from_bytes(row.get(0)?)),
            role: row.get(1)?,
            node: row.get(2)?,
            beats: row.get(3)?,
            seen_at: Timestamp::from_millis(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
