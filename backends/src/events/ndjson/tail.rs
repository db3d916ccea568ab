//! The end of an event file: what was published last, and whether a crash tore it.

use dropgate_schemas::id::EventId;
use serde::Deserialize;
use std::{
    collections::{HashSet, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Bytes at the end that are looked at: more than the relay publishes at a time.
const TAIL: u64 = 4 << 20;
/// Events that are remembered.
const REMEMBERED: usize = 4096;

/// The ids that were published last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    known: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Recent {
    /// Remembers an id; false if it was known.
    pub(super) fn insert(&mut self, id: EventId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[derive(Deserialize)]
struct Line {
    id: EventId,
}

/// Reads the end of a file of `length` bytes and cuts off a torn line. Returns the length after that and the ids found.
pub(super) fn repair(file: &File, length: u64, path: &Path) -> io::Result<(u64, Recent)> {
    let start = length.saturating_sub(TAIL);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if whole == 0 && start > 0 {
        return Err(io::Error::other(format!(
            "the last {TAIL} bytes hold no line end: this is no event file"
        )));
    }
    let (lines, torn) = bytes.split_at(whole);
    let mut kept = length;
    if !torn.is_empty() {
        kept = start + whole as u64;
        tracing::warn!(path = %path.display(), bytes = torn.len(), "the last event was torn by a crash: cut off, it is published again");
        file.set_len(kept)?;
    }
    let mut recent = Recent::default();
    // The first line of the window may be the rest of one: then it doesn't parse.
    for line in lines.split(|b| *b == b'\n') {
        if let Ok(Line { id }) = serde_json::from_slice(line) {
            recent.insert(id);
        }
    }
    Ok((kept, recent))
}
