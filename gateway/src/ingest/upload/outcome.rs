//! What comes of an upload.

use bytes::Bytes;
use dropgate_schemas::{content::ContentType, digest::Sha256, id::BlobId, upload::Staged};

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
    /// [`delete_blobs`](super::delete_blobs) once the record doesn't name them.
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
