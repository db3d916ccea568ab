//! Events as lines of a file, each the plain JSON of one CloudEvent, in the order of their positions.
//!
//! The relay is the one writer, whichever process it runs in; a lock on the file, held for as long as a batch takes, keeps two
//! apart while one hands over to the other. A line that a crash tore is cut off when the file is next written, for the
//! relay publishes it again. Events that are in the last lines already are not written twice. A file that was moved
//! away is begun anew.

mod tail;

use super::{EventError, EventPublisher};
use crate::{durable, open::OpenError, state::LoggedEvent};
use async_trait::async_trait;
use dropgate_schemas::id::EventId;
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tail::Recent;

const KEY: &str = "[backends.events] path";
/// Longest wait for another process that is writing.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct NdjsonFile {
    path: Arc<Path>,
    opened: Arc<Mutex<Option<Opened>>>,
}

/// The file as this process wrote it last.
#[derive(Debug)]
struct Opened {
    file: File,
    length: u64,
    recent: Recent,
}

impl NdjsonFile {
    /// Opens the file, making it if it is missing.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, OpenError> {
        let this = Self { path: path.as_path().into(), opened: Arc::default() };
        let writer = this.clone();
        let opened = tokio::task::spawn_blocking(move || open(&writer.path).map(drop));
        let opened = opened.await.map_err(io::Error::other).flatten();
        opened.map_err(|e| OpenError::io(KEY, &path, &e))?;
        Ok(this)
    }

    async fn run(
        &self,
        work: impl FnOnce(&Self) -> Result<(), EventError> + Send + 'static,
    ) -> Result<(), EventError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this));
        done.await.unwrap_or_else(|e| Err(EventError::Unavailable(e.to_string())))
    }

    fn append(&self, lines: &[(EventId, String)]) -> Result<(), EventError> {
        let mut slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever fails, the file is looked at afresh the next time.
        let opened = slot.take();
        *slot = Some(self.append_to(opened, lines).map_err(|e| failed(&self.path, &e))?);
        Ok(())
    }

    fn append_to(&self, opened: Option<Opened>, lines: &[(EventId, String)]) -> io::Result<Opened> {
        let mut opened = match opened.filter(|o| is_at(&o.file, &self.path)) {
            Some(opened) => opened,
            None => Opened { file: open(&self.path)?, length: u64::MAX, recent: Recent::default() },
        };
        wait_for(&opened.file)?;
        let length = opened.file.metadata()?.len();
        if length != opened.length {
            (opened.length, opened.recent) = tail::repair(&opened.file, length, &self.path)?;
        }
        let mut text = String::new();
        for (id, line) in lines {
            if opened.recent.insert(*id) {
                text.push_str(line);
                text.push('\n');
            }
        }
        if let Err(error) = opened.file.write_all(text.as_bytes()) {
            // Half a batch is as good as none: it is published again. Should this fail too, the torn line is found later.
            let _ = opened.file.set_len(opened.length);
            return Err(error);
        }
        // Also when nothing was left to write: who wrote it may not have synced it.
        durable::sync_data(&opened.file, &self.path);
        opened.length += text.len() as u64;
        opened.file.unlock()?;
        Ok(opened)
    }
}

#[async_trait]
impl EventPublisher for NdjsonFile {
    async fn publish(&self, events: &[LoggedEvent]) -> Result<usize, EventError> {
        let mut lines = Vec::with_capacity(events.len());
        for logged in events {
            let line = serde_json::to_string(&logged.event)
                .map_err(|e| EventError::Rejected(format!("event {} is not JSON: {e}", logged.event.id)))?;
            lines.push((logged.event.id, line));
        }
        if lines.is_empty() {
            return Ok(0);
        }
        self.run(move |this| this.append(&lines)).await?;
        Ok(events.len())
    }

    async fn check(&self) -> Result<(), EventError> {
        self.run(|this| open(&this.path).map(drop).map_err(|e| failed(&this.path, &e))).await
    }
}

/// Opens for appending; a new file's name is durable at once.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).mode(0o600);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).open(path)?;
            durable::sync_directory(path.parent().unwrap_or(path))?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Whether an open file is still the one under that name.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

fn wait_for(file: &File) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process has held the lock for 5 s"));
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> EventError {
    let said = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::IsADirectory => {
            EventError::Rejected(said)
        }
        _ => EventError::Unavailable(said),
    }
}

#[cfg(test)]
mod tests;
