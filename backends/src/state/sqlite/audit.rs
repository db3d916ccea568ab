//! The audit trail: canonical bytes as they were made, and beside them what queries ask for.

use super::{MOST, fault::Outcome};
use crate::state::{AuditQuery, StateError, StoredAudit};
use bytes::Bytes;
use dropgate_schemas::audit::{Actor, AuditEntry, AuditResult};
use rusqlite::{Connection, params, params_from_iter, types::Value};

/// An entry, ready to be written.
pub(super) struct Row {
    at: i64,
    action: String,
    result: &'static str,
    actor: String,
    account: Option<String>,
    subject: Option<String>,
    upload: Option<[u8; 16]>,
    reference: Option<String>,
    canonical: Vec<u8>,
}

impl Row {
    pub(super) fn new(entry: &AuditEntry) -> Result<Self, StateError> {
        let (Actor::Account { id, .. } | Actor::Operator { id } | Actor::System { id }) = &entry.actor;
        Ok(Self {
            at: entry.at.millis(),
            action: entry.action.name(),
            result: match entry.result {
                AuditResult::Ok => "ok",
                AuditResult::Refused => "refused",
                AuditResult::Failed => "failed",
            },
            actor: id.clone(),
            account: entry.account.as_ref().map(|a| a.as_str().to_owned()),
            subject: entry.subject.clone(),
            upload: entry.upload.map(|id| *id.uuid().as_bytes()),
            reference: entry.reference.clone(),
            canonical: entry
                .canonical()
                .map_err(|e| StateError::Rejected(format!("an audit entry can't be serialised: {e}")))?,
        })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<()> {
        db.prepare_cached(
            "INSERT INTO audit (at, action, result, actor, account, subject, upload, reference, canonical)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            self.at,
            self.action,
            self.result,
            self.actor,
            self.account,
            self.subject,
            self.upload,
            self.reference,
            self.canonical,
        ])?;
        Ok(())
    }
}

/// Entries by query.
pub(super) fn find(db: &Connection, query: &AuditQuery) -> Outcome<Vec<StoredAudit>> {
    let conditions: [(&str, Option<Value>); 9] = [
        ("reference = ?", query.reference.clone().map(Value::Text)),
        ("upload = ?", query.upload.map(|id| Value::Blob(id.uuid().as_bytes().to_vec()))),
        ("subject = ?", query.path.clone().map(Value::Text)),
        ("actor = ?", query.actor.clone().map(Value::Text)),
        ("account = ?", query.account.as_ref().map(|a| Value::Text(a.as_str().to_owned()))),
        ("result = ?", query.result.clone().map(Value::Text)),
        ("action = ?", query.action.clone().map(Value::Text)),
        ("at >= ?", query.since.map(|since| Value::Integer(since.millis()))),
        ("position > ?", query.after.map(|after| Value::Integer(i64::try_from(after).unwrap_or(i64::MAX)))),
    ];
    let mut terms = Vec::new();
    let mut values = Vec::new();
    for (term, value) in conditions {
        if let Some(value) = value {
            terms.push(term);
            values.push(value);
        }
    }
    let trouble = query.result.as_deref().is_some_and(|result| result != "ok");
    if trouble {
        // Said once more the way the index says it, or SQLite can't see that it may be used.
        terms.push("result <> 'ok'");
    }
    let index = if query.reference.is_some() {
        "INDEXED BY audit_by_reference"
    } else if query.upload.is_some() {
        "INDEXED BY audit_by_upload"
    } else if query.path.is_some() {
        "INDEXED BY audit_by_subject"
    } else if trouble {
        "INDEXED BY audit_by_trouble"
    } else if query.action.is_some() {
        "INDEXED BY audit_by_action"
    } else if query.actor.is_some() {
        "INDEXED BY audit_by_actor"
    } else if query.account.is_some() {
        "INDEXED BY audit_by_account"
    } else if query.since.is_some() {
        "INDEXED BY audit_by_at"
    } else {
        "NOT INDEXED"
    };
    let filter = if terms.is_empty() { String::new() } else { format!("WHERE {}", terms.join(" AND ")) };
    let order = if query.newest_first { "DESC" } else { "ASC" };
    values.push(Value::Integer(i64::try_from(query.limit.min(MOST)).unwrap_or(i64::MAX)));
    // As row numbers first: where they have to be sorted, that must not be done with the entries themselves.
    let sql = format!(
        "SELECT position, canonical FROM audit WHERE position IN
         (SELECT position FROM audit {index} {filter} ORDER BY position {order} LIMIT ?) ORDER BY position {order}"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(&values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(StoredAudit { position: row.get(0)?, canonical: Bytes::from(row.get::<_, Vec<u8>>(1)?) });
    }
    Ok(found)
}
