//! `dropgate uploads`: what was uploaded, where it went, and what an operator may do about it.

mod export;
mod show;

use super::{
    account::say,
    open::{Open, entry, node, operator},
};
use crate::{
    cli::{Global, UploadsCommand},
    exit::Usage,
    table::{Table, bytes},
};
use anyhow::{Context as _, bail};
use dropgate_backends::{StateStore, UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    audit::{Action, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, Subject},
    delivery::DeliveryState,
    event::{Event, EventBody, Other},
    id::UploadId,
    path::VirtualPath,
    time::Timestamp,
    upload::Upload,
};
use serde_json::Value;
use std::io::Write as _;

/// Rows of a table unless asked for more.
const ROWS: usize = 100;
/// Records read at a time.
const PAGE: usize = 500;

/// Runs one of the uploads commands.
///
/// # Errors
/// What could not be done, and why.
pub(crate) async fn run(command: UploadsCommand, global: &Global) -> anyhow::Result<()> {
    let path = match &command {
        UploadsCommand::List { path: Some(path), .. } => Some(parse_path(path)?),
        _ => None,
    };
    let open = Open::existing(global).await?;
    let done = match command {
        UploadsCommand::List { account, state, path: _, since, limit, json } => {
            let query = UploadQuery { account, path, states: state, since, ..UploadQuery::default() };
            list(open.state(), query, limit, json.json).await
        }
        UploadsCommand::Show { id, json } => show::run(&open, id, json).await,
        UploadsCommand::Redeliver { id } => redeliver(&open, id).await,
        UploadsCommand::Restore { id } => restore(&open, id).await,
        UploadsCommand::Export { id, out, version } => export::run(&open, id, version, &out).await,
    };
    open.close().await;
    done
}

fn parse_path(text: &str) -> anyhow::Result<VirtualPath> {
    let path = VirtualPath::parse(text.as_bytes()).map_err(|e| Usage(format!("--path {text:?}: {e}")))?;
    Ok(path)
}

async fn list(
    state: &dyn StateStore,
    mut query: UploadQuery,
    limit: Option<usize>,
    json: bool,
) -> anyhow::Result<()> {
    let limit = limit.unwrap_or(if json { usize::MAX } else { ROWS });
    let mut table = Table::new(["UPLOAD", "STATE", "ACCOUNT", "PATH", "VERSION", "SIZE", "RECEIVED", "NOTE"])
        .right(4)
        .right(5);
    let mut out = std::io::stdout().lock();
    let mut shown = 0_usize;
    while shown < limit {
        query.limit = PAGE.min(limit - shown);
        let page = state.find(query.clone()).await.context("the list of uploads")?;
        let Some(last) = page.last() else { break };
        query.order = UploadOrder::Before(last.upload_id);
        for upload in &page {
            if json {
                // One object a line: a list of any length is never held as a whole.
                let begin = if shown == 0 { "[\n" } else { ",\n" };
                write!(out, "{begin}{}", as_json(upload)?)?;
            } else {
                table.row(row(upload));
            }
            shown += 1;
        }
    }
    if json {
        writeln!(out, "{}", if shown == 0 { "[]" } else { "\n]" })?;
        return Ok(());
    }
    drop(out);
    if table.is_empty() {
        return say("no uploads match");
    }
    let more =
        if shown == limit { format!("\nthe newest {limit}; --limit N shows more") } else { String::new() };
    say(&format!("{}{more}", table.to_string().trim_end()))
}

fn row(upload: &Upload) -> [String; 8] {
    let deleted = upload.deleted_at.map(|_| "deleted".to_owned());
    let reason = upload.reason.as_ref().map(|reason| reason.code.to_string());
    let waits = upload
        .current_deliveries()
        .find(|delivery| delivery.state == DeliveryState::RetryWait)
        .and_then(|delivery| Some(format!("{} {}", delivery.destination, delivery.reason.as_ref()?.code)));
    [
        upload.upload_id.to_string(),
        upload.state.to_string(),
        upload.account.to_string(),
        upload.path.to_string(),
        upload.version.to_string(),
        bytes(upload.visible_size()),
        upload.received_at.map(|at| at.to_string()).unwrap_or_default(),
        [deleted, reason, waits].into_iter().flatten().collect::<Vec<_>>().join(", "),
    ]
}

/// The record without what only resuming needs; every documented field is there, null where it is not known yet.
pub(crate) fn as_json(upload: &Upload) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(upload)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("staged");
        for field in ["size", "sha256", "content_type", "received_at", "settled_at", "deleted_at", "reason"] {
            object.entry(field).or_insert(Value::Null);
        }
    }
    Ok(value)
}

/// An audit entry about an upload.
fn about(upload: &Upload, action: Action) -> AuditEntry {
    AuditEntry {
        partner: Some(upload.partner.clone()),
        account: Some(upload.account.clone()),
        subject: Some(upload.path.to_string()),
        upload: Some(upload.upload_id),
        size: upload.size,
        sha256: upload.sha256,
        ..entry(action, AuditResult::Ok)
    }
}

async fn redeliver(open: &Open, id: UploadId) -> anyhow::Result<()> {
    let before = open.upload(id).await?;
    let state = std::sync::Arc::clone(&open.backends.state);
    let upload = dropgate_workers::redeliver(state, id, &operator(), &node()).await?;
    say(&format!(
        "{} (version {}) of {} goes out again, generation {}; `dropgate uploads show {id}` follows it",
        before.path, before.version, before.account, upload.generation
    ))
}

async fn restore(open: &Open, id: UploadId) -> anyhow::Result<()> {
    let mut upload = open.upload(id).await?;
    let Some(deleted) = upload.deleted_at else {
        bail!("upload {id} is not deleted: there is nothing to take back");
    };
    if upload.state.area().is_none() {
        bail!("upload {id} is {}: a restored one would not be listed anywhere", upload.state);
    }
    upload.deleted_at = None;
    upload.updated_at = Timestamp::now();
    let mut audit = about(&upload, Action::UploadRestore);
    audit.detail.insert("deleted_at".to_owned(), deleted.to_string());
    let event = Event::about(&upload, EventBody::UploadRestored(Other::about(&upload)));
    let listed = upload.listed_at().map(|path| path.to_string()).unwrap_or_default();
    let change = Change {
        subject: Subject::Upload { upload: Box::new(upload), inline: None },
        audit: vec![audit],
        outbox: vec![OutboxEntry::event(event)],
        durability: Durability::Durable,
    };
    open.state().apply(change).await.with_context(|| format!("upload {id}"))?;
    say(&format!("upload {id} is listed again as {listed}"))
}
