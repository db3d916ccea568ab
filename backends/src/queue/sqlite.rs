//! The embedded job queue: a table beside the records, written by the same writer. Leases are measured on the clock since
//! the host's start, which all processes of the host share and nobody sets.

mod table;

use crate::{
    queue::{Claimed, JobQueue, QueueError},
    state::{
        StateError,
        sqlite::{Bell, Database, boot_millis},
    },
};
use async_trait::async_trait;
use dropgate_schemas::{change::Durability, job::Job};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long a job is out before it is given out again.
const LEASE: Duration = Duration::from_secs(60);

/// Most jobs that are given out at once, whatever is asked for.
const MOST: usize = 1_000;

/// The queue in a SQLite file.
pub(crate) struct SqliteQueue {
    database: Arc<Database>,
    /// Tells our jobs from those that other processes took.
    taker: Uuid,
    lease: Duration,
}

impl SqliteQueue {
    /// The queue of an open database.
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database, taker: Uuid::now_v7(), lease: LEASE }
    }

    async fn write<T: Send + 'static>(
        &self,
        bell: Bell,
        work: impl FnMut(&rusqlite::Connection) -> crate::state::sqlite::Outcome<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        // Visible: a doorbell that a power cut takes is rung again from the record.
        Ok(self.database.write(Durability::Visible, bell, work).await?)
    }
}

#[async_trait]
impl JobQueue for SqliteQueue {
    async fn publish(&self, jobs: &[Job]) -> Result<(), QueueError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let rows = jobs.iter().map(table::Row::new).collect::<Result<Vec<_>, _>>()?;
        self.write(Bell::Jobs, move |db| rows.iter().try_for_each(|row| row.put(db, boot_millis()))).await
    }

    async fn take(&self, limit: usize, wait: Duration) -> Result<Vec<Claimed>, QueueError> {
        let limit = limit.min(MOST);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let give_up = Instant::now() + wait;
        loop {
            // A look first: nothing is written while there is nothing to take.
            let next = self.database.peek(table::next_due).await?;
            let now = boot_millis();
            if next.is_some_and(|due| due <= now) {
                let (taker, lease) = (*self.taker.as_bytes(), self.lease);
                let taken = self
                    .write(Bell::None, move |db| table::take(db, boot_millis(), lease, taker, limit))
                    .await?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let until_due = next.map_or(left, |due| millis(due.saturating_sub(now).max(1)));
            self.database.watch().jobs(left.min(until_due)).await;
        }
    }

    async fn ack(&self, tags: &[u64]) -> Result<(), QueueError> {
        if tags.is_empty() {
            return Ok(());
        }
        let tags = tags.to_vec();
        self.write(Bell::None, move |db| table::ack(db, &tags)).await
    }

    async fn release(&self, tag: u64, delay: Duration) -> Result<(), QueueError> {
        self.write(Bell::Jobs, move |db| table::release(db, tag, boot_millis(), delay)).await
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        Ok(self.database.peek(table::waiting).await?)
    }

    async fn check(&self) -> Result<(), QueueError> {
        Ok(self.database.peek(|db| table::next_due(db).map(|_| ())).await?)
    }

    fn wants_ringing(&self) -> bool {
        // The relay hears of a commit as soon as a worker would hear of the job.
        false
    }

    async fn close(&self) {
        let taker = *self.taker.as_bytes();
        // If it fails, the leases run out by themselves.
        let _ = self.write(Bell::Jobs, move |db| table::give_back(db, taker, boot_millis())).await;
    }
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl From<StateError> for QueueError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Full(why) => Self::Full(why),
            StateError::Unavailable(why) => Self::Unavailable(why),
            StateError::Rejected(why) | StateError::Corrupt(why) | StateError::NotFound(why) => {
                Self::Rejected(why)
            }
            StateError::Conflict { what, why } => Self::Rejected(format!("{what}: {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
