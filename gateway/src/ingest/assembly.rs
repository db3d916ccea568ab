//! From WRITEs in any order to blocks in order. No I/O and no waiting: what may be done with a write is decided here,
//! and the bytes are put where they belong.

use super::{
    error::IngestError,
    reorder::{ReorderWindow, WindowLimits},
    spare::Spare,
};
use std::sync::Arc;

/// The open end of an upload: `base` bytes were handed on as blocks, the next ones collect in `fill`, and what lies
/// behind a gap waits in the window.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Length of what was there at OPEN, until the first write shows whether the client goes on or starts again.
    undecided: Option<u64>,
    /// Where the client went on, until the first bytes of its own were handed on: a client that sends out of order may
    /// happen to send the piece at that offset first although it has started again.
    went_on_at: Option<u64>,
    base: u64,
    fill: Vec<u8>,
    window: ReorderWindow,
    block_size: usize,
    spare: Arc<Spare>,
}

/// What a write did besides being taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// Blocks that are full now, in order.
    pub(super) full: Vec<Vec<u8>>,
    /// The client started again at 0: what was there before is void.
    pub(super) restarted: bool,
}

impl Assembly {
    /// `there` bytes exist already and may be continued; the last of them are `tail`, when they are at hand.
    pub(super) fn new(
        there: u64,
        tail: Vec<u8>,
        block_size: usize,
        limits: WindowLimits,
        spare: Arc<Spare>,
    ) -> Self {
        Self {
            undecided: (there > 0).then_some(there),
            went_on_at: None,
            base: there - tail.len() as u64,
            fill: tail,
            window: ReorderWindow::new(limits),
            block_size,
            spare,
        }
    }

    /// Where its buffers come from, and go.
    pub(super) const fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Bytes without a gap from the beginning on.
    pub(super) fn contiguous(&self) -> u64 {
        self.base + self.fill.len() as u64
    }

    /// Bytes in memory here.
    pub(super) fn held(&self) -> usize {
        self.fill.len() + self.window.bytes()
    }

    /// Bytes that wait to be handed on, without a gap.
    pub(super) fn filled(&self) -> usize {
        self.fill.len()
    }

    /// Whether bytes wait behind a gap.
    pub(super) fn has_gap(&self) -> bool {
        !self.window.is_empty()
    }

    /// Why the upload is not complete as it is, if bytes wait behind a gap.
    pub(super) fn gap(&self) -> Option<IngestError> {
        if !self.has_gap() {
            return None;
        }
        Some(match self.undecided {
            Some(resume_at) => IngestError::StartElsewhere { resume_at },
            None => IngestError::Hole { missing: self.contiguous() },
        })
    }

    /// Whether `length` bytes at `offset` can be taken.
    ///
    /// # Errors
    /// `Rewrite`, `TooFarAhead` or `StartElsewhere`.
    pub(super) fn check(&self, offset: u64, length: usize) -> Result<(), IngestError> {
        if let Some(resume_at) = self.undecided {
            if self.decides(offset, resume_at).is_none() {
                self.window.check(offset, length).map_err(|_| IngestError::StartElsewhere { resume_at })?;
            }
            return Ok(());
        }
        if offset < self.base {
            return match self.went_on_at {
                Some(resume_at) if self.window.fits(self.fill.len() + length) => {
                    self.window.check(offset, length).map_err(|_| IngestError::StartElsewhere { resume_at })
                }
                Some(_) | None => Err(IngestError::Rewrite { fixed: self.base }),
            };
        }
        let missing = self.contiguous();
        if offset > missing {
            self.window.check(offset, length).map_err(|full| IngestError::TooFarAhead { missing, full })?;
        }
        Ok(())
    }

    /// Takes the bytes of one write.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); then nothing was changed.
    pub(super) fn place(&mut self, offset: u64, data: &[u8]) -> Result<Placed, IngestError> {
        self.check(offset, data.len())?;
        let mut placed = Placed::default();
        if offset < self.base && self.went_on_at.is_some() {
            self.undecide();
        }
        if let Some(resume_at) = self.undecided {
            match self.decides(offset, resume_at) {
                Some(First::Resume) => (self.undecided, self.went_on_at) = (None, Some(self.base)),
                Some(First::Over) => {
                    self.start_over();
                    placed.restarted = true;
                }
                None => {
                    self.window.hold(offset, data).map_err(|_| IngestError::StartElsewhere { resume_at })?;
                    return Ok(placed);
                }
            }
        }
        let missing = self.contiguous();
        if offset > missing {
            self.window.hold(offset, data).map_err(|full| IngestError::TooFarAhead { missing, full })?;
            return Ok(placed);
        }
        let mut data = data;
        if offset < missing {
            // Sent again while it is still here: the last arrival wins.
            let at = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
            let here = self.fill.get_mut(at..).unwrap_or_default();
            let (again, new) = data.split_at(here.len().min(data.len()));
            if let Some(here) = here.get_mut(..again.len()) {
                here.copy_from_slice(again);
            }
            data = new;
        }
        if !self.window.is_empty() && !data.is_empty() {
            self.window.discard_before(missing + data.len() as u64);
        }
        self.append(data, &mut placed.full);
        while !self.window.is_empty()
            && let Some(piece) = self.window.take(self.contiguous())
        {
            self.append(&piece, &mut placed.full);
        }
        Ok(placed)
    }

    /// Takes out what has collected since the last full block.
    pub(super) fn take_fill(&mut self) -> Vec<u8> {
        self.base += self.fill.len() as u64;
        self.went_on_at = None;
        std::mem::take(&mut self.fill)
    }

    /// Cuts the file to `size`; what was handed on can't be cut, except to nothing.
    ///
    /// # Errors
    /// `Rewrite`; then nothing was changed.
    pub(super) fn truncate(&mut self, size: u64) -> Result<(), IngestError> {
        if size < self.contiguous() {
            let fixed = self.undecided.unwrap_or(self.base);
            if size == 0 {
                self.start_over();
            } else if size < fixed {
                return Err(IngestError::Rewrite { fixed });
            } else {
                self.fill.truncate(usize::try_from(size - self.base).unwrap_or(usize::MAX));
            }
        }
        self.window.discard_from(size);
        Ok(())
    }

    /// Drops what waits behind a gap.
    pub(super) fn drop_window(&mut self) {
        self.window.clear();
    }

    /// Gives back all memory; nothing is taken after that.
    pub(super) fn clear(&mut self) {
        self.base = self.contiguous();
        self.fill = Vec::new();
        self.window.clear();
    }

    /// Back to before the first write, with what has come since waiting in the window.
    fn undecide(&mut self) {
        self.undecided = self.went_on_at.take();
        let fill = std::mem::take(&mut self.fill);
        // `check` has seen to it that there is room.
        let _ = self.window.hold(self.base, &fill);
    }

    fn start_over(&mut self) {
        (self.undecided, self.went_on_at) = (None, None);
        self.base = 0;
        self.fill.clear();
    }

    /// What a first write at `offset` means; none if it has to wait. Bytes that wait before the end of the old content
    /// show that a client which sends out of order has started again.
    fn decides(&self, offset: u64, resume_at: u64) -> Option<First> {
        if offset == 0 {
            return Some(First::Over);
        }
        let started_again = self.window.first_offset().is_some_and(|first| first < resume_at);
        (offset == resume_at && !started_again).then_some(First::Resume)
    }

    fn append(&mut self, mut data: &[u8], full: &mut Vec<Vec<u8>>) {
        while !data.is_empty() {
            let room = self.block_size - self.fill.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.grow(now.len());
            self.fill.extend_from_slice(now);
            data = later;
            if self.fill.len() >= self.block_size {
                full.push(self.take_fill());
            }
        }
    }

    /// The first buffer of an upload grows by doubling, since most files are small; later ones are whole blocks.
    fn grow(&mut self, more: usize) {
        let needed = self.fill.len() + more;
        if needed <= self.fill.capacity() {
            return;
        }
        if self.base > 0 && self.fill.is_empty() {
            self.fill = self.spare.take(self.block_size);
        } else {
            let capacity = (self.fill.capacity() * 2).clamp(needed, self.block_size.max(needed));
            self.fill.reserve_exact(capacity - self.fill.len());
        }
    }
}

enum First {
    Resume,
    Over,
}

#[cfg(test)]
mod tests;
