//! Ends sessions whose account was disabled, removed or had a credential revoked: one poller over all live sessions, so
//! that the state store sees one small read however many sessions there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dropgate_schemas::account::{Account, AccountName};
use dropgate_schemas::id::SessionId;
use tokio_util::sync::CancellationToken;

use super::KnownAccounts;
use super::control::{CloseReason, SessionControl};

/// How often accounts with live sessions are read.
const POLL: Duration = Duration::from_millis(500);
/// Accounts in one read.
const BATCH: usize = 500;

/// The live sessions by account.
#[derive(Debug, Default)]
pub(crate) struct AccountWatch {
    sessions: Mutex<HashMap<AccountName, Vec<Watched>>>,
}

#[derive(Debug)]
struct Watched {
    control: Arc<SessionControl>,
    epoch: u64,
}

impl AccountWatch {
    fn sessions(&self) -> MutexGuard<'_, HashMap<AccountName, Vec<Watched>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a session from its login on, with the account as it was read then.
    pub(crate) fn add(&self, account: &Account, control: &Arc<SessionControl>) {
        let watched = Watched { control: Arc::clone(control), epoch: account.revocation_epoch };
        self.sessions().entry(account.name.clone()).or_default().push(watched);
    }

    /// Stops watching over a session.
    pub(crate) fn remove(&self, account: &AccountName, id: SessionId) {
        let mut sessions = self.sessions();
        if let Some(of_account) = sessions.get_mut(account) {
            of_account.retain(|watched| watched.control.id != id);
            if of_account.is_empty() {
                sessions.remove(account);
            }
        }
    }

    /// Polls until `stop`.
    pub(crate) async fn run(&self, store: Arc<KnownAccounts>, stop: CancellationToken) {
        let mut failing = false;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let names: Vec<AccountName> = self.sessions().keys().cloned().collect();
            for batch in names.chunks(BATCH) {
                match store.now(batch).await {
                    Ok(accounts) => {
                        failing = false;
                        self.compare(batch, &accounts);
                    }
                    // Sessions go on while nobody can tell; the next successful read decides.
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(%error, "accounts of live sessions can't be read");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    fn compare(&self, asked: &[AccountName], accounts: &[Account]) {
        let accounts: HashMap<&AccountName, &Account> =
            accounts.iter().map(|account| (&account.name, account)).collect();
        let sessions = self.sessions();
        for name in asked {
            let Some(of_account) = sessions.get(name) else { continue };
            for watched in of_account {
                let allowed = accounts.get(name).is_some_and(|account| {
                    account.enabled && !account.removed && account.revocation_epoch == watched.epoch
                });
                if !allowed {
                    watched.control.close(CloseReason::Revoked);
                }
            }
        }
    }
}
