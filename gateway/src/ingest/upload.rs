//! One upload while its handle is open: from the first WRITE to the sealed blob.

use super::{error::IngestError, reorder::WindowLimits};
use crate::ingest::budget::Budgets;
use bytes::Bytes;
use dropgate_backends::BlobStore;
use dropgate_schemas::{content::ContentType, digest::Sha256, id::BlobId, upload::Staged};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What one upload may use. One value serves all uploads of a gateway.
#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// Largest file, in bytes. Default 150 GiB.
    pub max_size: u64,
    /// Up to this many bytes the content is handed to the record instead of the blob store. Default 64 KiB.
    pub inline_max: usize,
    /// Bound of the reorder window. Default 8 MiB in 1,024 pieces.
    pub window: WindowLimits,
    /// How long a WRITE waits for memory that the storage has to free. Default 40 s.
    pub stall_limit: Duration,
    /// How long one call of the blob store may take. Default 40 s.
    pub store_deadline: Duration,
    /// Progress is saved when so much time has passed… Default 2 s.
    pub progress_interval: Duration,
    /// …or so many bytes have come since the last time. Default 64 MiB.
    pub progress_bytes: u64,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self {
            max_size: 150 << 30,
            inline_max: 64 << 10,
            window: WindowLimits::default(),
            stall_limit: Duration::from_secs(40),
            store_deadline: Duration::from_secs(40),
            progress_interval: Duration::from_secs(2),
            progress_bytes: 64 << 20,
        }
    }
}

/// What an upload works with.
#[derive(Clone)]
pub struct UploadContext {
    /// Where larger content goes.
    pub store: Arc<dyn BlobStore>,
    /// Memory, shared with the other uploads of the connection and of the gateway.
    pub budgets: Budgets,
    /// Bounds and deadlines.
    pub options: Arc<UploadOptions>,
    /// What is left of the account's quota, in bytes; none for no quota.
    pub quota_left: Option<u64>,
    /// Epoch of the record: fences off a former owner's writes to the blob.
    pub epoch: u64,
}

/// A complete upload, verified and (unless inline) sealed in the blob store.
#[derive(Debug)]
pub struct Finished {
    /// Where the bytes are.
    pub content: Content,
    /// Bytes.
    pub size: u64,
    /// Digest of all bytes.
    pub sha256: Sha256,
    /// What kind of file it is, and how that was found.
    pub content_type: ContentType,
    /// Blobs that hold nothing any more, because the client started again: give them to
    /// [`delete_blobs`] once the record doesn't name them.
    pub replaced: Vec<BlobId>,
}

/// Where the bytes of a finished upload are.
#[derive(Debug)]
pub enum Content {
    /// Small enough to be written with the record (`BlobRef::Inline`). Holds its share of the budget until dropped.
    Inline(Bytes),
    /// Sealed under this id (`BlobRef::Stored`).
    Stored(BlobId),
}

/// What is left of an upload whose handle went away without CLOSE.
#[derive(Debug)]
pub struct Parked {
    /// Durable progress to resume from; none if nothing durable exists.
    pub staged: Option<Staged>,
    /// Blobs that hold nothing any more; see [`Finished::replaced`].
    pub replaced: Vec<BlobId>,
}

/// One upload while its handle is open.
///
/// [`write`](Self::write) copies the payload once into a block buffer; full blocks go to the upload's own worker task,
/// which hashes them in order and stages them. The worker starts when an upload outgrows the inline bound, so small
/// files cost neither a task nor a large buffer. All methods take `&self` and are cancel-safe: a dropped `write` has
/// taken nothing, and every permit goes back when its bytes are gone. Dropping the value ends the worker and frees the
/// memory; what was staged stays in the store for the collector.
///
/// After the first error the upload is failed: later writes are discarded with the same error, and it can only be
/// [parked](Self::park) or [abandoned](Self::abandon).
#[derive(Debug)]
pub struct OpenUpload {}

impl OpenUpload {
    /// A new file (`OPEN` of a name that has nothing to continue, or with `TRUNC`). Does no I/O.
    #[must_use]
    pub fn fresh(context: UploadContext) -> Self {
        let _ = context;
        todo!()
    }

    /// Continues an interrupted upload, or replaces it: the first WRITE decides, at exactly `staged.length` or at 0.
    /// Does no I/O; the blob is looked for at the first WRITE.
    ///
    /// # Errors
    /// [`IngestError::NotResumable`] if the stored digest state can't be read.
    pub fn resume(context: UploadContext, staged: Staged) -> Result<Self, IngestError> {
        let _ = (context, staged);
        todo!()
    }

    /// Continues an unsealed upload of which the content is at hand (a held file that is kept inline).
    #[must_use]
    pub fn resume_inline(context: UploadContext, content: &Bytes) -> Self {
        let _ = (context, content);
        todo!()
    }

    /// Takes the payload of one WRITE. Waits only for memory that the storage frees, never for output.
    ///
    /// # Errors
    /// Any [`IngestError`]; a storage failure is reported on the first WRITE after it.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), IngestError> {
        let _ = (offset, data);
        todo!()
    }

    /// FSETSTAT with a size: equal is fine, larger declares a size, 0 starts again, smaller cuts what is not staged yet.
    ///
    /// # Errors
    /// [`IngestError::Rewrite`] if it would cut staged bytes (the upload goes on), or the error the upload failed with.
    pub fn truncate(&self, size: u64) -> Result<(), IngestError> {
        let _ = size;
        todo!()
    }

    /// Declares the size the file will have (`OPEN` with SIZE): [`finish`](Self::finish) refuses fewer bytes.
    pub fn declare_size(&self, size: u64) {
        let _ = size;
        todo!()
    }

    /// The declared size, if there is one.
    #[must_use]
    pub fn declared_size(&self) -> Option<u64> {
        todo!()
    }

    /// Bytes that arrived without a gap; for an upload that may be resumed and has got nothing yet, the bytes before it.
    #[must_use]
    pub fn received(&self) -> u64 {
        todo!()
    }

    /// No WRITE and no truncation came yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        todo!()
    }

    /// The error it failed with, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<IngestError> {
        todo!()
    }

    /// Durable progress, to be saved in the record: a new value at most every 2 s or 64 MiB, none again when the client
    /// starts over. The channel closes when the upload is finished, parked, abandoned or dropped.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<Staged>> {
        todo!()
    }

    /// `fsync@openssh.com`: resolves once everything that has arrived so far is durable in the blob store. The future
    /// borrows nothing, so that it can run beside further requests.
    ///
    /// # Errors
    /// [`IngestError::Hole`] if bytes wait behind a gap; otherwise the error the upload failed with.
    pub fn flush_durable(&self) -> impl Future<Output = Result<(), IngestError>> + Send + 'static + use<> {
        async { todo!() }
    }

    /// CLOSE: the rest is staged, the digest and the content type are settled, the blob is sealed.
    ///
    /// # Errors
    /// [`IngestError::Hole`] and [`IngestError::Short`] before anything was done: the upload may still be parked.
    /// Otherwise what it failed with.
    pub async fn finish(&self) -> Result<Finished, IngestError> {
        todo!()
    }

    /// The connection was lost, or the file is short: what is there without a gap becomes durable, to be resumed later.
    /// After a storage failure it tells the last durable progress.
    pub async fn park(&self) -> Parked {
        todo!()
    }

    /// Gives the upload up. Returns the blobs to delete once the record says so, by [`delete_blobs`].
    pub async fn abandon(&self) -> Vec<BlobId> {
        todo!()
    }
}

/// Deletes blobs that no record names. A failure is only logged: the collector finds them later.
pub async fn delete_blobs(store: &dyn BlobStore, blobs: &[BlobId]) {
    let _ = (store, blobs);
    todo!()
}
