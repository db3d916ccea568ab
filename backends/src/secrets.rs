//! Secrets by reference: `env:NAME`, `file:PATH`, `vault:PATH#KEY`.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod local;
#[cfg(feature = "vault")]
pub(crate) mod vault;

use async_trait::async_trait;
use std::fmt;

/// A secret. Can't be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps it.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
    /// As text, without a trailing line end.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().map(|s| s.trim_end_matches(['\r', '\n']))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// What went wrong with a secret, as what the caller can do about it. Never holds the secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretError {
    /// The reference points at nothing.
    #[error("the secret {reference} does not exist: {remedy}")]
    NotFound {
        /// The reference.
        reference: String,
        /// What to do.
        remedy: String,
    },
    /// Not a reference that this store knows. The sentence says what is one, and nothing of what was written.
    #[error("{0}")]
    Malformed(String),
    /// The store can't be reached.
    #[error("the secret {reference} can't be read now: {why}")]
    Unavailable {
        /// The reference.
        reference: String,
        /// Why.
        why: String,
    },
}

impl SecretError {
    /// What is wrong with a reference, told without what might be a secret that somebody wrote in its place. `remedy` says
    /// what is a reference here.
    pub(crate) fn malformed(reference: &str, remedy: &str) -> Self {
        let shown = match reference.split_once(':') {
            Some((scheme, _)) if scheme.len() <= 16 && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                format!("{scheme}:…")
            }
            Some(_) | None => "…".to_owned(),
        };
        Self::Malformed(format!("{shown:?} is not a secret reference: {remedy}"))
    }
}

/// Resolves secret references.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// The secret behind `reference`.
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError>;
}
