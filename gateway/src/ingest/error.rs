//! Why bytes of an upload were not taken, or the upload not completed.

use super::reorder::WindowFull;
use dropgate_backends::BlobError;
use std::time::Duration;

/// What went wrong with one upload. The text is fit for the partner: it names no inside of the gateway.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// The first WRITE of a continued upload went neither to its end nor to its beginning.
    #[error("resume at {resume_at} or start at 0")]
    StartElsewhere {
        /// The durable length as it was at OPEN.
        resume_at: u64,
    },
    /// Bytes were sent again that have been taken already and can't be changed any more.
    #[error(
        "bytes before offset {fixed} have been stored and can't be written again: upload the file again from 0"
    )]
    Rewrite {
        /// Offset up to which the bytes are fixed.
        fixed: u64,
    },
    /// Too much was sent ahead of a gap.
    #[error("offset {missing} is missing, and {full}")]
    TooFarAhead {
        /// First byte that has not arrived.
        missing: u64,
        /// The bound that was hit.
        full: WindowFull,
    },
    /// Something in the middle never arrived.
    #[error("bytes from offset {missing} on never arrived, though later ones did: upload the file again")]
    Hole {
        /// First byte that has not arrived.
        missing: u64,
    },
    /// Less arrived than the client declared.
    #[error("{received} of {declared} bytes arrived: send the rest, or upload the file again")]
    Short {
        /// Size the client declared.
        declared: u64,
        /// What arrived, without gaps.
        received: u64,
    },
    /// The file is larger than an upload may be.
    #[error("larger than the {limit} bytes that one file may have")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// The file is larger than what is left of the account's quota.
    #[error(
        "over quota: {left} bytes were left to this account when the file was opened; ask the operator for more"
    )]
    OverQuota {
        /// What was left, in bytes.
        left: u64,
    },
    /// The storage did not take bytes fast enough.
    #[error("the storage took no data for {} s: try again later", .0.as_secs())]
    Stalled(Duration),
    /// The storage failed. Its own text is for the log, not for the partner.
    #[error("the storage is not available: try again later")]
    Store(#[source] BlobError),
    /// What was kept of an interrupted upload can't be continued.
    #[error("what arrived of the file before can't be continued: upload it again from 0")]
    NotResumable,
    /// The upload was closed, parked or abandoned before.
    #[error("the file is closed")]
    Closed,
}
