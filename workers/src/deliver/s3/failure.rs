//! What the store's errors mean.

use super::DeliverError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use std::{error::Error, fmt};

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) key: String,
    /// As configured.
    pub(super) region: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// Why a request had no success.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Absent,
    /// The condition does not hold: somebody else wrote.
    Changed,
    /// There is no such upload in parts.
    NoUpload,
    /// Anything else.
    Wrong(DeliverError),
}

impl From<DeliverError> for Failure {
    fn from(error: DeliverError) -> Self {
        Self::Wrong(error)
    }
}

impl Failure {
    /// `verb` is what was to be done, for people; `right` the permission that it takes.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, place: &Place, verb: &str, right: &str) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default();
        let said = error.message().unwrap_or_default();
        let Some(status) = status else { return Self::Wrong(unanswered(error, place, verb)) };
        let bucket = &place.bucket;
        let region = || {
            let configured = place.region.as_deref().unwrap_or("us-east-1");
            let header = |name| error.raw_response().and_then(|r| r.headers().get(name)).map(str::to_owned);
            let right =
                header("x-amz-bucket-region").map_or_else(String::new, |there| format!(" to {there}"));
            format!(
                "the bucket {bucket} is not in the region {configured}: set region of the destination{right} ({})",
                if said.is_empty() { code } else { said }
            )
        };
        Self::Wrong(match (status, code) {
            (_, "NoSuchUpload") => return Self::NoUpload,
            (_, "NoSuchBucket") => DeliverError::Denied(format!(
                "there is no bucket {bucket}: create it, or correct bucket of the destination"
            )),
            (412, _) | (409, "ConditionalRequestConflict" | "OperationAborted") => return Self::Changed,
            (404, _) => return Self::Absent,
            (
                _,
                "BadDigest"
                | "XAmzContentSHA256Mismatch"
                | "XAmzContentChecksumMismatch"
                | "InvalidDigest"
                | "ChecksumMismatch",
            ) => DeliverError::Digest(format!(
                "the store got other bytes for {place} than were sent ({code}): something between us changes them; \
                     nothing was delivered"
            )),
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "TokenRefreshRequired",
            ) => DeliverError::Denied(format!(
                "the store does not accept the access key for the bucket {bucket} ({code}): check access_key_id and \
                     secret_access_key of the destination"
            )),
            (_, "RequestTimeTooSkewed") => DeliverError::Denied(
                "the clocks of this host and of the store differ too much: set them right".to_owned(),
            ),
            (301 | 307, _)
            | (
                _,
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException",
            ) => DeliverError::Denied(region()),
            (400 | 403, _) if said.to_ascii_lowercase().contains("region") => DeliverError::Denied(region()),
            (401 | 403, _) => DeliverError::Denied(format!(
                "this access key may not {verb} {place}: give it {right} on the bucket {bucket} ({status} {code})"
            )),
            (408 | 429 | 500.., _) | (_, "SlowDown" | "RequestTimeout") => DeliverError::Unavailable(
                format!("the store could not {verb} {place} now: {status} {code} {said}"),
            ),
            (status, code) => {
                DeliverError::Denied(format!("the store would not {verb} {place}: {status} {code} {said}"))
            }
        })
    }
}

fn unanswered<E>(error: &SdkError<E, HttpResponse>, place: &Place, verb: &str) -> DeliverError
where
    E: Error + 'static,
{
    let mut said = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        said = format!("{said}: {cause}");
        at = cause.source();
    }
    if said.contains("credential") {
        return DeliverError::Denied(format!(
            "there are no credentials to {verb} {place}: set access_key_id and secret_access_key of the destination, or give \
             the worker a profile or a role ({said})"
        ));
    }
    if said.contains("certificate") {
        return DeliverError::Unavailable(format!(
            "the certificate of the store of {place} is not trusted: add its CA to those of this system ({said})"
        ));
    }
    DeliverError::Unavailable(format!("no answer to the request to {verb} {place}: {said}"))
}
