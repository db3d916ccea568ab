//! What an answer of Azure means.

use azure_core::{Error, error::ErrorKind, http::StatusCode};
use std::time::Duration;

/// What to make of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such blob.
    NotFound,
    /// There is no such container.
    NoContainer,
    /// A condition of the request does not hold, or something else has it.
    Conflict,
    /// A block of the list is not there.
    NoBlock,
    /// The credential does not allow it.
    Refused,
    /// There is no credential to show: a secret or a token can't be had now.
    NoCredential,
    /// What was asked for lies behind the end.
    Range,
    /// What arrived is not what was sent.
    Damaged,
    /// No room.
    Full,
    /// Busy, late or out of reach.
    Unavailable,
    /// It was not understood, or is something we never ask for.
    Other,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What to make of it.
    pub cause: Cause,
    /// A sentence with the address, never with a credential.
    pub what: String,
    /// Whether the call, or an earlier try of it, may have had its effect all the same.
    pub unsure: bool,
}

impl Failure {
    pub(super) fn late(address: &str, waited: Duration) -> Self {
        let what = format!("{address}: no answer within {:.1} s", waited.as_secs_f32());
        Self { cause: Cause::Unavailable, what, unsure: true }
    }

    /// From what the client says.
    #[must_use]
    pub fn of(address: &str, error: &Error) -> Self {
        let (cause, unsure) = match error.kind() {
            ErrorKind::HttpResponse { status, error_code, .. } => {
                let code = error_code.as_deref().unwrap_or_default();
                (of_status(*status, code), matches!(status, s if s.is_server_error()))
            }
            ErrorKind::Connection => (Cause::Unavailable, false),
            ErrorKind::Credential => (Cause::NoCredential, false),
            ErrorKind::Io => (Cause::Unavailable, true),
            ErrorKind::DataConversion | ErrorKind::Other => (Cause::Other, true),
        };
        let said = said(error);
        let what = match cause {
            Cause::NoContainer => {
                format!("{address}: the container does not exist ({said}): create it, or correct container")
            }
            Cause::Refused => format!(
                "{address}: the credential is refused ({said}): check that it is for this account and container, has not \
                 expired and holds the rights that the README lists"
            ),
            Cause::NoCredential => format!("{address}: there is no credential to log in with: {said}"),
            Cause::NotFound
            | Cause::Conflict
            | Cause::NoBlock
            | Cause::Range
            | Cause::Damaged
            | Cause::Full
            | Cause::Unavailable
            | Cause::Other => format!("{address}: {said}"),
        };
        Self { cause, what, unsure }
    }
}

fn of_status(status: StatusCode, code: &str) -> Cause {
    match (u16::from(status), code) {
        (404, "ContainerNotFound") | (409, "ContainerBeingDeleted" | "ContainerDisabled") => {
            Cause::NoContainer
        }
        (404, _) => Cause::NotFound,
        (400, "InvalidBlockList") => Cause::NoBlock,
        (400, "Md5Mismatch" | "Crc64Mismatch") => Cause::Damaged,
        (401 | 403, _) | (409, "AccountIsDisabled") => Cause::Refused,
        (409, "AccountBeingCreated" | "ServerBusy" | "OperationTimedOut") => Cause::Unavailable,
        (304 | 409 | 412, _) => Cause::Conflict,
        (416, _) => Cause::Range,
        (413 | 507, _) => Cause::Full,
        (408 | 429 | 500..=599, _) => Cause::Unavailable,
        _ => Cause::Other,
    }
}

/// What an error and its causes say, without the query of any URL: it may be a SAS.
pub(super) fn said(error: &Error) -> String {
    if let ErrorKind::HttpResponse { status, error_code, .. } = error.kind() {
        let code = error_code.as_deref().unwrap_or("no code");
        return format!("{} {code}", u16::from(*status));
    }
    let mut said = vec![without_queries(&error.to_string())];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = without_queries(&error.to_string());
        if !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
        cause = error.source();
    }
    said.join(": ")
}

/// Cuts what follows a question mark up to the next blank or bracket.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_query = false;
    for c in text.chars() {
        match c {
            '?' => in_query = true,
            ' ' | ')' | '"' | '\'' | '>' | '\n' => in_query = false,
            _ => {}
        }
        if !in_query {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_gets_into_a_sentence() {
        let text = "error sending request for url (http://h:1/c/b?comp=block&sig=abc%3D): connection reset";
        assert_eq!(without_queries(text), "error sending request for url (http://h:1/c/b): connection reset");
    }

    #[test]
    fn codes_mean_what_the_caller_can_do() {
        for (status, code, cause) in [
            (404, "BlobNotFound", Cause::NotFound),
            (404, "ContainerNotFound", Cause::NoContainer),
            (409, "BlobAlreadyExists", Cause::Conflict),
            (412, "ConditionNotMet", Cause::Conflict),
            (400, "InvalidBlockList", Cause::NoBlock),
            (403, "AuthorizationPermissionMismatch", Cause::Refused),
            (507, "", Cause::Full),
            (503, "ServerBusy", Cause::Unavailable),
            (500, "InternalError", Cause::Unavailable),
            (416, "InvalidRange", Cause::Range),
            (400, "InvalidHeaderValue", Cause::Other),
        ] {
            assert_eq!(of_status(StatusCode::from(status), code), cause, "{status} {code}");
        }
    }
}
