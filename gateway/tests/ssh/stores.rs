//! Stores in memory that can be made to fail or to hang.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dropgate_backends::{CredentialError, CredentialStore, StateError};
use dropgate_gateway::ssh::Accounts;
use dropgate_schemas::account::{Account, AccountName, Credentials};
use dropgate_schemas::time::Timestamp;

/// Accounts and verifiers.
#[derive(Default)]
pub(crate) struct Stores {
    accounts: Mutex<HashMap<AccountName, Account>>,
    credentials: Mutex<HashMap<AccountName, Credentials>>,
    pub(crate) down: AtomicBool,
    pub(crate) hanging: AtomicBool,
    /// The trouble is that of the state store alone.
    pub(crate) verifiers_are_well: AtomicBool,
    pub(crate) lookups: AtomicUsize,
}

impl Stores {
    pub(crate) fn put_account(&self, name: &str, credentials: Credentials) {
        let now = Timestamp::now();
        let account = Account {
            name: name.parse().unwrap(),
            partner: "acme".parse().unwrap(),
            enabled: true,
            removed: false,
            revision: 1,
            revocation_epoch: 0,
            temp_patterns: Vec::new(),
            on_duplicate: Default::default(),
            quota: Default::default(),
            minimum_grade: Default::default(),
            created_at: now,
            updated_at: now,
        };
        self.accounts.lock().unwrap().insert(account.name.clone(), account);
        self.credentials.lock().unwrap().insert(name.parse().unwrap(), credentials);
    }

    pub(crate) fn change_account(&self, name: &str, change: impl FnOnce(&mut Account)) {
        change(self.accounts.lock().unwrap().get_mut(&name.parse::<AccountName>().unwrap()).unwrap());
    }

    async fn answer(&self) -> Result<(), String> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        while self.hanging.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.down.load(Ordering::Relaxed) { Err("down for the test".into()) } else { Ok(()) }
    }
}

#[async_trait]
impl CredentialStore for Stores {
    async fn lookup(&self, account: &AccountName) -> Result<Option<Credentials>, CredentialError> {
        if self.verifiers_are_well.load(Ordering::Relaxed) {
            return Ok(self.credentials.lock().unwrap().get(account).cloned());
        }
        self.answer().await.map_err(CredentialError::Unavailable)?;
        Ok(self.credentials.lock().unwrap().get(account).cloned())
    }
    async fn put(&self, credentials: Credentials) -> Result<(), CredentialError> {
        self.credentials.lock().unwrap().insert(credentials.account.clone(), credentials);
        Ok(())
    }
    async fn remove(&self, account: &AccountName) -> Result<(), CredentialError> {
        self.credentials.lock().unwrap().remove(account);
        Ok(())
    }
    async fn check(&self) -> Result<(), CredentialError> {
        Ok(())
    }
}

#[async_trait]
impl Accounts for Stores {
    async fn account(&self, name: &AccountName) -> Result<Option<Account>, StateError> {
        self.answer().await.map_err(StateError::Unavailable)?;
        Ok(self.accounts.lock().unwrap().get(name).cloned())
    }
    async fn accounts(&self, names: &[AccountName]) -> Result<Vec<Account>, StateError> {
        self.answer().await.map_err(StateError::Unavailable)?;
        let accounts = self.accounts.lock().unwrap();
        Ok(names.iter().filter_map(|name| accounts.get(name).cloned()).collect())
    }
}
