//! Room that new uploads must leave, so that those under way can finish.

use super::failed;
use crate::blob::{BlobError, Space};
use std::{io, path::Path};

const LARGEST_DEFAULT: u64 = 1 << 30;

/// Bytes that stay free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve(u64);

impl Reserve {
    /// As configured, or 1 GiB or 5 % of the file system, whichever is less.
    pub(super) fn new(root: &Path, configured: Option<u64>) -> io::Result<Self> {
        if let Some(bytes) = configured {
            return Ok(Self(bytes));
        }
        let disk = rustix::fs::statvfs(root)?;
        Ok(Self((disk.f_blocks.saturating_mul(disk.f_frsize) / 20).min(LARGEST_DEFAULT)))
    }

    /// The room of the file system, without what is kept back.
    pub(super) fn space(self, root: &Path) -> Result<Space, BlobError> {
        let disk = rustix::fs::statvfs(root).map_err(|e| failed(root, &e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space { total: bytes(disk.f_blocks), free: bytes(disk.f_bavail).saturating_sub(self.0) })
    }

    /// Whether there is room for something new.
    pub(super) fn check(self, root: &Path) -> Result<(), BlobError> {
        if self.space(root)?.free == 0 && self.0 > 0 {
            return Err(BlobError::Full(format!(
                "{} has no more than the {} bytes free that are kept for uploads under way \
                 ([backends.blob] reserve_bytes): make room there",
                root.display(),
                self.0
            )));
        }
        Ok(())
    }
}
