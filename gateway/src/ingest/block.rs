//! Blocks on their way to the blob store: the bytes, the memory they stand for, and a second life for their buffers.

use super::budget::Share;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// Buffers that are kept for the next block: one that is filled while another is hashed.
const KEPT: usize = 2;
/// Larger ones go back to the allocator: at that size the network is what costs time, and idle memory counts.
const KEPT_MAX_BYTES: usize = 1 << 20;

/// Buffers of one upload that the store is done with. Fresh memory from the system costs a page fault every 4 KiB,
/// which is more than copying the payload; a recycled buffer costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    /// An empty buffer with room for `capacity` bytes: a spare one, else a new one.
    pub(super) fn get(&self, capacity: usize) -> Vec<u8> {
        self.take()
            .filter(|spare| spare.capacity() >= capacity)
            .unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Gives all of them back to the allocator.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > KEPT_MAX_BYTES {
            return;
        }
        buffer.clear();
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < KEPT {
            spares.push(buffer);
        }
    }
}

/// What a buffer is counted against until it is dropped. Only its drop matters.
#[derive(Debug)]
pub(super) enum Hold {
    /// A block of a streaming upload.
    Share { _share: Option<Share>, spares: Spares },
    /// The whole content of a small one.
    Small { _permit: Option<OwnedSemaphorePermit> },
}

/// A full block, or the rest of an upload, that waits for its turn.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    pub(super) hold: Hold,
}

impl Block {
    /// The bytes as the store takes them. When the last reference is dropped the memory is free again.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.data.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Hold::Share { spares, .. } = &self.hold {
            spares.put(std::mem::take(&mut self.data));
        }
    }
}
