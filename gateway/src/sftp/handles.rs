//! The handles of one channel.

use crate::{ingest::OpenFile, vfs::listing::Listing};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Mutex as AsyncMutex;

/// What a handle stands for.
#[derive(Clone)]
pub(super) enum Handle {
    /// A file being written.
    File(Arc<OpenFile>),
    /// A directory being listed.
    Directory(Arc<AsyncMutex<Listing>>),
}

/// The open handles of one channel, bounded.
pub(super) struct Handles {
    open: HashMap<u32, Handle>,
    next: u32,
    limit: usize,
    /// The channel is over: nothing may be added any more.
    ended: bool,
}

/// Directories that may be open at a time: each keeps some hundred lines in memory, and clients list one after the other.
const MAX_DIRECTORIES: usize = 16;

/// Why a handle could not be made.
pub(super) enum Full {
    /// Too many are open.
    Limit(usize),
    /// Too many directories are open.
    Directories(usize),
    /// The channel is over.
    Ended,
}

impl Handles {
    pub(super) fn new(limit: usize) -> Self {
        Self { open: HashMap::new(), next: 0, limit, ended: false }
    }

    /// Adds one and returns its name on the wire.
    pub(super) fn add(&mut self, handle: Handle) -> Result<Vec<u8>, Full> {
        if self.ended {
            return Err(Full::Ended);
        }
        if self.is_full() {
            return Err(Full::Limit(self.limit));
        }
        if matches!(handle, Handle::Directory(_)) && self.open.len() - self.files().count() >= MAX_DIRECTORIES
        {
            return Err(Full::Directories(MAX_DIRECTORIES));
        }
        // Names repeat after 2^32 handles of one session at the earliest; a live one is skipped.
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let name = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(name, handle);
        Ok(name.to_be_bytes().to_vec())
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.limit
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Handle> {
        self.open.get(&number(name)?)
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Handle> {
        self.open.remove(&number(name)?)
    }

    /// Takes all away and refuses new ones.
    pub(super) fn end(&mut self) -> Vec<Handle> {
        self.ended = true;
        self.open.drain().map(|(_, handle)| handle).collect()
    }

    /// Files that are open now.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<OpenFile>> {
        self.open.values().filter_map(|handle| match handle {
            Handle::File(file) => Some(file),
            Handle::Directory(_) => None,
        })
    }
}

fn number(name: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(name.try_into().ok()?))
}
