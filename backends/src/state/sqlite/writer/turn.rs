//! Taking turns with the writers of other processes. SQLite's own lock is first come, first served only by chance: who has
//! just let go of it and wants it again is nearly always faster than who waits, so a busy gateway could keep a worker out
//! for seconds. So whoever wants SQLite's lock first takes this one, and keeps it until he has the other: whoever comes
//! next, he who had SQLite's lock last included, stands behind him.

use super::super::fault::Outcome;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

/// Pause between two tries.
const STEP: Duration = Duration::from_micros(100);

/// The lock: a file beside the database, with nothing in it.
pub(super) struct Turn(File);

/// Held until it is dropped.
pub(super) struct OurTurn<'a>(&'a File);

impl Turn {
    /// Opens the file that belongs to a database.
    pub(super) fn of(database: &Path) -> Outcome<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-turn");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Self(file))
    }

    /// Waits until nobody stands before us, but not longer than `at_most`: then we try our luck with SQLite's lock, since
    /// this one is about fairness only.
    pub(super) fn wait(&self, at_most: Duration) -> Option<OurTurn<'_>> {
        let mut give_up = None;
        loop {
            if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Some(OurTurn(&self.0));
            }
            if Instant::now() >= *give_up.get_or_insert_with(|| Instant::now() + at_most) {
                return None;
            }
            std::thread::sleep(STEP);
        }
    }
}

impl Drop for OurTurn<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}
