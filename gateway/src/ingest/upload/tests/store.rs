use super::BLOCK;
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_backends::{BlobError, BlobReader, BlobStore, BlobWriter, blob::Space};
use dropgate_schemas::{id::BlobId, upload::StagedBlob};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// A store in memory whose staging can be held up, or made to fail, at will.
pub(super) struct Store {
    pub(super) blobs: Arc<Mutex<HashMap<BlobId, Stored>>>,
    pub(super) gate: Arc<Semaphore>,
    pub(super) fail: Arc<AtomicBool>,
    /// Blocks that were brought so far.
    pub(super) staging: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: usize,
    pub(super) syncs: usize,
    sealed: bool,
}

struct Writer {
    blob: BlobId,
    blobs: Arc<Mutex<HashMap<BlobId, Stored>>>,
    gate: Arc<Semaphore>,
    fail: Arc<AtomicBool>,
    staging: Arc<AtomicUsize>,
}

impl Store {
    pub(super) fn open() -> Arc<Self> {
        Self::with_gate(Semaphore::MAX_PERMITS)
    }

    /// Only so many blocks are taken until the gate gets more permits.
    pub(super) fn with_gate(blocks: usize) -> Arc<Self> {
        Arc::new(Self {
            blobs: Arc::default(),
            gate: Arc::new(Semaphore::new(blocks)),
            fail: Arc::default(),
            staging: Arc::default(),
        })
    }

    fn writer(&self, blob: BlobId) -> Box<dyn BlobWriter> {
        Box::new(Writer {
            blob,
            blobs: Arc::clone(&self.blobs),
            gate: Arc::clone(&self.gate),
            fail: Arc::clone(&self.fail),
            staging: Arc::clone(&self.staging),
        })
    }

    pub(super) fn sealed(&self, blob: BlobId) -> Vec<u8> {
        let blobs = self.blobs.lock().unwrap();
        assert!(blobs[&blob].sealed);
        blobs[&blob].bytes.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blobs.lock().unwrap().is_empty()
    }
}

#[async_trait]
impl BlobStore for Store {
    fn block_size(&self) -> usize {
        BLOCK
    }
    async fn begin(&self, blob: BlobId, _: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        self.blobs.lock().unwrap().insert(blob, Stored::default());
        Ok(self.writer(blob))
    }
    async fn resume(
        &self,
        staged: &StagedBlob,
        length: u64,
        _: u64,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        let mut blobs = self.blobs.lock().unwrap();
        let stored = blobs.get_mut(&staged.blob).ok_or(BlobError::NotFound(staged.blob))?;
        assert!(stored.durable as u64 >= length, "resumed beyond what was durable");
        stored.bytes.truncate(length as usize);
        Ok(self.writer(staged.blob))
    }
    async fn open(&self, blob: BlobId, _: u64) -> Result<BlobReader, BlobError> {
        Err(BlobError::NotFound(blob))
    }
    async fn delete(&self, blob: BlobId) -> Result<(), BlobError> {
        self.blobs.lock().unwrap().remove(&blob);
        Ok(())
    }
    async fn list(&self, _: Duration, _: Option<BlobId>, _: usize) -> Result<Vec<BlobId>, BlobError> {
        Ok(Vec::new())
    }
    async fn space(&self) -> Result<Option<Space>, BlobError> {
        Ok(None)
    }
    async fn check(&self) -> Result<(), BlobError> {
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError> {
        self.staging.fetch_add(1, SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if self.fail.load(SeqCst) {
            return Err(BlobError::Unavailable("connection reset".into()));
        }
        self.blobs.lock().unwrap().get_mut(&self.blob).unwrap().bytes.extend_from_slice(&block);
        Ok(())
    }
    async fn sync(&mut self) -> Result<StagedBlob, BlobError> {
        let mut blobs = self.blobs.lock().unwrap();
        let stored = blobs.get_mut(&self.blob).unwrap();
        stored.durable = stored.bytes.len();
        stored.syncs += 1;
        Ok(StagedBlob { blob: self.blob, blocks: Vec::new(), tag: None })
    }
    async fn seal(self: Box<Self>, size: u64) -> Result<(), BlobError> {
        let mut blobs = self.blobs.lock().unwrap();
        let stored = blobs.get_mut(&self.blob).unwrap();
        assert_eq!(stored.bytes.len() as u64, size);
        stored.sealed = true;
        Ok(())
    }
}
