use super::{Failure, deadlines, sentence, within};
use crate::{
    blob::{BlobError, BlobReader, BlobStore, BlobWriter, Space},
    observe::Counter,
};
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::{id::BlobId, upload::StagedBlob};
use futures::StreamExt as _;
use std::time::Duration;

impl Failure for BlobError {
    fn late(after: Duration) -> Self {
        Self::Unavailable(sentence(after))
    }
    fn is_ours(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Conflict { .. } => false,
            Self::Full(_) | Self::Unavailable(_) | Self::Rejected(_) | Self::Corrupt { .. } => true,
        }
    }
}

deadlines! { BlobStore, BlobError, ErrorsBlob {
    async fn delete(&self, blob: BlobId) -> ();
    async fn list(&self, older_than: Duration, after: Option<BlobId>, limit: usize) -> Vec<BlobId>;
    async fn space(&self) -> Option<Space>;
    async fn check(&self) -> ();
}
    fn block_size(&self) -> usize {
        self.inner.block_size()
    }

    async fn begin(&self, blob: BlobId, epoch: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        let inner = within(self.limit, Counter::ErrorsBlob, self.inner.begin(blob, epoch)).await?;
        Ok(Box::new(Writer { inner, limit: self.limit }))
    }

    async fn resume(
        &self,
        staged: &StagedBlob,
        length: u64,
        epoch: u64,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        let inner = within(self.limit, Counter::ErrorsBlob, self.inner.resume(staged, length, epoch)).await?;
        Ok(Box::new(Writer { inner, limit: self.limit }))
    }

    async fn open(&self, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError> {
        let limit = self.limit;
        let pieces = within(limit, Counter::ErrorsBlob, self.inner.open(blob, offset)).await?;
        // After an error the stream is over: what came later could not be trusted to follow on.
        let pieces = futures::stream::unfold(Some(pieces), move |pieces| async move {
            let mut pieces = pieces?;
            let next = async { pieces.next().await.transpose() };
            match within(limit, Counter::ErrorsBlob, next).await.transpose()? {
                Ok(piece) => Some((Ok(piece), Some(pieces))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(pieces.boxed())
    }
}

struct Writer {
    inner: Box<dyn BlobWriter>,
    limit: Duration,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError> {
        within(self.limit, Counter::ErrorsBlob, self.inner.stage(block)).await
    }
    async fn sync(&mut self) -> Result<StagedBlob, BlobError> {
        within(self.limit, Counter::ErrorsBlob, self.inner.sync()).await
    }
    async fn seal(self: Box<Self>, size: u64) -> Result<(), BlobError> {
        within(self.limit, Counter::ErrorsBlob, self.inner.seal(size)).await
    }
}
