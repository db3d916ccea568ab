//! The bytes of an upload on their way out: in pieces, counted and hashed again.

use super::DeliverError;
use crate::failpoint::{self, Failpoints};
use bytes::Bytes;
use dropgate_backends::{Backends, BlobError, BlobReader};
use dropgate_schemas::{
    digest::Sha256,
    upload::{BlobRef, Upload},
};
use futures::{StreamExt as _, stream};
use sha2::Digest as _;
use std::time::Duration;

/// No piece is larger, so that hashing one doesn't keep a thread for long.
const PIECE: usize = 256 << 10;
/// Longest wait for the next bytes from the blob store.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an upload consists of, to be read once.
pub(crate) struct Source {
    bytes: BlobReader,
    rest: Bytes,
    size: u64,
    sha256: Sha256,
    given: u64,
    hash: sha2::Sha256,
    failpoints: Failpoints,
}

impl Source {
    /// Opens the bytes of a complete upload.
    pub(crate) async fn open(
        backends: &Backends,
        upload: &Upload,
        failpoints: Failpoints,
    ) -> Result<Self, DeliverError> {
        let incomplete =
            || DeliverError::Source(format!("upload {} has no bytes on record", upload.upload_id));
        let bytes = match upload.blob.as_ref().ok_or_else(incomplete)? {
            BlobRef::Inline => {
                let inline = backends.state.inline(upload.upload_id).await;
                let inline =
                    inline.map_err(|e| DeliverError::Source(e.to_string()))?.ok_or_else(incomplete)?;
                stream::iter([Ok(inline)]).boxed()
            }
            BlobRef::Stored { blob } => backends.blob.open(*blob, 0).await.map_err(from_blob)?,
        };
        Ok(Self {
            bytes,
            rest: Bytes::new(),
            size: upload.size.ok_or_else(incomplete)?,
            sha256: upload.sha256.ok_or_else(incomplete)?,
            given: 0,
            hash: sha2::Sha256::new(),
            failpoints,
        })
    }

    /// The next piece; none at the end, once everything is found to be what was accepted.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, DeliverError> {
        self.failpoints.pass(failpoint::WRITING).await;
        while self.rest.is_empty() {
            match tokio::time::timeout(PATIENCE, self.bytes.next()).await {
                Ok(Some(Ok(bytes))) => self.rest = bytes,
                Ok(Some(Err(error))) => return Err(from_blob(error)),
                Ok(None) => return self.end().map(|()| None),
                Err(_) => {
                    let waited = PATIENCE.as_secs();
                    return Err(DeliverError::Source(format!("the blob store gave no bytes for {waited} s")));
                }
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.hash.update(&piece);
        self.given += piece.len() as u64;
        Ok(Some(piece))
    }

    /// For adapters to call when everything is written and nothing compared.
    pub(crate) async fn written(&mut self) {
        self.failpoints.pass(failpoint::WRITTEN).await;
    }

    fn end(&mut self) -> Result<(), DeliverError> {
        let found = Sha256(self.hash.finalize_reset().into());
        if self.given == self.size && found == self.sha256 {
            return Ok(());
        }
        Err(DeliverError::Digest(format!(
            "the stored bytes are not those that were accepted: {} bytes with SHA-256 {found} instead of {} with {}; \
             nothing was delivered",
            self.given, self.size, self.sha256
        )))
    }
}

fn from_blob(error: BlobError) -> DeliverError {
    match error {
        BlobError::Corrupt { .. } => DeliverError::Digest(format!("{error}; nothing was delivered")),
        BlobError::NotFound(_)
        | BlobError::Conflict { .. }
        | BlobError::Full(_)
        | BlobError::Unavailable(_)
        | BlobError::Rejected(_) => DeliverError::Source(error.to_string()),
    }
}
