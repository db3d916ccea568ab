//! What Vault's answers mean.

use rustify::errors::ClientError as HttpError;
use serde_json::Value;
use std::error::Error;
use vaultrs::error::ClientError;

/// What went wrong, as what can be done about it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// It can't be reached, is sealed or has a problem of its own: it may pass.
    #[error("{0}")]
    Unavailable(String),
    /// It answered, and the answer will be the same until somebody does something.
    #[error("{what}; {remedy}")]
    Refused {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody else wrote in between.
    #[error("somebody else wrote the secret at the same time")]
    Conflict,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) enum Answer {
    /// None came, or the server has a problem. `again`: another try at once may help.
    Unreachable { what: String, again: bool },
    /// The token is not good, or not good for that.
    Forbidden,
    /// There is nothing, or no longer: then with the version that was there.
    Absent { version: u64 },
    /// No engine is mounted there.
    NoMount,
    /// The version in the check-and-set is not the current one.
    Conflict,
    /// Anything else that it said.
    Other(String),
}

impl Answer {
    pub(super) fn of(error: ClientError, address: &str) -> Self {
        match &error {
            ClientError::APIError { code, errors } => Self::status(*code, &errors.join(", "), address),
            ClientError::RestClientError { source } => match source {
                HttpError::ServerResponseError { code: 404, content } => {
                    // The content tells of a deleted version; it is never shown, for others hold secrets.
                    Self::Absent { version: content.as_deref().map_or(0, deleted_version) }
                }
                HttpError::ServerResponseError { code, .. } => Self::status(*code, "", address),
                HttpError::RequestError { source, .. } => {
                    let said = source.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                    Self::unreachable(&said, address)
                }
                HttpError::ResponseError { source } => {
                    let said = source.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                    Self::unreachable(&said, address)
                }
                HttpError::ResponseParseError { .. } | HttpError::ResponseConversionError { .. } => {
                    Self::Other(format!("{address} answers, but not as a Vault does: check address"))
                }
                HttpError::DataParseError { .. }
                | HttpError::EndpointBuildError { .. }
                | HttpError::GenericError { .. }
                | HttpError::RequestBuildError { .. }
                | HttpError::ReqwestBuildError { .. }
                | HttpError::UrlBuildError { .. }
                | HttpError::UrlQueryParseError { .. }
                | HttpError::UrlParseError { .. } => Self::Other(chain(&error)),
            },
            ClientError::FileNotFoundError { .. }
            | ClientError::FileReadError { .. }
            | ClientError::FileWriteError { .. }
            | ClientError::InvalidLoginMethodError
            | ClientError::JsonParseError { .. }
            | ClientError::ParseCertificateError { .. }
            | ClientError::ResponseEmptyError
            | ClientError::ResponseDataEmptyError
            | ClientError::ResponseWrapError
            | ClientError::RestClientBuildError { .. }
            | ClientError::WrapInvalidError
            | ClientError::InvalidUpdateParameter => Self::Other(chain(&error)),
        }
    }

    pub(super) fn status(code: u16, said: &str, address: &str) -> Self {
        let problem = |what: String, again| Self::Unreachable { what, again };
        match code {
            403 => Self::Forbidden,
            404 if said.contains("no handler for route") => Self::NoMount,
            404 => Self::Absent { version: 0 },
            400 if said.contains("check-and-set") => Self::Conflict,
            501 => problem(
                format!("the Vault at {address} is not initialised: run `vault operator init` there"),
                false,
            ),
            503 if said.to_ascii_lowercase().contains("sealed") => problem(
                format!(
                    "the Vault at {address} is sealed: an operator has to run `vault operator unseal` there"
                ),
                false,
            ),
            412 | 429 | 472 | 473 | 500.. => {
                problem(format!("the Vault at {address} has a problem (status {code}) {said}"), true)
            }
            _ => Self::Other(format!("status {code} {said}").trim_end().to_owned()),
        }
    }

    fn unreachable(said: &str, address: &str) -> Self {
        let late = said.contains("timed out");
        let what = if said.contains("certificate") {
            format!(
                "the certificate of the Vault at {address} is not trusted: set ca_file to the CA that signed it ({said})"
            )
        } else if late {
            format!("the Vault at {address} did not answer in time")
        } else {
            format!("the Vault at {address} can't be reached: check that it runs, and address ({said})")
        };
        Self::Unreachable { what, again: !late }
    }
}

/// The version of a secret whose latest version was deleted; 0 if the content does not tell.
fn deleted_version(content: &str) -> u64 {
    let content: Value = serde_json::from_str(content).unwrap_or_default();
    content.pointer("/data/metadata/version").and_then(Value::as_u64).unwrap_or_default()
}

/// An error and what it came from.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        said = format!("{said}: {cause}");
        at = cause.source();
    }
    said
}
