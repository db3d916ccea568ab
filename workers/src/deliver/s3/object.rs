//! One object: look at it, put it, compare it, remove it.

use super::{DeliverError, Failure, Place, Target};
use crate::config::S3Config;
use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{ChecksumMode, ChecksumType},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dropgate_schemas::{delivery::VerifiedBy, digest::Sha256};
use sha2::Digest as _;
use std::collections::HashMap;

/// Metadata of what we deliver: `x-amz-meta-delivery-id` and so on.
const DELIVERY: &str = "delivery-id";
const UPLOAD: &str = "upload-id";
const SHA256: &str = "sha256";

/// On what the finishing call depends.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// That nothing is there.
    Absent,
    /// That what is there still has this ETag.
    Is(String),
}

impl Condition {
    pub(super) fn if_none_match(&self) -> Option<String> {
        match self {
            Self::Absent => Some("*".to_owned()),
            Self::Is(_) => None,
        }
    }
    pub(super) fn if_match(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Is(etag) => Some(etag.clone()),
        }
    }
}

/// What the store says of an object.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) etag: String,
    version: Option<String>,
    size: u64,
    delivery: Option<String>,
    /// Checksums of the whole object, where the store has them.
    sha256: Option<String>,
    crc64nvme: Option<String>,
}

impl Head {
    /// Whether it was put there by this delivery.
    pub(super) fn is_of(&self, target: &Target) -> bool {
        self.delivery.as_deref() == Some(target.delivery.to_string().as_str())
    }
    /// Whether it was put there by some delivery.
    pub(super) const fn is_a_delivery(&self) -> bool {
        self.delivery.is_some()
    }
    /// Its version id, or its ETag in a bucket without versions.
    pub(super) fn tag(&self) -> Option<String> {
        let version = self.version.clone().filter(|version| version != "null");
        version.or_else(|| Some(self.etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty()))
    }
}

/// The result of a comparison.
pub(super) enum Compared {
    /// It is right, and how that was found out.
    Right(VerifiedBy),
    /// It is not: what was found.
    Wrong(String),
}

/// The metadata of what we deliver.
pub(super) fn metadata(target: &Target) -> HashMap<String, String> {
    HashMap::from([
        (DELIVERY.to_owned(), target.delivery.to_string()),
        (UPLOAD.to_owned(), target.upload.to_string()),
        (SHA256.to_owned(), target.sha256.to_string()),
    ])
}

pub(super) fn content_type(target: &Target) -> Option<String> {
    target.content_type.as_ref().map(|found| found.mime.clone())
}

/// Looks at the key.
pub(super) async fn head(client: &Client, place: &Place) -> Result<Option<Head>, DeliverError> {
    const RIGHT: &str = "s3:GetObject and s3:ListBucket";
    let request = client.head_object().bucket(&place.bucket).key(&place.key);
    let failed = match request.checksum_mode(ChecksumMode::Enabled).send().await {
        Ok(there) => {
            let whole = there.checksum_type() != Some(&ChecksumType::Composite);
            let sum = |sum: Option<&str>| sum.filter(|sum| whole && !sum.contains('-')).map(str::to_owned);
            return Ok(Some(Head {
                etag: there.e_tag().unwrap_or_default().to_owned(),
                version: there.version_id().map(str::to_owned),
                size: there.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                delivery: there.metadata().and_then(|metadata| metadata.get(DELIVERY)).cloned(),
                sha256: sum(there.checksum_sha256()),
                crc64nvme: sum(there.checksum_crc64_nvme()),
            }));
        }
        Err(error) => Failure::of(&error, place, "look at", RIGHT),
    };
    match failed {
        Failure::Absent => Ok(None),
        Failure::Wrong(DeliverError::Denied(said)) => {
            // The answer to HEAD has no body, so it does not say why. The answer to this does.
            let asked =
                client.get_object().bucket(&place.bucket).key(&place.key).range("bytes=0-0").send().await;
            match asked.map_err(|error| Failure::of(&error, place, "look at", RIGHT)) {
                Err(Failure::Wrong(error)) => Err(error),
                Ok(_) | Err(Failure::Absent | Failure::Changed | Failure::NoUpload) => {
                    Err(DeliverError::Denied(said))
                }
            }
        }
        Failure::Wrong(error) => Err(error),
        Failure::Changed | Failure::NoUpload => {
            Err(DeliverError::Unavailable(format!("the store gave no sensible answer about {place}")))
        }
    }
}

/// Puts an object in one request. The store compares the bytes with their SHA-256 before it keeps them.
pub(super) async fn put(
    client: &Client,
    place: &Place,
    target: &Target,
    bytes: Bytes,
    condition: &Condition,
) -> Result<(), Failure> {
    let put = client.put_object().bucket(&place.bucket).key(&place.key);
    put.content_length(i64::try_from(bytes.len()).unwrap_or_default())
        .body(ByteStream::from(bytes))
        .checksum_sha256(STANDARD.encode(target.sha256.0))
        .set_content_type(content_type(target))
        .set_metadata(Some(metadata(target)))
        .set_if_none_match(condition.if_none_match())
        .set_if_match(condition.if_match())
        .send()
        .await
        .map(drop)
        .map_err(|error| Failure::of(&error, place, "put", "s3:PutObject"))
}

/// Compares what is there by the best means that the store has.
pub(super) async fn compare(
    client: &Client,
    place: &Place,
    config: &S3Config,
    target: &Target,
    there: &Head,
    crc64nvme: Option<u64>,
) -> Result<Compared, DeliverError> {
    if there.size != target.size {
        return Ok(Compared::Wrong(format!("{place} has {} bytes instead of {}", there.size, target.size)));
    }
    if let Some(found) = &there.sha256 {
        if *found == STANDARD.encode(target.sha256.0) {
            return Ok(Compared::Right(VerifiedBy::Sha256));
        }
        return Ok(Compared::Wrong(format!(
            "{place} has the SHA-256 {found} (base64) instead of {}",
            STANDARD.encode(target.sha256.0)
        )));
    }
    if let (Some(found), Some(right)) = (&there.crc64nvme, crc64nvme.map(crc_text)) {
        if *found == right {
            return Ok(Compared::Right(VerifiedBy::Crc64nvme));
        }
        return Ok(Compared::Wrong(format!("{place} has the CRC-64/NVME {found} instead of {right}")));
    }
    if target.size > config.read_back_bytes {
        return Ok(Compared::Right(VerifiedBy::Size));
    }
    let found = read_back(client, place, config, there).await?;
    if found == target.sha256 {
        return Ok(Compared::Right(VerifiedBy::Sha256Readback));
    }
    Ok(Compared::Wrong(format!("{place} has bytes with SHA-256 {found} instead of {}", target.sha256)))
}

/// A CRC-64/NVME as the store writes it.
pub(super) fn crc_text(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

async fn read_back(
    client: &Client,
    place: &Place,
    config: &S3Config,
    there: &Head,
) -> Result<Sha256, DeliverError> {
    let got = client.get_object().bucket(&place.bucket).key(&place.key).if_match(&there.etag).send().await;
    let mut body = match got.map_err(|error| Failure::of(&error, place, "read back", "s3:GetObject")) {
        Ok(got) => got.body,
        Err(Failure::Wrong(error)) => return Err(error),
        Err(Failure::Absent | Failure::Changed | Failure::NoUpload) => {
            return Err(DeliverError::Unavailable(format!("{place} changed while it was compared")));
        }
    };
    let patience = config.deadline_seconds.duration();
    let mut hash = sha2::Sha256::new();
    loop {
        let late =
            || DeliverError::Unavailable(format!("{place} could not be read back within {patience:?}"));
        match tokio::time::timeout(patience, body.next()).await.map_err(|_| late())? {
            Some(Ok(bytes)) => hash.update(&bytes),
            Some(Err(error)) => {
                return Err(DeliverError::Unavailable(format!("{place} could not be read back: {error}")));
            }
            None => return Ok(Sha256(hash.finalize().into())),
        }
    }
}

/// Takes away what was looked at, and nothing that came after it where the store can tell.
pub(super) async fn remove(client: &Client, place: &Place, there: &Head) -> Result<(), DeliverError> {
    let mut request = client.delete_object().bucket(&place.bucket).key(&place.key);
    request = match there.version.as_deref().filter(|version| *version != "null") {
        Some(version) => request.version_id(version),
        None => request.if_match(&there.etag),
    };
    match request.send().await.map_err(|error| Failure::of(&error, place, "remove", "s3:DeleteObject")) {
        Ok(_) | Err(Failure::Absent | Failure::Changed | Failure::NoUpload) => Ok(()),
        Err(Failure::Wrong(error)) => Err(error),
    }
}
