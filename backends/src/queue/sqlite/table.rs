//! The table of jobs.

use crate::{
    queue::{Claimed, QueueError},
    state::{StateError, sqlite::Outcome},
};
use dropgate_schemas::{
    id::{OutboxId, UploadId},
    job::Job,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;
use uuid::Uuid;

/// Bits of a tag that count how often the job was given out: a tag of an earlier time settles nothing.
const TIMES: u32 = 16;

/// A job, ready to be written.
pub(super) struct Row {
    entry: [u8; 16],
    upload: [u8; 16],
    work: String,
}

impl Row {
    pub(super) fn new(job: &Job) -> Result<Self, QueueError> {
        Ok(Self {
            entry: *job.entry.uuid().as_bytes(),
            upload: *job.upload.uuid().as_bytes(),
            work: serde_json::to_string(&job.work)
                .map_err(|e| QueueError::Rejected(format!("a job can't be serialised: {e}")))?,
        })
    }

    /// Puts the job in, to be given out now. One that waits already for the same work on the same upload is enough.
    pub(super) fn put(&self, db: &Connection, now: i64) -> Outcome<()> {
        db.prepare_cached(
            "INSERT INTO jobs (entry, upload, work, due, given) VALUES (?1, ?2, ?3, ?4, 0)
             ON CONFLICT (upload, work) WHERE taker IS NULL DO UPDATE SET due = min(due, excluded.due)",
        )?
        .execute(params![self.entry, self.upload, self.work, now])?;
        Ok(())
    }
}

/// When the next job may be given out.
pub(super) fn next_due(db: &Connection) -> Outcome<Option<i64>> {
    Ok(db.prepare_cached("SELECT min(due) FROM jobs")?.query_row([], |row| row.get(0))?)
}

/// How many wait.
pub(super) fn waiting(db: &Connection) -> Outcome<u64> {
    let mut statement =
        db.prepare_cached("SELECT count(*) FROM jobs INDEXED BY jobs_waiting WHERE taker IS NULL")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Gives out jobs that are due, those that are due longest first.
pub(super) fn take(
    db: &Connection,
    now: i64,
    lease: Duration,
    taker: [u8; 16],
    limit: usize,
) -> Outcome<Vec<Claimed>> {
    let mut due = db.prepare_cached(
        "SELECT id, entry, upload, work, given FROM jobs WHERE due <= ?1 ORDER BY due, id LIMIT ?2",
    )?;
    let mut rows = due.query(params![now, limit])?;
    let mut claimed = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, given): (u64, u32) = (row.get(0)?, row.get(4)?);
        let given = given.saturating_add(1);
        claimed.push(Claimed {
            job: Job {
                entry: OutboxId::from_uuid(Uuid::from_bytes(row.get(1)?)),
                upload: UploadId::from_uuid(Uuid::from_bytes(row.get(2)?)),
                work: serde_json::from_str(&row.get::<_, String>(3)?)
                    .map_err(|e| StateError::Corrupt(format!("job {id} can't be read: {e}")))?,
            },
            tag: tag(id, given),
            redelivered: given - 1,
        });
    }
    drop(rows);
    let end = after(now, lease);
    let mut give =
        db.prepare_cached("UPDATE jobs SET taker = ?2, due = ?3, given = given + 1 WHERE id = ?1")?;
    for job in &claimed {
        give.execute(params![job.tag >> TIMES, taker, end])?;
    }
    Ok(claimed)
}

/// Removes jobs that are done.
pub(super) fn ack(db: &Connection, tags: &[u64]) -> Outcome<()> {
    let mut statement =
        db.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND given & 65535 = ?2 AND taker IS NOT NULL")?;
    for tag in tags {
        statement.execute(params![tag >> TIMES, tag & 0xffff])?;
    }
    Ok(())
}

/// Lets a job wait again.
pub(super) fn release(db: &Connection, tag: u64, now: i64, delay: Duration) -> Outcome<()> {
    let mut statement =
        db.prepare_cached("SELECT id FROM jobs WHERE id = ?1 AND given & 65535 = ?2 AND taker IS NOT NULL")?;
    let id: Option<i64> =
        statement.query_row(params![tag >> TIMES, tag & 0xffff], |row| row.get(0)).optional()?;
    if let Some(id) = id {
        wait_again(db, id, after(now, delay))?;
    }
    Ok(())
}

/// Lets all jobs of a taker wait again, to be given out now.
pub(super) fn give_back(db: &Connection, taker: [u8; 16], now: i64) -> Outcome<()> {
    let mut statement = db.prepare_cached("SELECT id FROM jobs WHERE taker = ?1")?;
    let ids: Vec<i64> = statement.query_map([taker], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.into_iter().try_for_each(|id| wait_again(db, id, now))
}

fn wait_again(db: &Connection, id: i64, due: i64) -> Outcome<()> {
    // The same work may have been asked for meanwhile: then that one waits for both.
    let merged = db
        .prepare_cached(
            "UPDATE jobs SET due = min(due, ?2) WHERE taker IS NULL AND id <> ?1
             AND (upload, work) = (SELECT upload, work FROM jobs WHERE id = ?1)",
        )?
        .execute((id, due))?;
    if merged > 0 {
        db.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
    } else {
        db.prepare_cached("UPDATE jobs SET taker = NULL, due = ?2 WHERE id = ?1")?.execute((id, due))?;
    }
    Ok(())
}

fn tag(id: u64, given: u32) -> u64 {
    (id << TIMES) | u64::from(given & 0xffff)
}

fn after(now: i64, delay: Duration) -> i64 {
    now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}
