//! What a login is checked against, and an operator's token.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub(crate) mod file;
pub mod network;
pub mod password;
pub mod public_key;
pub mod token;
#[cfg(feature = "vault")]
pub(crate) mod vault;

use async_trait::async_trait;
use dropgate_schemas::account::{AccountName, Credentials};

/// What went wrong with the credential store, as what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialError {
    /// It can't be reached or did not answer in time: the client should try again later.
    #[error("the credential store is unavailable: {0}")]
    Unavailable(String),
    /// It refused for a reason that does not pass by itself.
    #[error("the credential store refused: {0}")]
    Rejected(String),
    /// What is stored can't be read.
    #[error("the credential store is corrupt: {0}")]
    Corrupt(String),
}

/// Verifiers by account. Holds hashes and public keys, no secret in clear. Changes are visible to every process on
/// return.
#[async_trait]
pub trait CredentialStore: Send + Sync + 'static {
    /// The verifiers of one account.
    async fn lookup(&self, account: &AccountName) -> Result<Option<Credentials>, CredentialError>;

    /// Writes (or replaces) the verifiers of one account.
    async fn put(&self, credentials: Credentials) -> Result<(), CredentialError>;

    /// Removes the verifiers of one account. Removing what is not there is fine.
    async fn remove(&self, account: &AccountName) -> Result<(), CredentialError>;

    /// Whether it answers; for readiness.
    async fn check(&self) -> Result<(), CredentialError>;
}
