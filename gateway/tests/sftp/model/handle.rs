//! What an open file holds, in the simplest terms: the bytes without a gap, and a map of those that came early.

use std::collections::BTreeMap;

/// The accepted version that stays if nothing is written.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) size: u64,
    pub(crate) failed: bool,
}

/// How a CLOSE ends, as far as the handle decides.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// It was complete under its temp name and stays so.
    Unchanged,
    /// The accepted version of the name stays; true if that one failed.
    Kept(bool),
    /// What is there is kept to be resumed; true if the answer is OK all the same.
    Parked(bool),
    /// Complete.
    Complete,
}

#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) path: String,
    pub(crate) draft: u64,
    /// The change of the draft that this handle saw last, if it did not make it its own yet.
    pub(crate) held_at: Option<u64>,
    pub(crate) open: bool,
    pub(crate) mtime: Option<u32>,
    /// Bytes without a gap.
    pub(crate) content: Vec<u8>,
    early: BTreeMap<u64, u8>,
    /// Length of what was there, until the first WRITE shows whether it goes on.
    undecided: Option<usize>,
    /// It went on after so many bytes, which can't be written again.
    fixed: usize,
    fixed_if_continued: bool,
    resumed: bool,
    /// The size that STAT showed of the accepted version.
    shown: Option<u64>,
    keeps: Option<Kept>,
    /// Opened to append: what lies before is not written.
    append_from: Option<u64>,
    untouched: bool,
    wrote: bool,
    emptied: bool,
    declared: Option<u64>,
    at_open: Option<u64>,
    by_fsetstat: Option<u64>,
}

impl Handle {
    pub(crate) fn fresh(path: &str, draft: u64, size: Option<u64>) -> Self {
        Self {
            path: path.to_owned(),
            draft,
            held_at: None,
            open: true,
            mtime: None,
            content: Vec::new(),
            early: BTreeMap::new(),
            undecided: None,
            fixed: 0,
            fixed_if_continued: false,
            resumed: false,
            shown: None,
            keeps: None,
            append_from: None,
            untouched: true,
            wrote: false,
            emptied: false,
            declared: size,
            at_open: size,
            by_fsetstat: None,
        }
    }

    /// A new version of a name that was accepted with `shown` bytes.
    pub(crate) fn over(mut self, shown: u64, keeps: Option<Kept>) -> Self {
        (self.shown, self.keeps) = (Some(shown), keeps);
        self
    }

    /// Continues what was interrupted.
    pub(crate) fn resuming(mut self, content: &[u8]) -> Self {
        (self.resumed, self.fixed_if_continued) = (true, true);
        self.with(content)
    }

    /// Opens again what is complete under a temp name, as it was after `change`.
    pub(crate) fn held(mut self, content: &[u8], change: u64) -> Self {
        self.held_at = Some(change);
        self.with(content)
    }

    /// Opened to append to what it holds, or to an accepted version, which takes nothing.
    pub(crate) fn appending(mut self, append: bool) -> Self {
        let from = if self.shown.is_some() { u64::MAX } else { self.content.len() as u64 };
        self.append_from = (append && (self.shown.is_some() || from > 0)).then_some(from);
        self
    }

    fn with(mut self, content: &[u8]) -> Self {
        self.content = content.to_vec();
        self.undecided = (!content.is_empty()).then_some(content.len());
        self
    }

    pub(crate) fn visible_size(&self) -> u64 {
        match self.shown {
            Some(shown) if self.untouched => shown,
            _ => self.content.len() as u64,
        }
    }

    /// Whether this WRITE is an attempt to resume what can't be resumed.
    pub(crate) fn refuses(&self, offset: u64) -> bool {
        match (self.shown, self.append_from) {
            (Some(shown), append) => self.untouched && (append.is_some() || shown > 0 && shown == offset),
            (None, Some(from)) => offset < from && !self.emptied,
            (None, None) => false,
        }
    }

    pub(crate) fn tried_to_write(&mut self) {
        self.wrote = true;
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        self.untouched = false;
        if offset < self.fixed as u64 {
            // It began again after all: what came since waits for what is before it.
            let from = self.fixed;
            let later = self.content.split_off(from);
            self.early.extend((from as u64..).zip(later));
            self.undecided = Some(std::mem::take(&mut self.fixed));
        }
        if let Some(there) = self.undecided {
            let began_again = self.early.keys().next().is_some_and(|first| *first < there as u64);
            if offset == 0 {
                self.content.clear();
            } else if offset != there as u64 || began_again {
                self.early.extend((offset..).zip(data.iter().copied()));
                return;
            } else if self.fixed_if_continued {
                self.fixed = there;
            }
            self.undecided = None;
        }
        for (at, byte) in (offset..).zip(data.iter().copied()) {
            match self.content.get_mut(at as usize) {
                Some(here) => *here = byte,
                None => {
                    self.early.insert(at, byte);
                }
            }
        }
        while let Some(byte) = self.early.remove(&(self.content.len() as u64)) {
            self.content.push(byte);
        }
    }

    /// FSETSTAT; false if it would cut what can't be cut.
    pub(crate) fn set(&mut self, size: Option<u64>, mtime: Option<u32>) -> bool {
        if let Some(size) = size {
            if size == 0 {
                self.content.clear();
                (self.undecided, self.fixed) = (None, 0);
                self.emptied = true;
            } else {
                if size < self.undecided.unwrap_or(self.fixed) as u64 {
                    return false;
                }
                self.content.truncate(size as usize);
                self.by_fsetstat = Some(size);
            }
            self.early.retain(|at, _| *at < size);
            self.untouched = false;
            self.declared = (size > 0).then_some(size);
        }
        self.mtime = mtime.or(self.mtime);
        true
    }

    /// Whether it is the one that receives this upload.
    pub(crate) fn receives(&self, draft: u64) -> bool {
        self.open && self.draft == draft && self.held_at.is_none()
    }

    pub(crate) fn is_unchanged(&self) -> bool {
        self.held_at.is_some() && self.untouched
    }

    pub(crate) fn close(&self, temp: bool) -> End {
        let length = self.content.len() as u64;
        if self.is_unchanged() {
            return End::Unchanged;
        }
        let says_complete = self.emptied || [self.at_open, self.by_fsetstat].contains(&Some(length));
        if self.resumed && !self.wrote && !says_complete && !temp {
            return End::Parked(false);
        }
        if let Some(kept) = &self.keeps {
            let as_it_is = |size: Option<u64>| size.is_none_or(|size| size == kept.size);
            if !self.wrote && !self.emptied && as_it_is(self.at_open) && as_it_is(self.by_fsetstat) {
                return End::Kept(kept.failed);
            }
        }
        let whole_or_end = self.shown.is_some() || self.append_from.is_some();
        if whole_or_end && self.wrote && self.untouched || !self.early.is_empty() {
            return End::Parked(false);
        }
        if self.declared.is_some_and(|declared| length < declared) {
            return End::Parked(temp);
        }
        End::Complete
    }
}
