//! From the blob store to a destination: the port, and one folder for each kind of destination.
//!
//! A delivery is made in steps, so that a crash at any point leaves something that the next worker can make sense of:
//! [`Destination::begin`] opens what the bytes go into, where that has a name to be recorded first; [`Destination::stage`]
//! writes everything under a temporary name and compares it there, so that nothing wrong ever becomes visible; then the
//! worker records that it will finish; [`Destination::finish`] makes the file visible in one step; [`Destination::verify`]
//! looks at what is there. After a crash past the record, [`Destination::recover`] finds out how far it went.

#[cfg(feature = "azure")]
mod azure;
mod directory;
mod part;
#[cfg(feature = "s3")]
mod s3;
pub(crate) mod sftp;
mod source;

pub(crate) use source::Source;

use crate::{
    config::{DestinationConfig, Problem},
    failpoint::Failpoints,
};
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_backends::Backends;
use dropgate_schemas::{
    content::ContentType,
    delivery::{Delivery, Finalizing, VerifiedBy},
    digest::Sha256,
    id::{DeliveryId, UploadId},
    upload::Upload,
};
use std::{ops::Range, path::Path, sync::Arc};

/// What is to be where.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "s3", feature = "azure")),
    expect(dead_code, reason = "only object stores keep metadata")
)]
pub(crate) struct Target {
    /// The delivery, and by that the temporary names that belong to it.
    pub(crate) delivery: DeliveryId,
    /// The claim under which it is made.
    pub(crate) epoch: u64,
    /// The key: components joined by `/`, none of them empty, `.` or `..`.
    pub(crate) key: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Digest of the bytes.
    pub(crate) sha256: Sha256,
    /// Whether what is there may be replaced.
    pub(crate) replace: Replace,
    /// The upload that is delivered, for the metadata of object stores.
    pub(crate) upload: UploadId,
    /// The content type that was found, if any.
    pub(crate) content_type: Option<ContentType>,
    /// What [`Destination::begin`] said, in this claim or in the one before.
    pub(crate) begun_as: Option<String>,
}

/// What may be replaced at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// Nothing.
    Nothing,
    /// What we put there: our records say so. Where the destination can tell what we put from what others put there since,
    /// only the former.
    Ours,
    /// Anything, by policy.
    Anything,
}

impl Replace {
    /// Whether something may be replaced at all.
    pub(crate) const fn something(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Ours | Self::Anything => true,
        }
    }
}

impl Target {
    /// From a claimed delivery; none if the upload lacks what acceptance fills in.
    pub(crate) fn of(upload: &Upload, delivery: &Delivery, replace: Replace) -> Option<Self> {
        Some(Self {
            delivery: delivery.delivery_id,
            epoch: delivery.epoch,
            key: delivery.key.clone(),
            size: upload.size?,
            sha256: upload.sha256?,
            replace,
            upload: upload.upload_id,
            content_type: upload.content_type.clone(),
            begun_as: delivery.begun_as.clone(),
        })
    }
}

/// All bytes are there under a temporary name, and were compared as well as the destination allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    /// The temporary name, in the directory of the key; or by what else the destination finds what was staged.
    pub(crate) name: String,
    /// How they were compared.
    pub(crate) verified_by: VerifiedBy,
    /// Small bytes that are sent only by the finishing call, for stores that have no place for them before it.
    pub(crate) kept: Option<Bytes>,
}

/// Where a delivered file lies, for its receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// `file:///…`, `sftp://host:port/…`.
    pub(crate) uri: String,
    /// Bucket or container, where the kind has one.
    pub(crate) container: Option<String>,
    /// ETag or version id, where the destination gave one.
    pub(crate) version_tag: Option<String>,
    /// How it was compared.
    pub(crate) verified_by: VerifiedBy,
}

/// What [`Destination::recover`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// The finishing call had its effect, and the file is right.
    Done(Proof),
    /// It had none: the bytes are still under the temporary name.
    Staged(Staged),
    /// It had none, and what is under the temporary name is not right: begin again.
    Again,
    /// Neither is there. The finishing call had its effect, since nothing else takes the temporary name away, and then
    /// somebody took the file or put another in its place. The sentence says what was found.
    Gone(String),
}

/// Why a delivery failed, as what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeliverError {
    /// The destination can't be reached, did not answer in time, has no room: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// It refused for a reason that does not pass by itself.
    #[error("{0}")]
    Denied(String),
    /// The key is taken by something that is not ours.
    #[error("{0}")]
    Collision(String),
    /// The bytes are not those that were accepted.
    #[error("{0}")]
    Digest(String),
    /// Something of ours, such as the blob store, can't do its part now. Says nothing about the destination.
    #[error("{0}")]
    Source(String),
}

/// A place that files are delivered to. Every call is bounded in time by the adapter.
#[async_trait]
pub(crate) trait Destination: Send + Sync {
    /// Opens what the bytes will be sent into, where the destination gives it a name of its own. The worker records that name
    /// before it calls [`Self::stage`], so that [`Self::discard`] finds it after a crash.
    async fn begin(&self, _: &Target) -> Result<Option<String>, DeliverError> {
        Ok(None)
    }

    /// Writes all bytes of `source` under the temporary name of the target's epoch, durably where the destination can, and
    /// compares them there. On an error nothing is left behind, as far as that can be had.
    async fn stage(&self, target: &Target, source: &mut Source) -> Result<Staged, DeliverError>;

    /// Makes the staged file visible under its key, in one step. [`DeliverError::Collision`] and [`DeliverError::Denied`] mean
    /// that it did not happen; any other error leaves it open.
    async fn finish(&self, target: &Target, staged: &Staged) -> Result<(), DeliverError>;

    /// Looks at the finished file. None if something else is there now. [`DeliverError::Digest`] means that its bytes are wrong
    /// and that it was taken away again.
    async fn verify(&self, target: &Target, staged: &Staged) -> Result<Option<Proof>, DeliverError>;

    /// Finds out what became of a finishing call that an earlier epoch may have made.
    async fn recover(&self, target: &Target, finalizing: &Finalizing) -> Result<Recovered, DeliverError>;

    /// Whether what was staged can be finished under its own key only: then it is staged again when the key changes.
    fn stages_under_the_key(&self) -> bool {
        false
    }

    /// Removes what earlier claims left under their temporary names.
    async fn discard(&self, target: &Target, epochs: Range<u64>) -> Result<(), DeliverError>;

    /// [`Self::discard`] for a delivery that is over or that somebody else may hold: others may be under way under its key.
    async fn discard_later(&self, target: &Target, epochs: Range<u64>) -> Result<(), DeliverError> {
        self.discard(target, epochs).await
    }
}

/// What adapters are made with.
pub(crate) struct Surroundings<'a> {
    pub(crate) backends: &'a Backends,
    pub(crate) data_dir: &'a Path,
}

/// Opens one destination. Nothing is contacted before the first delivery.
pub(crate) fn open(
    config: &DestinationConfig,
    around: &Surroundings<'_>,
) -> Result<Arc<dyn Destination>, Problem> {
    Ok(match config {
        DestinationConfig::Directory(keys) => Arc::new(directory::Directory::new(keys, around.data_dir)),
        DestinationConfig::Sftp(keys) => Arc::new(sftp::Sftp::new(keys, around.backends.secrets.clone())?),
        #[cfg(feature = "azure")]
        DestinationConfig::Azure(keys) => Arc::new(azure::Azure::new(keys, around.backends.secrets.clone())?),
        #[cfg(not(feature = "azure"))]
        DestinationConfig::Azure(keys) => {
            return Err(Problem::new(
                format!("destination {:?}", keys.name.as_str()),
                "this build has no Azure Blob",
                "use one with the feature `azure`, or another kind",
            ));
        }
        #[cfg(feature = "s3")]
        DestinationConfig::S3(keys) => Arc::new(s3::S3::new(keys, around.backends.secrets.clone())),
        #[cfg(not(feature = "s3"))]
        DestinationConfig::S3(keys) => {
            return Err(Problem::new(
                format!("destination {:?}", keys.name.as_str()),
                "this build has no S3",
                "use one with the feature `s3`, or another kind",
            ));
        }
    })
}

/// The bytes of an upload, from wherever they are.
pub(crate) async fn source(
    backends: &Backends,
    upload: &Upload,
    failpoints: &Failpoints,
) -> Result<Source, DeliverError> {
    Source::open(backends, upload, failpoints.clone()).await
}
