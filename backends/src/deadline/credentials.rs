use super::{Failure, deadlines, sentence};
use crate::credentials::{CredentialError, CredentialStore};
use dropgate_schemas::account::{AccountName, Credentials};
use std::time::Duration;

impl Failure for CredentialError {
    fn late(after: Duration) -> Self {
        Self::Unavailable(sentence(after))
    }
    fn is_ours(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Rejected(_) | Self::Corrupt(_) => true,
        }
    }
}

deadlines! { CredentialStore, CredentialError, ErrorsCredentials {
    async fn lookup(&self, account: &AccountName) -> Option<Credentials>;
    async fn put(&self, credentials: Credentials) -> ();
    async fn remove(&self, account: &AccountName) -> ();
    async fn check(&self) -> ();
}}
