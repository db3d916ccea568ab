//! Telling of changes: at once within the process, and across processes by asking SQLite every 50 ms whether somebody
//! committed. It is asked only while somebody waits.

use super::{
    fault::Outcome,
    open::{Purpose, connect},
};
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::Notify;

/// How often SQLite is asked.
const POLL: Duration = Duration::from_millis(50);

/// Which waiters a commit of this process is of interest to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bell {
    /// Nobody: heartbeats, renewals, marks.
    None,
    /// Those who wait for changes of records.
    Changed,
    /// Those who wait for jobs.
    Jobs,
}

/// Waiters, and the thread that asks SQLite on their behalf.
pub(crate) struct Watch {
    changed: Notify,
    jobs: Notify,
    waiting: Mutex<usize>,
    somebody_waits: Condvar,
    stopped: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Starts the asking thread; it ends with [`Self::stop`].
    pub(super) fn start(path: &Path) -> Outcome<Arc<Self>> {
        let db = connect(path, Purpose::Read)?;
        let watch = Arc::new(Self {
            changed: Notify::new(),
            jobs: Notify::new(),
            waiting: Mutex::new(0),
            somebody_waits: Condvar::new(),
            stopped: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let asking = Arc::clone(&watch);
        let thread =
            std::thread::Builder::new().name("state-watch".to_owned()).spawn(move || asking.ask(&db))?;
        *watch.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(watch)
    }

    /// Waits until something was committed, by this process or another, but not longer than `at_most`. A commit between
    /// the caller's last look and this call is noticed too: at the next question at the latest.
    pub(crate) async fn changed(&self, at_most: Duration) {
        self.wait(&self.changed, at_most).await;
    }

    /// The same for jobs.
    pub(crate) async fn jobs(&self, at_most: Duration) {
        self.wait(&self.jobs, at_most).await;
    }

    async fn wait(&self, bell: &Notify, at_most: Duration) {
        let rung = bell.notified();
        let _waiting = Waiting::new(self);
        let _ = tokio::time::timeout(at_most, rung).await;
    }

    /// Tells of a commit of this process.
    pub(super) fn ring(&self, bell: Bell) {
        match bell {
            Bell::None => {}
            Bell::Changed => self.changed.notify_waiters(),
            Bell::Jobs => self.jobs.notify_waiters(),
        }
    }

    /// Ends the asking thread and lets every waiter go. Returns the thread, which ends at once.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.stopped.store(true, Ordering::Release);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.somebody_waits.notify_all();
        drop(waiting);
        self.changed.notify_waiters();
        self.jobs.notify_waiters();
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn ask(&self, db: &Connection) {
        let mut last = None;
        while self.sleep_until_wanted() {
            let now = db
                .prepare_cached("PRAGMA data_version")
                .and_then(|mut ask| ask.query_row([], |row| row.get::<_, i64>(0)))
                .ok();
            // Where SQLite can't tell: better looked once too often.
            if now.is_none() || now != last {
                self.changed.notify_waiters();
                self.jobs.notify_waiters();
            }
            last = now;
            self.pause();
        }
    }

    /// Sleeps until it is time to ask again, or to end.
    fn pause(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = || self.stopped.load(Ordering::Acquire);
        let _ = self.somebody_waits.wait_timeout_while(waiting, POLL, |_| !stopped());
    }

    /// False when it is time to end.
    fn sleep_until_wanted(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = || self.stopped.load(Ordering::Acquire);
        let waiting = self
            .somebody_waits
            .wait_while(waiting, |waiting| *waiting == 0 && !stopped())
            .unwrap_or_else(PoisonError::into_inner);
        drop(waiting);
        !stopped()
    }
}

/// Somebody waits, for as long as this lives.
struct Waiting<'a>(&'a Watch);

impl<'a> Waiting<'a> {
    fn new(watch: &'a Watch) -> Self {
        let mut waiting = watch.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting += 1;
        if *waiting == 1 {
            watch.somebody_waits.notify_one();
        }
        drop(waiting);
        Self(watch)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = waiting.saturating_sub(1);
    }
}
