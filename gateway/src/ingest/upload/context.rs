//! What an upload works with, and within which bounds.

use crate::ingest::{budget::Budgets, content_type::Detector, reorder::WindowLimits};
use dropgate_backends::BlobStore;
use std::{fmt, sync::Arc, time::Duration};

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
    /// Progress is saved when so much time has passed since the last time… Default 2 s.
    pub progress_interval: Duration,
    /// …or a quarter of it and so many bytes have come. Default 64 MiB.
    pub progress_bytes: u64,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self {
            max_size: 150 << 30,
            inline_max: 64 << 10,
            window: WindowLimits::default(),
            stall_limit: Duration::from_secs(40),
            progress_interval: Duration::from_secs(2),
            progress_bytes: 64 << 20,
        }
    }
}

/// What an upload works with.
#[derive(Clone)]
pub struct UploadContext {
    /// Where larger content goes. Its calls must have a deadline of their own, as those of an opened backend do.
    pub store: Arc<dyn BlobStore>,
    /// Memory, shared with the other uploads of the connection and of the gateway.
    pub budgets: Budgets,
    /// Bounds and deadlines.
    pub options: Arc<UploadOptions>,
    /// Names the types of files.
    pub detector: Arc<Detector>,
    /// What is left of the account's quota, in bytes; none for no quota.
    pub quota_left: Option<u64>,
    /// Epoch of the record: fences off a former owner's writes to the blob.
    pub epoch: u64,
}

impl fmt::Debug for UploadContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadContext")
            .field("epoch", &self.epoch)
            .field("quota_left", &self.quota_left)
            .finish()
    }
}
