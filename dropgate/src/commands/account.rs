//! `dropgate account`: who may log in. Works beside running roles: they see every change within a second.

use super::open::{Open, entry, read_text};
use crate::{
    cli::{AccountCommand, Global, Json},
    exit::Usage,
    table::Table,
};
use anyhow::{Context as _, bail};
use dropgate_backends::credentials::{password, public_key};
use dropgate_schemas::{
    account::{Account, AccountName, Credentials, OnDuplicate, PartnerName, PublicKey},
    audit::{Action, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    time::Timestamp,
    upload::Grade,
};
use serde_json::{Value, json};
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
        AccountCommand::Add { name, partner, password_stdin, public_key, temp_pattern, json } => {
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
            let wanted = New { name, partner, password, public_keys, temp_patterns: temp_pattern };
            let done = add(&open, wanted).await;
            open.close().await;
            print_added(&done?, json)
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
        AccountCommand::List(json) => {
            let open = Open::existing(global).await?;
            let listed = list(&open, json).await;
            open.close().await;
            say(&listed?)
        }
        AccountCommand::Show { name, json } => {
            let open = Open::existing(global).await?;
            let shown = show(&open, &name, json).await;
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
    let New { name, partner, password, public_keys, temp_patterns } = new;
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
    let account = Account {
        name: name.clone(),
        partner,
        enabled: true,
        removed: false,
        revision: before.as_ref().map_or(0, |account| account.revision),
        revocation_epoch: before.as_ref().map_or(0, |account| account.revocation_epoch + 1),
        temp_patterns,
        on_duplicate: OnDuplicate::default(),
        minimum_grade: Grade::default(),
        created_at: now,
        updated_at: now,
    };
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
    // On record first: a change that nobody can trace is worse than a trace of one that failed.
    account.revocation_epoch += 1;
    account.updated_at = Timestamp::now();
    let mut audit = about(&account, Action::AccountChange);
    audit.reason = Some("password set".to_owned());
    note_credentials(&mut audit, &credentials);
    apply(open, account.clone(), audit).await?;
    if let Err(error) = open.backends.credentials.put(credentials).await {
        let mut audit = about(&account, Action::AccountChange);
        audit.result = AuditResult::Failed;
        audit.reason = Some("the password could not be stored".to_owned());
        let change = Change {
            subject: Subject::None,
            audit: vec![audit],
            outbox: vec![],
            durability: Durability::Durable,
        };
        let _ = open.state().apply(change).await;
        return Err(error).with_context(|| format!("account {name}: the old password still holds"));
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

/// How the account logs in, without any verifier.
fn login_of(credentials: &Credentials) -> String {
    let password = credentials.password_hash.is_some().then(|| "password".to_owned());
    let keys = match credentials.public_keys.len() {
        0 => None,
        1 => Some("1 key".to_owned()),
        n => Some(format!("{n} keys")),
    };
    let ways: Vec<String> = password.into_iter().chain(keys).collect();
    if ways.is_empty() { "none".to_owned() } else { ways.join(", ") }
}

fn as_json(account: &Account, credentials: &Credentials) -> Value {
    let keys: Vec<Value> = credentials
        .public_keys
        .iter()
        .map(|key| {
            json!({
                "fingerprint": key.fingerprint, "comment": key.comment, "from": key.from,
                "expires_at": key.expires_at, "added_at": key.added_at,
            })
        })
        .collect();
    json!({
        "account": account.name, "partner": account.partner, "enabled": account.enabled,
        "password": credentials.password_hash.is_some(), "public_keys": keys,
        "temp_patterns": account.temp_patterns,
        "created_at": account.created_at, "updated_at": account.updated_at,
    })
}

async fn list(open: &Open, json: Json) -> anyhow::Result<String> {
    let mut table = Table::new(["ACCOUNT", "PARTNER", "STATE", "LOGIN", "ADDED"]);
    let mut values = Vec::new();
    let mut after: Option<AccountName> = None;
    loop {
        let page = open.state().list_accounts(after.as_ref(), 500).await.context("the list of accounts")?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for account in page.iter().filter(|account| !account.removed) {
            let credentials = credentials_of(open, &account.name).await?;
            values.push(as_json(account, &credentials));
            table.row([
                account.name.to_string(),
                account.partner.to_string(),
                state_of(account).to_owned(),
                login_of(&credentials),
                account.created_at.to_string(),
            ]);
        }
    }
    Ok(match json.json {
        true => serde_json::to_string_pretty(&values)?,
        false if table.is_empty() => {
            "no accounts: `dropgate account add NAME --partner PARTNER` adds one".to_owned()
        }
        false => table.to_string().trim_end().to_owned(),
    })
}

async fn show(open: &Open, name: &AccountName, json: Json) -> anyhow::Result<String> {
    let account = open.account(name).await?;
    let credentials = credentials_of(open, name).await?;
    if json.json {
        return Ok(serde_json::to_string_pretty(&as_json(&account, &credentials))?);
    }
    let mut lines = vec![
        format!("account        {}", account.name),
        format!("partner        {}", account.partner),
        format!("state          {}", state_of(&account)),
        format!("password       {}", if credentials.password_hash.is_some() { "set" } else { "none" }),
    ];
    for key in &credentials.public_keys {
        let comment = crate::logging::escape(&key.comment);
        let from = if key.from.is_empty() { String::new() } else { format!(" from {}", key.from.join(",")) };
        let until = key.expires_at.map(|at| format!(" until {at}")).unwrap_or_default();
        lines.push(format!("public key     {} {comment}{from}{until}", key.fingerprint));
    }
    if !account.temp_patterns.is_empty() {
        lines.push(format!("temp patterns  {}", account.temp_patterns.join(" ")));
    }
    lines.push(format!("added          {}", account.created_at));
    lines.push(format!("changed        {}", account.updated_at));
    Ok(lines.join("\n"))
}

fn print_added(added: &Added, json: Json) -> anyhow::Result<()> {
    let name = &added.account.name;
    if json.json {
        let mut value = as_json(&added.account, &added.credentials);
        if let (Some(shown), Some(object)) = (&added.shown, value.as_object_mut()) {
            object.insert("new_password".to_owned(), shown.as_str().into());
        }
        return say(&serde_json::to_string_pretty(&value)?);
    }
    let login = login_of(&added.credentials);
    let mut lines =
        vec![format!("account {name} of partner {} added (login: {login})", added.account.partner)];
    if let Some(shown) = &added.shown {
        lines.push(format!("password: {shown}\nIt is shown this once."));
    }
    say(&lines.join("\n"))
}

/// One answer on standard output.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}
