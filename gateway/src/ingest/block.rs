//! Blocks on their way to the blob store: the bytes, and the memory they stand for.

use super::{budget::Share, spare::Spare};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What a buffer is counted against until it is dropped. Only its drop matters.
#[derive(Debug)]
pub(super) enum Hold {
    /// A block of a streaming upload.
    Share { _share: Option<Share> },
    /// The whole content of a small one.
    Small { _permit: Option<OwnedSemaphorePermit> },
}

/// A full block, or the rest of an upload, that waits for its turn.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    pub(super) _hold: Hold,
    /// Where the buffer goes when the last reference is dropped.
    pub(super) spare: Arc<Spare>,
}

impl Block {
    /// The bytes as the store takes them. When the last reference is dropped the memory is free again.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.data.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.data));
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
