//! Where the bytes of uploads are kept between acceptance and delivery.

#[cfg(feature = "azure")]
pub(crate) mod azure;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod directory;

use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::{id::BlobId, upload::StagedBlob};

/// What went wrong with the blob store, as what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("blob {0} does not exist in the blob store")]
    NotFound(BlobId),
    /// Somebody else owns or has sealed it.
    #[error("blob {blob}: {what}")]
    Conflict {
        /// Which.
        blob: BlobId,
        /// What stands against it.
        what: String,
    },
    /// The store has no room (or its reserve is reached).
    #[error("the blob store is full: {0}")]
    Full(String),
    /// The store can't be reached or did not answer in time: try again.
    #[error("the blob store is unavailable: {0}")]
    Unavailable(String),
    /// The store refused for a reason that does not pass by itself: wrong credential, missing container.
    #[error("the blob store refused: {0}")]
    Rejected(String),
    /// What was read is not what was written.
    #[error("blob {blob} is corrupt: {what}")]
    Corrupt {
        /// Which.
        blob: BlobId,
        /// How it shows.
        what: String,
    },
}

/// A store of immutable blobs. A blob is written by one [`BlobWriter`] at a time, in order, and never changes once
/// sealed. Blobs are named by UUIDs; no name of a client reaches the store.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// The block size in bytes that the store likes best: what [`BlobWriter::stage`] should be given, but for the last.
    fn block_size(&self) -> usize;

    /// Starts a new blob for the owner of `epoch`.
    async fn begin(&self, blob: BlobId, epoch: u64) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Continues an unsealed blob at `length`, which was reported by [`BlobWriter::sync`] with `staged`; what lies behind
    /// it is thrown away. Blocks staged by owners of older epochs can't get in any more.
    async fn resume(
        &self,
        staged: &StagedBlob,
        length: u64,
        epoch: u64,
    ) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Opens a sealed blob for reading from `offset` on. One that is not sealed is not there for readers. An offset behind the
    /// end is [`BlobError::Corrupt`]: somebody counted wrong.
    async fn open(&self, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError>;

    /// Removes a blob, sealed or not. Removing what is not there is fine.
    async fn delete(&self, blob: BlobId) -> Result<(), BlobError>;

    /// Lists blobs, sealed or not, that were last written more than `older_than` ago, at most `limit`, beginning after
    /// `after` in the store's own order. For the collector of orphans; a gateway's credential need not allow it.
    async fn list(
        &self,
        older_than: std::time::Duration,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>, BlobError>;

    /// How much room there is, where the store knows: for `statvfs@openssh.com`.
    async fn space(&self) -> Result<Option<Space>, BlobError>;

    /// Whether the store answers and can be written to; for readiness.
    async fn check(&self) -> Result<(), BlobError>;
}

/// Room of a store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// Left for uploads.
    pub free: u64,
}

/// The one writer of an unsealed blob. Dropping it leaves what was staged where it is.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends a block. On return the store has taken it; it need not be durable. After an error the writer is spent.
    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError>;

    /// Makes everything staged so far durable and tells how to continue from there with [`BlobStore::resume`].
    async fn sync(&mut self) -> Result<StagedBlob, BlobError>;

    /// Makes the blob complete, durable and immutable. `size` is what the caller staged in all; a store that has another
    /// count refuses as [`BlobError::Corrupt`]. Sealing again what this writer's epoch sealed is fine.
    async fn seal(self: Box<Self>, size: u64) -> Result<(), BlobError>;
}

/// A stream of a blob's bytes in pieces of bounded size.
pub type BlobReader = futures::stream::BoxStream<'static, Result<Bytes, BlobError>>;
