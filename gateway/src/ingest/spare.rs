//! Block buffers that were used and will be used again.
//!
//! A buffer as large as a block goes back to the system when the allocator gets it back, and the next one costs a page fault
//! for every 4 KiB of it. Kept here, the one that was used last is even still in the processor's cache.

use std::sync::{Mutex, PoisonError};

/// Smaller ones are the allocator's business.
const LEAST: usize = 128 << 10;

/// Buffers for the blocks of all uploads of a gateway.
#[derive(Debug, Default)]
pub(super) struct Spare {
    kept: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl Spare {
    /// Keeps buffers of up to `most` bytes in all.
    pub(super) const fn new(most: usize) -> Self {
        Self { kept: Mutex::new(Vec::new()), most }
    }

    /// An empty buffer with room for `size` bytes.
    pub(super) fn take(&self, size: usize) -> Vec<u8> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.filter(|buffer| buffer.capacity() >= size).unwrap_or_else(|| Vec::with_capacity(size))
    }

    /// Takes a buffer back that nobody needs any more.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < LEAST {
            return;
        }
        buffer.clear();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = kept.iter().map(Vec::capacity).sum();
        if held + buffer.capacity() <= self.most {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_buffer_is_used_again_and_no_more_are_kept_than_allowed() {
        let spare = Spare::new(3 * LEAST);
        let mut first = spare.take(LEAST);
        first.push(1);
        let place = first.as_ptr();
        spare.give(first);
        let again = spare.take(LEAST);
        assert!(again.is_empty() && again.as_ptr() == place);
        for size in [LEAST - 1, LEAST, LEAST, 2 * LEAST] {
            spare.give(Vec::with_capacity(size));
        }
        let kept: Vec<usize> = spare.kept.lock().unwrap().iter().map(Vec::capacity).collect();
        assert_eq!(kept, [LEAST, LEAST]);
        assert!(spare.take(2 * LEAST).capacity() >= 2 * LEAST);
    }
}
