//! The part of the state store that logins need.

use std::sync::Arc;

use async_trait::async_trait;
use dropgate_backends::{StateError, StateStore};
use dropgate_schemas::account::{Account, AccountName};

/// Reads accounts: one at login, many for the watch over live sessions. Each read sees every change that returned
/// before it, from any process.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// One account, removed ones included.
    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError>;

    /// Several accounts at once; names without an account are left out.
    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError>;
}

#[async_trait]
impl Accounts for Arc<dyn StateStore> {
    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        (**self).account(name).await
    }

    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        (**self).accounts(names).await
    }
}
