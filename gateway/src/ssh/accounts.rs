//! The part of the state store that logins need.

use async_trait::async_trait;
use dropgate_backends::{StateError, StateStore, cache::Cache};
use dropgate_schemas::account::{Account, AccountName};
use std::{sync::Arc, time::Duration};

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

/// So many accounts are remembered for the time that the state store is down.
const REMEMBERED: usize = 10_000;
/// So long the state store may take for an account that is remembered: a client offers several keys, and each is looked up.
const WITH_MEMORY: Duration = Duration::from_secs(1);

/// Accounts as the state store has them; at login, while it can't answer, as it had them a short while ago. One that was
/// disabled meanwhile gets in, and out again at the watch's first look that succeeds.
pub(crate) struct KnownAccounts {
    store: Arc<dyn Accounts>,
    cache: Cache<AccountName, Account>,
    deadline: Duration,
}

impl KnownAccounts {
    /// Remembers accounts for `remember`, and waits for the store for at most `deadline`.
    pub(crate) fn new(store: Arc<dyn Accounts>, remember: Duration, deadline: Duration) -> Self {
        Self { store, cache: Cache::new(remember, REMEMBERED), deadline }
    }

    /// One account, for a login.
    pub(crate) async fn for_login(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        let remembered = self.cache.get(name);
        let limit = if remembered.is_some() { self.deadline.min(WITH_MEMORY) } else { self.deadline };
        let began = self.cache.begin();
        match within(limit, self.store.account(name)).await {
            Ok(account) => {
                self.cache.confirm(began, name, account.as_ref());
                Ok(account)
            }
            Err(StateError::Unavailable(why)) if remembered.is_some() => {
                tracing::warn!(account = %name, why, "login checked against the account as it was read lately");
                Ok(remembered)
            }
            Err(error) => Err(error),
        }
    }

    /// Several accounts as they are now.
    pub(crate) async fn now(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        let began = self.cache.begin();
        let accounts = within(self.deadline, self.store.accounts(names)).await?;
        for name in names {
            self.cache.confirm(began, name, accounts.iter().find(|account| account.name == *name));
        }
        Ok(accounts)
    }
}

async fn within<T>(
    limit: Duration,
    read: impl Future<Output = Result<T, StateError>>,
) -> Result<T, StateError> {
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
        Err(StateError::Unavailable(format!("no answer within {} s", limit.as_secs_f32())))
    })
}
