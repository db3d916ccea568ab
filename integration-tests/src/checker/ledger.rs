//! What clients meant to send and what they were told, written down by the clients themselves.

use crate::harness::payload;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// One upload as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Number of the line.
    pub number: usize,
    /// When it began, on a clock that counts what is written into the ledger.
    pub begun: usize,
    /// Whose.
    pub account: String,
    /// Final path under `/upload`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// When, on the same clock, the client had got OK for CLOSE of the final name, or for RENAME to it.
    pub acknowledged: Option<usize>,
}

impl Line {
    /// Whether the client got its OK.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged.is_some()
    }
}

/// The lines of one test run, kept in a file as well.
pub struct Ledger {
    inner: Mutex<Inner>,
}

struct Inner {
    lines: Vec<Line>,
    clock: usize,
    file: Option<File>,
}

impl Ledger {
    /// An empty one that is also written to `path`, a JSON line for each beginning and each acknowledgement.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { inner: Mutex::new(Inner { lines: Vec::new(), clock: 0, file: Some(file) }) })
    }

    /// An empty one in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { inner: Mutex::new(Inner { lines: Vec::new(), clock: 0, file: None }) }
    }

    /// Writes down that an upload of `data` to `path` is about to begin. Returns the number of its line.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn begin(&self, account: &str, path: &str, data: &[u8]) -> Result<usize> {
        self.begin_digest(account, path, data.len() as u64, payload::sha256(data))
    }

    /// [`Self::begin`] where size and digest are known already.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn begin_digest(&self, account: &str, path: &str, size: u64, sha256: String) -> Result<usize> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.lines.len();
        let begun = inner.tick();
        let (account, path) = (account.to_owned(), path.to_owned());
        let line = Line { number, begun, account, path, size, sha256, acknowledged: None };
        inner.write(&line)?;
        inner.lines.push(line);
        Ok(number)
    }

    /// Writes down that the client got its OK.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn acknowledge(&self, number: usize) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.tick();
        if let Some(line) = inner.lines.get_mut(number) {
            line.acknowledged = Some(now);
            let line = line.clone();
            inner.write(&line)?;
        }
        Ok(())
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }
}

impl Inner {
    fn tick(&mut self) -> usize {
        self.clock += 1;
        self.clock
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        if let Some(file) = &mut self.file {
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            file.write_all(&text)?;
        }
        Ok(())
    }
}
