//! What commands that look at or change what is kept have in common: the stores opened, and who does it.

use crate::{
    cli::{Global, Start},
    config::{Config, Loaded},
};
use anyhow::{Context as _, bail};
use dropgate_backends::{Backends, StateStore};
use dropgate_schemas::{
    account::{Account, AccountName},
    audit::{Action, Actor, AuditEntry, AuditResult},
    id::UploadId,
    upload::Upload,
};
use std::path::Path;

/// The settings and the stores they lead to.
pub(crate) struct Open {
    pub(crate) config: Config,
    pub(crate) backends: Backends,
}

impl Open {
    /// Opens what a former start or command has made.
    ///
    /// # Errors
    /// If the settings are wrong, there is nothing yet, or a store can't be opened.
    pub(crate) async fn existing(global: &Global) -> anyhow::Result<Self> {
        let config = settings(global)?;
        if !config.data_dir.exists() {
            bail!(
                "there is no data directory {}: start dropgate first, or name another with --data-dir",
                config.data_dir.display()
            );
        }
        Self::with(config).await
    }

    /// Opens the stores, making what is missing.
    ///
    /// # Errors
    /// If the settings are wrong or a store can't be opened.
    pub(crate) async fn or_make(global: &Global) -> anyhow::Result<Self> {
        Self::with(settings(global)?).await
    }

    async fn with(config: Config) -> anyhow::Result<Self> {
        let backends = Backends::open(&config.backends, &config.data_dir).await?;
        Ok(Self { config, backends })
    }

    /// Lets go of the stores.
    pub(crate) async fn close(self) {
        self.backends.close().await;
    }

    /// The state store.
    pub(crate) fn state(&self) -> &dyn StateStore {
        self.backends.state.as_ref()
    }

    /// One account that was not removed.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(crate) async fn account(&self, name: &AccountName) -> anyhow::Result<Account> {
        let found = self.state().account(name).await.with_context(|| format!("account {name}"))?;
        found.filter(|account| !account.removed).with_context(|| {
            format!("there is no account {name}: `dropgate account list` shows those there are")
        })
    }

    /// All accounts by name, removed ones included.
    ///
    /// # Errors
    /// If the state store does not answer.
    pub(crate) async fn accounts(&self) -> anyhow::Result<Vec<Account>> {
        let mut accounts: Vec<Account> = Vec::new();
        loop {
            let after = accounts.last().map(|account| account.name.clone());
            let page =
                self.state().list_accounts(after.as_ref(), 500).await.context("the list of accounts")?;
            if page.is_empty() {
                return Ok(accounts);
            }
            accounts.extend(page);
        }
    }

    /// One upload.
    ///
    /// # Errors
    /// If there is none of that id.
    pub(crate) async fn upload(&self, id: UploadId) -> anyhow::Result<Upload> {
        let found = self.state().upload(id).await.with_context(|| format!("upload {id}"))?;
        found.with_context(|| {
            format!("there is no upload {id}: `dropgate uploads list` shows those there are")
        })
    }
}

fn settings(global: &Global) -> anyhow::Result<Config> {
    let loaded = Loaded::read(global, &Start::default())?;
    crate::logging::start_quietly(&loaded.config.log);
    Ok(loaded.config)
}

/// The person at the keyboard: the user of the operating system that runs the command.
pub(crate) fn operator() -> String {
    let id = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, id).unwrap_or_else(|| format!("uid {id}"))
}

/// Host and `command`, as audit entries name who wrote them.
pub(crate) fn node() -> String {
    format!("{}/command", rustix::system::uname().nodename().to_string_lossy())
}

/// An audit entry of a command.
pub(crate) fn entry(action: Action, result: AuditResult) -> AuditEntry {
    let mut entry = AuditEntry::new(action, Actor::Operator { id: operator() }, result);
    entry.node = node();
    // Says who became root, and is a hint only: whoever runs the command could set it.
    if let Ok(before) = std::env::var("SUDO_USER") {
        entry.detail.insert("sudo_user".to_owned(), crate::logging::escape(&before));
    }
    entry
}

fn name_in(passwd: &str, id: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
        (uid.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// Reads the file or says which one can't be read.
///
/// # Errors
/// If it can't be read as UTF-8 text.
pub(crate) fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 17), None);
    }
}
