//! Connections that read. A look at a few rows takes some 20 µs and is done on the caller's own thread: a hop to another
//! thread and back would cost more than the look. It never waits there: where a lock stands in the way, which write-ahead
//! logging makes rare, and for everything longer, the work goes to the blocking pool, within a deadline.

use super::{
    fault::{Fault, Outcome},
    open::{BUSY, Purpose, connect},
    writer::DEADLINE,
};
use crate::state::StateError;
use rusqlite::{Connection, InterruptHandle};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};

/// Reads on the blocking pool at a time; more wait their turn.
const LONG_READS: usize = 4;

/// Connections kept open between reads.
const KEPT: usize = 8;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
    closed: AtomicBool,
}

impl Readers {
    /// Opens the first connection, so that a file that can't be read is found at once.
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let first = connect(path, Purpose::Read)?;
        Ok(Self(Arc::new(Pool {
            path: path.to_owned(),
            idle: Mutex::new(vec![first]),
            turns: Semaphore::new(LONG_READS),
            closed: AtomicBool::new(false),
        })))
    }

    /// A read of a few rows.
    pub(super) async fn peek<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let attempt = self.take().and_then(|db| {
            let result = work(&db);
            self.give_back(db);
            result
        });
        match attempt {
            Err(fault) if fault.is_busy() => self.read(work).await,
            other => Ok(other?),
        }
    }

    /// A read that may take its time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        timeout(DEADLINE, self.read_in_turn(work)).await.unwrap_or_else(|_| {
            Err(StateError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs())))
        })
    }

    async fn read_in_turn<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let _turn = self.0.turns.acquire().await.map_err(|_| closed())?;
        let db = self.take()?;
        let mut running = Running(Some(db.get_interrupt_handle()));
        let pool = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let result = db.busy_timeout(BUSY).map_err(Fault::from).and_then(|()| work(&db));
            if db.busy_timeout(Duration::ZERO).is_ok() {
                pool.give_back(db);
            }
            result
        });
        let result = read.await;
        running.0 = None;
        match result {
            Ok(result) => Ok(result?),
            Err(e) => Err(StateError::Unavailable(format!("a read ended early: {e}"))),
        }
    }

    /// Lets go of the idle connections and refuses what comes after.
    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.turns.close();
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Outcome<Connection> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(closed().into());
        }
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(db) => Ok(db),
            None => Ok(connect(&self.0.path, Purpose::Read)?),
        }
    }

    fn give_back(&self, db: Connection) {
        if self.0.closed.load(Ordering::Acquire) {
            return;
        }
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(db);
        }
    }
}

fn closed() -> StateError {
    StateError::Unavailable("the state store was closed".to_owned())
}

/// Ends a read that nobody waits for any more.
struct Running(Option<InterruptHandle>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}
