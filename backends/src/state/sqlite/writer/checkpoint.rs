//! Folding the write-ahead log into the database file, beside the writer instead of in the middle of a commit.
//!
//! The bulk is copied and synced by a thread of its own while commits go on. The log can only begin anew when all of it
//! was copied, which under steady load never holds for that thread; so the writer, told that the bulk is done, copies the
//! few pages that came since, between two commits.

use super::super::fault::{Fault, Outcome};
use crate::durable;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// Pages in the log after which it is folded in: 32 MiB.
const ENOUGH: i64 = 16_384;

/// Commits between two looks at the length of the log.
const LOOK: u32 = 16;

/// The thread, as the writer sees it.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    commits: u32,
}

struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    bulk_done: AtomicBool,
    /// For last words.
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Fold,
    End,
}

impl Checkpointer {
    /// Starts the thread with a connection of its own.
    pub(super) fn start(path: &Path, db: Connection) -> Outcome<Self> {
        db.pragma_update(None, "synchronous", "NORMAL")?;
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted::Nothing),
            wake: Condvar::new(),
            bulk_done: AtomicBool::new(false),
            path: path.to_owned(),
        });
        let its = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("state-checkpoint".to_owned()).spawn(move || its.run(&db))?;
        Ok(Self { shared, thread: Some(thread), commits: 0 })
    }

    /// To be called after each commit of the writer, with the writer's connection.
    pub(super) fn after_commit(&mut self, db: &Connection) {
        if self.shared.bulk_done.swap(false, Ordering::AcqRel) {
            // The next write begins the log anew, at the front of the same file.
            self.shared.checkpoint(db, "PASSIVE");
            return;
        }
        self.commits = self.commits.wrapping_add(1);
        if self.commits.is_multiple_of(LOOK) && self.shared.checkpoint(db, "NOOP") >= ENOUGH {
            let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if *wanted == Wanted::Nothing {
                *wanted = Wanted::Fold;
                self.shared.wake.notify_one();
            }
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Wanted::End;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, db: &Connection) {
        loop {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = self
                .wake
                .wait_while(wanted, |wanted| *wanted == Wanted::Nothing)
                .unwrap_or_else(PoisonError::into_inner);
            if *wanted == Wanted::End {
                return;
            }
            drop(wanted);
            self.checkpoint(db, "PASSIVE");
            self.bulk_done.store(true, Ordering::Release);
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if *wanted == Wanted::Fold {
                *wanted = Wanted::Nothing;
            }
        }
    }

    /// Runs a checkpoint and returns how many pages the log holds; 0 where SQLite can't tell.
    fn checkpoint(&self, db: &Connection, mode: &str) -> i64 {
        let pages = db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1));
        pages.map_err(Fault::from).unwrap_or_else(|fault| {
            if let Some(error) = fault.failed_sync() {
                durable::die(&error, &self.path);
            }
            // The log stays and grows; the next round tries again. What fails for good fails at a commit too.
            tracing::warn!(error = ?fault, mode, "the log of the state store could not be folded in");
            0
        })
    }
}
