//! Opening the file, and what all parts of the adapter share: the writer, the readers and the watch.

use super::{
    clock,
    failure::OpenFailure,
    fault::{Fault, Outcome},
    place,
    readers::Readers,
    schema,
    watch::{Bell, Watch},
    writer::Writer,
};
use crate::state::StateError;
use dropgate_schemas::change::Durability;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a connection waits for a lock that another process holds.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Size of new databases' pages in bytes. A change touches a dozen or two, most of them for a few bytes of an index, and the
/// log takes them whole: smaller pages make a commit cheaper, larger ones the file flatter.
const PAGE: u32 = 2_048;

/// A database that was not closed properly is looked over from end to end if it has at most so many bytes.
const QUICK_CHECK: u64 = 32 << 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The writer, the checkpointer, and everything at the opening.
    Write,
    /// A reader: it can't write, and is never made to wait for a lock on a thread that must not block.
    Read,
}

/// One open database file.
pub(crate) struct Database {
    writer: Writer,
    readers: Readers,
    watch: Arc<Watch>,
}

impl Database {
    /// Opens `path`, making the file if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenFailure> {
        place::check(path)?;
        make(path)?;
        let unclean = fs::metadata(wal_of(path)).is_ok_and(|m| m.len() > 0);
        let mut db = connect(path, Purpose::Write)?;
        // Before anything is changed in it: is it a database, and is it ours?
        schema::check(&db)?;
        write_ahead(&db)?;
        schema::prepare(&mut db)?;
        if unclean {
            look_over(path, &db)?;
        }
        forget_other_boots(&db)?;
        let watch = Watch::start(path)?;
        let readers = Readers::open(path)?;
        let writer = Writer::start(path, db, Arc::clone(&watch))?;
        Ok(Self { writer, readers, watch })
    }

    /// Runs `work` in a transaction of the writer; it is made or not made as a whole, together with nothing else. Rings
    /// `bell` when it is.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        bell: Bell,
        work: impl FnMut(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        self.writer.call(durability, bell, work).await
    }

    /// Runs a read of a few rows: at once, on the caller's thread, unless a lock stands in the way.
    pub(crate) async fn peek<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        self.readers.peek(work).await
    }

    /// Runs a read that may take its time.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StateError> {
        self.readers.read(work).await
    }

    /// What tells of changes.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Finishes what waits, folds the log into the file and lets go of it.
    pub(crate) async fn close(&self) {
        self.readers.close();
        if let Some(thread) = self.watch.stop() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.writer.close().await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.watch.stop());
    }
}

/// Opens a connection with the settings that all connections have.
pub(super) fn connect(path: &Path, purpose: Purpose) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    match purpose {
        Purpose::Write => db.busy_handler(Some(patience()))?,
        Purpose::Read => db.busy_timeout(Duration::ZERO)?,
    }
    db.set_prepared_statement_cache_capacity(128);
    db.pragma_update(None, "temp_store", "memory")?;
    db.pragma_update(None, "trusted_schema", false)?;
    // The checkpointer does it, off the writer's way.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    // In KiB. Readers drop their cache with every commit of somebody else, so a large one would be wasted on them. No
    // memory mapping: a failing disk would then kill the process instead of answering with an error.
    db.pragma_update(None, "cache_size", if purpose == Purpose::Write { -16_384 } else { -2_048 })?;
    if purpose == Purpose::Read {
        db.pragma_update(None, "query_only", true)?;
    }
    Ok(db)
}

/// Waits for a lock that another process holds: in small steps, since a transaction takes a few milliseconds at most. SQLite's
/// own handler sleeps up to 100 ms at a time.
fn patience() -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        let waited = since.elapsed();
        let step = if waited < Duration::from_millis(20) { 100 } else { 2_000 };
        std::thread::sleep(Duration::from_micros(step));
        waited < BUSY
    }
}

/// Makes the file, readable by its owner only, if there is none.
fn make(path: &Path) -> Result<(), OpenFailure> {
    // Never opens a file that exists: see the module's word on locks.
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::StorageFull => Err(StateError::Full(e.to_string()).into()),
        Err(e) => Err(OpenFailure::new(
            e.to_string(),
            "give the user that runs dropgate the right to write there, or set the key to another place",
        )),
    }
}

/// The write-ahead log that belongs to a database.
pub(super) fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Switches to write-ahead logging. The switch needs the file alone and does not wait for it, so it is tried for as long
/// as any other lock is waited for.
fn write_ahead(db: &Connection) -> Result<(), OpenFailure> {
    let give_up = Instant::now() + BUSY;
    loop {
        let current: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if current == "wal" {
            return Ok(());
        }
        db.pragma_update(None, "page_size", PAGE)?;
        match db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(OpenFailure::new(
                    format!("write-ahead logging can't be used there: SQLite stays with {mode}"),
                    "put the data directory on a local disk",
                ));
            }
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// After an unclean end: puts the log into the file and has SQLite look through a small database. What was in the
/// system's memory only is written anew that way, whatever became of the last sync. Where another process has the file
/// open, this does no harm and waits for nobody.
fn look_over(path: &Path, db: &Connection) -> Result<(), OpenFailure> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    if fs::metadata(path).is_ok_and(|m| m.len() <= QUICK_CHECK) {
        let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StateError::Corrupt(verdict).into());
        }
    }
    Ok(())
}

/// Leases of jobs are measured on the clock since the host's start: after a restart of the host they mean nothing, and
/// every job may be given out.
fn forget_other_boots(db: &Connection) -> Outcome<()> {
    let boot = clock::boot_id();
    let known: Option<String> =
        db.query_row("SELECT value FROM settings WHERE name = 'boot'", [], |row| row.get(0)).optional()?;
    if known.as_deref() != Some(boot.as_str()) {
        db.execute_batch("BEGIN IMMEDIATE")?;
        db.execute("UPDATE jobs SET due = 0", [])?;
        db.execute("INSERT OR REPLACE INTO settings (name, value) VALUES ('boot', ?1)", [boot])?;
        db.execute_batch("COMMIT")?;
    }
    Ok(())
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::State(StateError::Unavailable(error.to_string()))
    }
}
