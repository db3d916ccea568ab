//! `dropgate account`: who may log in. Works beside running roles: they see every change within a second.

mod change;
mod show;
mod weak;

use super::open::{Open, entry, read_text};
use crate::{
    cli::{AccountCommand, Bound, Duplicate, Evidence, Global, Policy},
    exit::Usage,
};
use anyhow::{Context as _, bail};
use dropgate_backends::credentials::{password, public_key};
use dropgate_schemas::{
    account::{Account, AccountName, Credentials, OnDuplicate, PartnerName, PublicKey, Quota},
    audit::{Action, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    time::Timestamp,
    upload::Grade,
};
use std::{
    io::{BufRead as _, Read as _, Write as _},
    path::PathBuf,
};

/// Longest first line of standard input that is read as a password, in bytes.
const LONGEST_LINE: u64 = 8192;

/// Runs one of the account commands.
///
/// # Errors
/// What could not be done, and why.
pub(crate) async fn run(command: AccountCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        AccountCommand::Add { name, partner, password_stdin, public_key, temp_pattern, policy, json } => {
            // Everything that can be wrong with the options is found before anything is changed.
            check_patterns(&temp_pattern)?;
            let public_keys = read_keys(&public_key)?;
            let password = if password_stdin {
                Some(Password::typed()?)
            } else if public_keys.is_empty() {
                Some(Password::random())
            } else {
                None
            };
            let open = Open::or_make(global).await?;
            let wanted = New { name, partner, password, public_keys, temp_patterns: temp_pattern, policy };
            let done = add(&open, wanted).await;
            open.close().await;
            show::print_added(&done?, json)
        }
        AccountCommand::Change { name, add_public_key, remove_public_key, temp_pattern, policy } => {
            let wanted = change::Wanted::read(&add_public_key, remove_public_key, temp_pattern, policy)?;
            let open = Open::existing(global).await?;
            let done = change::apply(&open, &name, wanted).await;
            open.close().await;
            say(&done?)
        }
        AccountCommand::Password { name, password_stdin } => {
            let password = if password_stdin { Password::typed()? } else { Password::random() };
            let open = Open::existing(global).await?;
            let done = set_password(&open, &name, &password).await;
            open.close().await;
            done?;
            say(&match password.shown() {
                Some(shown) => {
                    format!("password of {name}: {shown}\nIt is shown this once. Live sessions end.")
                }
                None => format!("password of {name} set; live sessions end"),
            })
        }
        AccountCommand::List { weak_algorithms, since, json } => {
            let open = Open::existing(global).await?;
            let listed = match weak_algorithms {
                true => weak::list(&open, since, json).await,
                false => show::list(&open, json).await,
            };
            open.close().await;
            say(&listed?)
        }
        AccountCommand::Show { name, json } => {
            let open = Open::existing(global).await?;
            let shown = show::show(&open, &name, json).await;
            open.close().await;
            say(&shown?)
        }
        AccountCommand::Disable { name } => switch(global, &name, false).await,
        AccountCommand::Enable { name } => switch(global, &name, true).await,
        AccountCommand::Remove { name } => {
            let open = Open::existing(global).await?;
            let done = remove(&open, &name).await;
            open.close().await;
            done?;
            say(&format!("account {name} removed; its uploads and its audit trail stay"))
        }
    }
}

/// A password, and whether it may be shown because we made it.
pub(crate) struct Password {
    text: String,
    made_here: bool,
}

impl Password {
    /// One that nobody can guess.
    pub(crate) fn random() -> Self {
        Self { text: password::random(), made_here: true }
    }

    /// The first line of standard input.
    fn typed() -> anyhow::Result<Self> {
        let mut line = String::new();
        let read = std::io::stdin().lock().take(LONGEST_LINE).read_line(&mut line);
        read.context("the password can't be read from standard input")?;
        let text = line.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() {
            bail!(Usage("--password-stdin: the first line of standard input is empty".to_owned()));
        }
        Ok(Self { text, made_here: false })
    }

    /// The password, if nobody but us knows it yet.
    pub(crate) fn shown(&self) -> Option<&str> {
        self.made_here.then_some(self.text.as_str())
    }
}

/// An account to be.
pub(crate) struct New {
    pub(crate) name: AccountName,
    pub(crate) partner: PartnerName,
    pub(crate) password: Option<Password>,
    pub(crate) public_keys: Vec<PublicKey>,
    pub(crate) temp_patterns: Vec<String>,
    pub(crate) policy: Policy,
}

impl Policy {
    /// Sets on the account what is asked for.
    fn set(self, account: &mut Account) {
        match self.on_duplicate {
            Some(Duplicate::Deliver) => account.on_duplicate = OnDuplicate::Deliver,
            Some(Duplicate::Suppress) => account.on_duplicate = OnDuplicate::Suppress,
            None => {}
        }
        match self.minimum_evidence {
            Some(Evidence::CloseOnly) => account.minimum_grade = Grade::CloseOnly,
            Some(Evidence::FsetstatSize) => account.minimum_grade = Grade::FsetstatSize,
            Some(Evidence::DeclaredSize) => account.minimum_grade = Grade::DeclaredSize,
            Some(Evidence::RenamedFromTemp) => account.minimum_grade = Grade::RenamedFromTemp,
            None => {}
        }
        let quota = &mut account.quota;
        for (bound, kept) in [
            (self.bytes_per_day, &mut quota.bytes_per_day),
            (self.uploads_per_day, &mut quota.uploads_per_day),
            (self.total_bytes, &mut quota.total_bytes),
        ] {
            if let Some(Bound(bound)) = bound {
                *kept = bound;
            }
        }
    }
}

/// What was added.
pub(crate) struct Added {
    account: Account,
    credentials: Credentials,
    shown: Option<String>,
}

/// Adds an account: first its verifiers, which open nothing by themselves, then its record.
///
/// # Errors
/// If it exists, belonged to another partner, or a store refuses.
pub(crate) async fn add(open: &Open, new: New) -> anyhow::Result<Added> {
    let New { name, partner, password, public_keys, temp_patterns, policy } = new;
    let before = open.state().account(&name).await.with_context(|| format!("account {name}"))?;
    if let Some(before) = &before {
        if !before.removed {
            bail!(
                "account {name} exists: `dropgate account show {name}` shows it, `dropgate account password {name}` sets a \
                 new password"
            );
        }
        if before.partner != partner {
            bail!(
                "the account name {name} belonged to partner {}, whose uploads still bear it: choose another name",
                before.partner
            );
        }
    }
    let shown = password.as_ref().and_then(Password::shown).map(str::to_owned);
    let password_hash = match password {
        Some(password) => Some(password::Passwords::default().hash(&password.text).await?),
        None => None,
    };
    let credentials = Credentials { account: name.clone(), password_hash, public_keys };
    open.backends.credentials.put(credentials.clone()).await.with_context(|| format!("account {name}"))?;
    let now = Timestamp::now();
    let mut account = Account {
        name: name.clone(),
        partner,
        enabled: true,
        removed: false,
        revision: before.as_ref().map_or(0, |account| account.revision),
        revocation_epoch: before.as_ref().map_or(0, |account| account.revocation_epoch + 1),
        temp_patterns,
        on_duplicate: OnDuplicate::default(),
        quota: Quota::default(),
        minimum_grade: Grade::default(),
        created_at: now,
        updated_at: now,
    };
    policy.set(&mut account);
    let mut audit = about(&account, Action::AccountAdd);
    audit.after = Some("enabled".to_owned());
    note_credentials(&mut audit, &credentials);
    apply(open, account.clone(), audit).await?;
    Ok(Added { account, credentials, shown })
}

async fn set_password(open: &Open, name: &AccountName, password: &Password) -> anyhow::Result<()> {
    let mut account = open.account(name).await?;
    let mut credentials = credentials_of(open, name).await?;
    credentials.password_hash = Some(password::Passwords::default().hash(&password.text).await?);
    account.revocation_epoch += 1;
    store(open, account, credentials, "password set").await
}

/// Stores changed verifiers with the account that goes with them. On record first: a change that nobody can trace is worse
/// than a trace of one that failed.
async fn store(
    open: &Open,
    mut account: Account,
    credentials: Credentials,
    what: &str,
) -> anyhow::Result<()> {
    account.updated_at = Timestamp::now();
    let mut audit = about(&account, Action::AccountChange);
    audit.reason = Some(what.to_owned());
    note_credentials(&mut audit, &credentials);
    let name = account.name.clone();
    let mut failed = AuditEntry { result: AuditResult::Failed, ..about(&account, Action::AccountChange) };
    apply(open, account, audit).await?;
    if let Err(error) = open.backends.credentials.put(credentials).await {
        failed.reason = Some(format!("{what}: could not be stored"));
        let change = Change {
            subject: Subject::None,
            audit: vec![failed],
            outbox: vec![],
            durability: Durability::Durable,
        };
        let _ = open.state().apply(change).await;
        return Err(error).with_context(|| format!("account {name}: the old credentials still hold"));
    }
    Ok(())
}

async fn switch(global: &Global, name: &AccountName, enabled: bool) -> anyhow::Result<()> {
    let open = Open::existing(global).await?;
    let done = async {
        let mut account = open.account(name).await?;
        if account.enabled == enabled {
            return Ok(false);
        }
        let mut audit = about(&account, Action::AccountChange);
        audit.before = Some(state_of(&account).to_owned());
        account.enabled = enabled;
        account.updated_at = Timestamp::now();
        if !enabled {
            account.revocation_epoch += 1;
        }
        audit.after = Some(state_of(&account).to_owned());
        apply(&open, account, audit).await?;
        Ok::<_, anyhow::Error>(true)
    };
    let changed = done.await;
    open.close().await;
    let word = if enabled { "enabled" } else { "disabled" };
    let sessions = if enabled { "" } else { "; live sessions end" };
    say(&match changed? {
        true => format!("account {name} {word}{sessions}"),
        false => format!("account {name} is {word} already"),
    })
}

/// First the record, which ends sessions and logins, then the verifiers.
async fn remove(open: &Open, name: &AccountName) -> anyhow::Result<()> {
    let mut account = open.account(name).await?;
    let mut audit = about(&account, Action::AccountRemove);
    audit.before = Some(state_of(&account).to_owned());
    account.enabled = false;
    account.removed = true;
    account.revocation_epoch += 1;
    account.updated_at = Timestamp::now();
    audit.after = Some("removed".to_owned());
    apply(open, account, audit).await?;
    open.backends.credentials.remove(name).await.with_context(|| {
        format!("account {name} is removed and can't log in, but its credentials could not be deleted")
    })
}

async fn apply(open: &Open, account: Account, audit: AuditEntry) -> anyhow::Result<()> {
    let name = account.name.clone();
    let change = Change {
        subject: Subject::Account(account),
        audit: vec![audit],
        outbox: vec![],
        durability: Durability::Durable,
    };
    open.state().apply(change).await.with_context(|| format!("account {name}"))?;
    Ok(())
}

fn about(account: &Account, action: Action) -> AuditEntry {
    AuditEntry {
        partner: Some(account.partner.clone()),
        account: Some(account.name.clone()),
        subject: Some(account.name.to_string()),
        ..entry(action, AuditResult::Ok)
    }
}

fn note_credentials(audit: &mut AuditEntry, credentials: &Credentials) {
    audit.detail.insert("password".to_owned(), credentials.password_hash.is_some().to_string());
    let keys: Vec<&str> = credentials.public_keys.iter().map(|key| key.fingerprint.as_str()).collect();
    if !keys.is_empty() {
        audit.detail.insert("public_keys".to_owned(), keys.join(" "));
    }
}

async fn credentials_of(open: &Open, name: &AccountName) -> anyhow::Result<Credentials> {
    let found = open.backends.credentials.lookup(name).await.with_context(|| format!("account {name}"))?;
    Ok(found.unwrap_or_else(|| Credentials {
        account: name.clone(),
        password_hash: None,
        public_keys: Vec::new(),
    }))
}

fn check_patterns(patterns: &[String]) -> anyhow::Result<()> {
    for pattern in patterns {
        globset::Glob::new(pattern)
            .map_err(|e| Usage(format!("--temp-pattern {pattern:?}: {}; use for example *.tmp", e.kind())))?;
    }
    Ok(())
}

fn read_keys(files: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for file in files {
        let found = public_key::parse_file(&read_text(file)?, Timestamp::now())
            .map_err(|(line, e)| anyhow::anyhow!("{}:{line}: {e}", file.display()))?;
        for key in found {
            if !keys.iter().any(|known| known.fingerprint == key.fingerprint) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

fn state_of(account: &Account) -> &'static str {
    if account.removed {
        "removed"
    } else if account.enabled {
        "enabled"
    } else {
        "disabled"
    }
}

/// One answer on standard output.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}
