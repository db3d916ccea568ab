//! Blobs as files of a local directory.
//!
//! ```text
//! <root>/<last byte of the id>/<id>                sealed
//!                             /<id>.<epoch>        being written, by the owner of that epoch
//! ```
//!
//! The 256 sub-directories are made when the store is opened, so that a new blob needs no new directory and sealing
//! syncs one file and one directory.

mod gate;
mod layout;
mod reader;
mod space;
mod writer;

use super::{BlobError, BlobReader, BlobStore, BlobWriter, Space};
use crate::{durable, open::OpenError};
use async_trait::async_trait;
use dropgate_schemas::{id::BlobId, upload::StagedBlob};
use gate::Gates;
use layout::Layout;
use space::Reserve;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const KEY: &str = "[backends.blob] path";

/// What a block should measure: large enough that the hop to the blocking pool is lost beside the write, and small enough
/// that a block is still in the processor's own cache when it is hashed and written after it was filled.
const BLOCK_SIZE: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct BlobDirectory {
    layout: Arc<Layout>,
    gates: Arc<Gates>,
    reserve: Reserve,
}

impl BlobDirectory {
    /// Opens the store below `root`, making it if it is missing.
    pub(crate) async fn open(root: PathBuf, reserve_bytes: Option<u64>) -> Result<Self, OpenError> {
        let path = root.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let layout = Layout::prepare(root)?;
            durable::probe(layout.root())?;
            let reserve = Reserve::new(layout.root(), reserve_bytes)?;
            Ok(Self { layout: Arc::new(layout), gates: Arc::default(), reserve })
        });
        opened.await.map_err(io::Error::other).flatten().map_err(|e| OpenError::io(KEY, &path, &e))
    }
}

#[async_trait]
impl BlobStore for BlobDirectory {
    fn block_size(&self) -> usize {
        BLOCK_SIZE
    }

    async fn begin(&self, blob: BlobId, epoch: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        let this = self.clone();
        let hold = blocking(move || {
            this.reserve.check(this.layout.root())?;
            this.gates.begin(&this.layout, blob, epoch)
        });
        Ok(Box::new(writer::Writer::new(hold.await?, 0)))
    }

    async fn resume(
        &self,
        staged: &StagedBlob,
        length: u64,
        epoch: u64,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        let (this, blob) = (self.clone(), staged.blob);
        let hold = blocking(move || {
            this.reserve.check(this.layout.root())?;
            this.gates.resume(&this.layout, blob, length, epoch)
        });
        Ok(Box::new(writer::Writer::new(hold.await?, length)))
    }

    async fn open(&self, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError> {
        let layout = self.layout.clone();
        blocking(move || reader::open(&layout.sealed(blob), blob, offset)).await
    }

    async fn delete(&self, blob: BlobId) -> Result<(), BlobError> {
        let this = self.clone();
        blocking(move || this.gates.delete(&this.layout, blob)).await
    }

    async fn list(
        &self,
        older_than: Duration,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>, BlobError> {
        let layout = self.layout.clone();
        blocking(move || layout.list(older_than, after, limit).map_err(|e| failed(layout.root(), &e))).await
    }

    async fn space(&self) -> Result<Option<Space>, BlobError> {
        let this = self.clone();
        blocking(move || this.reserve.space(this.layout.root()).map(Some)).await
    }

    async fn check(&self) -> Result<(), BlobError> {
        let this = self.clone();
        blocking(move || {
            this.reserve.check(this.layout.root())?;
            durable::probe(this.layout.root()).map_err(|e| failed(this.layout.root(), &e))
        })
        .await
    }
}

/// Runs file system calls where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BlobError::Unavailable(format!("a file system call did not finish: {error}"))),
    }
}

/// What the operating system said about `path`, as what the caller can do about it.
fn failed(path: &Path, error: &io::Error) -> BlobError {
    let said = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            BlobError::Full(said)
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => BlobError::Rejected(said),
        _ => BlobError::Unavailable(said),
    }
}

#[cfg(test)]
mod tests;
