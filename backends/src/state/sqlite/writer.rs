//! The one thread of a process that writes. It puts everything that waits into one transaction, so that changes that come
//! while one sync runs share the next. Each change has a savepoint of its own: one that is refused takes nothing with it.
//!
//! Folding the log into the file is a second thread's work ([`checkpoint`]); the writer only finishes what that one began.

mod call;
mod checkpoint;
mod intake;
mod turn;

use self::{
    call::{Call, Pending},
    checkpoint::Checkpointer,
    intake::Intake,
    turn::Turn,
};
use super::{
    fault::{Fault, Outcome},
    open::{BUSY, Purpose, connect},
    watch::{Bell, Watch},
};
use crate::{durable, state::StateError};
use dropgate_schemas::change::Durability;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Longest that a call waits for its answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(12);

/// Calls that may wait for the writer; a caller that finds the queue full waits for room, within its deadline.
const QUEUE: usize = 256;

/// Calls that share one transaction at most.
const BATCH: usize = 128;

/// Durable transactions of this process, each of which is one sync of the log.
#[cfg(test)]
static SYNCS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// How many there were.
#[cfg(test)]
pub(super) fn syncs() -> u64 {
    SYNCS.load(std::sync::atomic::Ordering::Relaxed)
}

enum Message {
    Call(Box<dyn Call>),
    Close(oneshot::Sender<()>),
}

/// The way to the writing thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread, with a connection that is open already.
    pub(super) fn start(path: &Path, db: Connection, watch: Arc<Watch>) -> Outcome<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let checkpointer = Checkpointer::start(path, connect(path, Purpose::Write)?)?;
        let intake = Intake::new(waiting);
        let writing = Writing {
            db,
            intake,
            turn: Turn::of(path)?,
            watch,
            checkpointer,
            synchronous: None,
            path: path.to_owned(),
        };
        let thread =
            std::thread::Builder::new().name("state-writer".to_owned()).spawn(move || writing.run())?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in a transaction and returns what it returned, once that was committed. `work` may be run again if
    /// the transaction it was part of could not be committed for another's sake.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        durability: Durability,
        bell: Bell,
        work: impl FnMut(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, answered) = oneshot::channel();
        let call = Box::new(Pending::new(durability, bell, work, answer));
        let asking = async {
            self.queue.send(Message::Call(call)).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        timeout(DEADLINE, asking).await.unwrap_or_else(|_| {
            Err(StateError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs())))
        })
    }

    /// Finishes what waits, folds the log into the file and ends the thread.
    pub(super) async fn close(&self) {
        let (done, finished) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = finished.await;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has said that it is done: this is a moment.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn closed() -> StateError {
    StateError::Unavailable("the state store was closed".to_owned())
}

struct Writing {
    db: Connection,
    intake: Intake,
    turn: Turn,
    watch: Arc<Watch>,
    checkpointer: Checkpointer,
    /// What the connection's `synchronous` is set to.
    synchronous: Option<Durability>,
    /// For last words.
    path: PathBuf,
}

impl Writing {
    fn run(mut self) {
        while self.intake.wait() {
            while let Some(batch) = self.intake.next_batch() {
                self.batch(batch);
            }
        }
        self.checkpointer.stop();
        // The last connection of all processes folds the rest of the log in and removes it.
        drop(self.db);
        if let Some(done) = self.intake.closing() {
            let _ = done.send(());
        }
    }

    fn batch(&mut self, mut batch: Vec<Box<dyn Call>>) {
        // Whose caller has gone: nobody was told that it would be made.
        batch.retain(|call| !call.is_abandoned());
        if batch.is_empty() {
            return;
        }
        let fate = self.commit(&mut batch);
        let bells = [Bell::Changed, Bell::Jobs]
            .map(|bell| batch.iter().any(|call| call.bell() == bell).then_some(bell));
        for call in batch {
            call.answer(&fate);
        }
        if fate.is_ok() {
            bells.into_iter().flatten().for_each(|bell| self.watch.ring(bell));
            self.checkpointer.after_commit(&self.db);
        }
    }

    /// Makes all calls in one transaction. An error is every call's.
    fn commit(&mut self, batch: &mut [Box<dyn Call>]) -> Result<(), StateError> {
        let durability = batch.iter().map(|call| call.durability()).max().unwrap_or(Durability::Durable);
        let result = self.transact(batch, durability);
        if result.is_err() && !self.db.is_autocommit() {
            // The transaction is given up whatever this says: nothing of it was acknowledged.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        result.map_err(|fault| {
            if let Some(error) = fault.failed_sync() {
                durable::die(&error, &self.path);
            }
            fault.into()
        })
    }

    fn transact(&mut self, batch: &mut [Box<dyn Call>], durability: Durability) -> Outcome<()> {
        if self.synchronous != Some(durability) {
            let level = match durability {
                Durability::Visible => "NORMAL",
                Durability::Durable => "FULL",
            };
            self.db.pragma_update(None, "synchronous", level)?;
            self.synchronous = Some(durability);
        }
        let statement = |sql| -> Outcome<()> {
            self.db.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        let turn = self.turn.wait(BUSY);
        statement("BEGIN IMMEDIATE")?;
        drop(turn);
        for call in batch.iter_mut() {
            statement("SAVEPOINT change")?;
            if call.run(&self.db) {
                statement("RELEASE change")?;
            } else if self.db.is_autocommit() {
                // SQLite has given up the whole transaction: the disk is full or fails.
                return Err(call.take_fault().unwrap_or_else(|| Fault::State(closed())));
            } else {
                statement("ROLLBACK TO change")?;
                statement("RELEASE change")?;
            }
        }
        let begun = Instant::now();
        statement("COMMIT")?;
        if durability == Durability::Durable {
            self.intake.synced(begun.elapsed(), batch.len());
            #[cfg(test)]
            SYNCS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}
