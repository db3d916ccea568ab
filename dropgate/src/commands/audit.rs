//! `dropgate audit list`: who did what.

use super::{account::say, open::Open};
use crate::{
    cli::{AuditCommand, Global},
    table::Table,
};
use anyhow::Context as _;
use dropgate_backends::{AuditQuery, StateStore, state::StoredAudit};
use dropgate_schemas::audit::{Actor, AuditEntry, AuditResult};
use serde_json::Value;

/// Rows of a table unless asked for more.
const ROWS: usize = 100;
/// Entries read at a time.
const PAGE: usize = 500;

/// Runs `audit list`.
///
/// # Errors
/// What could not be read, and why.
pub(crate) async fn run(command: AuditCommand, global: &Global) -> anyhow::Result<()> {
    let AuditCommand::List { account, actor, upload, path, result, since, r#ref, limit, json } = command;
    let query =
        AuditQuery { account, actor, upload, path, result, since, reference: r#ref, ..AuditQuery::default() };
    let limit = limit.unwrap_or(if json.json { usize::MAX } else { ROWS });
    let open = Open::existing(global).await?;
    let found = newest(open.state(), query, limit).await;
    open.close().await;
    let found = found?;
    if json.json {
        return say(&serde_json::to_string_pretty(
            &found.iter().map(as_json).collect::<Result<Vec<_>, _>>()?,
        )?);
    }
    if found.is_empty() {
        return say("no audit entries match");
    }
    let entries = found.iter().map(StoredAudit::entry).collect::<Result<Vec<_>, _>>()?;
    let table = table(&entries);
    let more = if found.len() == limit {
        format!("\nthe newest {limit}; --limit N shows more")
    } else {
        String::new()
    };
    say(&format!("{}{more}", table.to_string().trim_end()))
}

/// The newest entries that match, oldest of them first, as a log reads.
///
/// # Errors
/// What the store said.
pub(crate) async fn newest(
    state: &dyn StateStore,
    query: AuditQuery,
    limit: usize,
) -> anyhow::Result<Vec<StoredAudit>> {
    let mut found: Vec<StoredAudit> = Vec::new();
    if limit <= PAGE {
        let query = AuditQuery { newest_first: true, limit, ..query };
        found = state.audit(query).await.context("the audit trail")?;
        found.reverse();
        return Ok(found);
    }
    loop {
        let after = found.last().map(|entry| entry.position);
        let page = AuditQuery { after, limit: PAGE, ..query.clone() };
        let page = state.audit(page).await.context("the audit trail")?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
        if found.len() > limit {
            found.drain(..found.len() - limit);
        }
    }
    Ok(found)
}

/// The entry as it was stored, and its place in the trail.
pub(crate) fn as_json(stored: &StoredAudit) -> anyhow::Result<Value> {
    let mut value: Value = serde_json::from_slice(&stored.canonical)
        .with_context(|| format!("audit entry {}", stored.position))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("position".to_owned(), stored.position.into());
    }
    Ok(value)
}

/// Entries as a table.
pub(crate) fn table(entries: &[AuditEntry]) -> Table {
    let mut table = Table::new(["TIME", "ACTION", "RESULT", "ACTOR", "SOURCE", "SUBJECT", "REF", "NOTE"]);
    for entry in entries {
        table.row([
            entry.at.to_string(),
            entry.action.name(),
            result(entry.result).to_owned(),
            actor(&entry.actor),
            entry.source.clone().unwrap_or_default(),
            entry.subject.clone().unwrap_or_default(),
            entry.reference.clone().unwrap_or_default(),
            note(entry),
        ]);
    }
    table
}

fn result(result: AuditResult) -> &'static str {
    match result {
        AuditResult::Ok => "ok",
        AuditResult::Refused => "refused",
        AuditResult::Failed => "failed",
    }
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Account { id, .. } => id.clone(),
        Actor::Operator { id } => format!("operator {id}"),
        Actor::System { id } => format!("({id})"),
    }
}

/// State change, reason and repeats.
fn note(entry: &AuditEntry) -> String {
    let change = match (&entry.before, &entry.after) {
        (Some(before), Some(after)) if before != after => Some(format!("{before} -> {after}")),
        (None, Some(after)) => Some(format!("-> {after}")),
        (Some(_), _) | (None, None) => None,
    };
    let times = (entry.count > 1).then(|| format!("{} times", entry.count));
    [change, entry.reason.clone(), times].into_iter().flatten().collect::<Vec<_>>().join("; ")
}
