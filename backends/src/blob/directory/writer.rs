//! Writing one blob: each block with one hop to the blocking pool, synced in the background so that sealing has little left
//! to sync.

use super::{blocking, gate::Hold};
use crate::blob::{BlobError, BlobWriter};
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::upload::StagedBlob;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The background sync begins whenever so much is unsynced. It also bounds what sealing has to sync: the next one waits
/// for the one before.
const SYNC_EVERY: u64 = 64 << 20;

pub(super) struct Writer {
    hold: Arc<Hold>,
    length: u64,
    unsynced: u64,
    syncing: Option<JoinHandle<Result<(), BlobError>>>,
    /// Set while a call is under way: if it fails or is given up, nobody knows what the file holds.
    spent: bool,
}

impl Writer {
    pub(super) fn new(hold: Hold, length: u64) -> Self {
        Self { hold: Arc::new(hold), length, unsynced: 0, syncing: None, spent: false }
    }

    fn enter(&mut self) -> Result<Arc<Hold>, BlobError> {
        if self.spent {
            return Err(BlobError::Unavailable("an earlier write of this upload failed".to_owned()));
        }
        self.spent = true;
        Ok(self.hold.clone())
    }

    async fn finish_syncing(&mut self) -> Result<(), BlobError> {
        match &mut self.syncing {
            None => Ok(()),
            Some(syncing) => {
                let result = syncing.await;
                self.syncing = None;
                result.unwrap_or_else(|e| Err(BlobError::Unavailable(format!("a sync did not finish: {e}"))))
            }
        }
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError> {
        let (hold, offset, size) = (self.enter()?, self.length, block.len() as u64);
        blocking(move || hold.write(&block, offset)).await?;
        self.length += size;
        self.unsynced += size;
        if self.unsynced >= SYNC_EVERY {
            self.finish_syncing().await?;
            let hold = self.hold.clone();
            self.syncing = Some(tokio::task::spawn_blocking(move || hold.sync()));
            self.unsynced = 0;
        }
        self.spent = false;
        Ok(())
    }

    async fn sync(&mut self) -> Result<StagedBlob, BlobError> {
        let hold = self.enter()?;
        let blob = hold.blob()?;
        blocking(move || hold.sync_owned()).await?;
        self.unsynced = 0;
        self.spent = false;
        Ok(StagedBlob { blob, blocks: Vec::new(), tag: None })
    }

    async fn seal(mut self: Box<Self>, size: u64) -> Result<(), BlobError> {
        let hold = self.enter()?;
        if size != self.length {
            let what = format!("{size} bytes were to be sealed and {} were staged", self.length);
            return Err(BlobError::Corrupt { blob: hold.blob()?, what });
        }
        blocking(move || hold.seal(size)).await
    }
}
