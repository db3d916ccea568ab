//! `dropgate inbox`: what outside systems tell an account of. Works beside running roles.

use super::{
    account::say,
    open::{Open, entry},
};
use crate::{
    cli::{Global, InboxCommand, Json},
    table::{Table, bytes},
};
use anyhow::{Context as _, bail};
use dropgate_schemas::{
    account::{Account, AccountName},
    audit::{Action, AuditResult},
    change::{Change, Durability, Subject},
    digest::Sha256,
    inbox::InboxEntry,
    path::{Area, Place, VirtualPath},
    time::Timestamp,
};

/// Entries read at a time.
const PAGE: usize = 500;

/// Runs one of the inbox commands.
///
/// # Errors
/// What could not be done, and why.
pub(crate) async fn run(command: InboxCommand, global: &Global) -> anyhow::Result<()> {
    let open = Open::existing(global).await?;
    let done = match command {
        InboxCommand::Add { account, path, size, sha256 } => add(&open, &account, path, size, sha256).await,
        InboxCommand::Remove { account, path } => remove(&open, &account, &path).await,
        InboxCommand::List { account, json } => list(&open, &account, json).await,
    };
    open.close().await;
    say(&done?)
}

/// A path below `/inbox`: `NAME` and `/inbox/NAME` mean the same.
///
/// # Errors
/// If it can't be one.
pub(crate) fn parse_path(text: &str) -> Result<VirtualPath, String> {
    let full = if text.starts_with('/') { text.to_owned() } else { format!("/inbox/{text}") };
    let path = VirtualPath::parse(full.as_bytes()).map_err(|e| e.to_string())?;
    if path.place() == Place::Below(Area::Inbox) && path.parent().place() == Place::System(Area::Inbox) {
        Ok(path)
    } else {
        Err("entries lie directly in /inbox: use a name such as report.csv".to_owned())
    }
}

async fn add(
    open: &Open,
    name: &AccountName,
    path: VirtualPath,
    size: u64,
    sha256: Option<Sha256>,
) -> anyhow::Result<String> {
    let account = open.account(name).await?;
    let before = stored(open, name, &path).await?;
    if let Some(there) = before.as_ref().filter(|entry| entry.removed_at.is_none()) {
        if there.size == size && there.sha256 == sha256 {
            return Ok(format!("{path} is registered for {name} already"));
        }
        bail!("{path} is registered for {name} with another size or digest: remove it first");
    }
    let registered = InboxEntry {
        account: name.clone(),
        path,
        revision: before.map_or(0, |entry| entry.revision),
        size,
        sha256,
        registered_at: Timestamp::now(),
        removed_at: None,
    };
    let said = format!("{} registered for {name} with {size} bytes", registered.path);
    apply(open, &account, registered, Action::InboxAdd).await?;
    Ok(said)
}

async fn remove(open: &Open, name: &AccountName, path: &VirtualPath) -> anyhow::Result<String> {
    let account = open.account(name).await?;
    let Some(there) = stored(open, name, path).await?.filter(|entry| entry.removed_at.is_none()) else {
        bail!("{name} has no {path}: `dropgate inbox list --account {name}` shows what it has");
    };
    let removed = InboxEntry { removed_at: Some(Timestamp::now()), ..there };
    apply(open, &account, removed, Action::InboxRemove).await?;
    Ok(format!("{path} removed for {name}"))
}

async fn stored(open: &Open, name: &AccountName, path: &VirtualPath) -> anyhow::Result<Option<InboxEntry>> {
    open.state().inbox_entry(name, path).await.with_context(|| format!("{path} of account {name}"))
}

async fn apply(open: &Open, account: &Account, of: InboxEntry, action: Action) -> anyhow::Result<()> {
    let mut audit = entry(action, AuditResult::Ok);
    audit.partner = Some(account.partner.clone());
    audit.account = Some(account.name.clone());
    audit.subject = Some(of.path.to_string());
    audit.size = Some(of.size);
    audit.sha256 = of.sha256;
    let what = format!("{} of account {}", of.path, account.name);
    let change = Change {
        subject: Subject::Inbox(of),
        audit: vec![audit],
        outbox: vec![],
        durability: Durability::Durable,
    };
    open.state().apply(change).await.context(what)?;
    Ok(())
}

async fn list(open: &Open, name: &AccountName, json: Json) -> anyhow::Result<String> {
    open.account(name).await?;
    let mut entries: Vec<InboxEntry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.path.name_key().to_owned());
        let page = open.state().inbox(name, after.as_deref(), PAGE).await.context("the entries of /inbox")?;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    if json.json {
        return Ok(serde_json::to_string_pretty(&entries)?);
    }
    if entries.is_empty() {
        return Ok(format!("{name} has nothing in /inbox"));
    }
    let mut table = Table::new(["PATH", "SIZE", "SHA256", "REGISTERED"]).right(1);
    for entry in &entries {
        table.row([
            entry.path.to_string(),
            bytes(entry.size),
            entry.sha256.map(|digest| digest.to_string()).unwrap_or_default(),
            entry.registered_at.to_string(),
        ]);
    }
    Ok(table.to_string().trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_path_are_the_same_and_nothing_else_is_taken() {
        for text in ["report.csv", "/inbox/report.csv", "/inbox//./report.csv"] {
            assert_eq!(parse_path(text).unwrap().to_string(), "/inbox/report.csv");
        }
        for text in ["", "/", "/inbox", "/upload/x", "a/b", "/inbox/a/b", "../sent/x", "a\u{7}b"] {
            assert!(parse_path(text).is_err(), "{text:?}");
        }
    }
}
