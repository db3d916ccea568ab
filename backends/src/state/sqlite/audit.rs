//! The audit trail: canonical bytes as they were made, and beside them what queries ask for.

use super::{MOST, fault::Outcome};
use crate::state::{AuditQuery, StateError, StoredAudit};
use bytes::Bytes;
use dropgate_schemas::audit::{Action, Actor, AuditEntry, AuditResult};
use rusqlite::{Connection, params, params_from_iter, types::Value};

/// Entries from one mark of the time to the next.
const MARK: i64 = 256;

/// Actions that every upload comes by. An index on them would cost more than it helps: who looks for one of them alone
/// finds it wherever he begins.
const COMMON: [Action; 13] = [
    Action::SessionConnect,
    Action::SessionLogin,
    Action::SessionDisconnect,
    Action::SessionReads,
    Action::UploadOpen,
    Action::UploadHold,
    Action::UploadAccept,
    Action::UploadRename,
    Action::UploadRoute,
    Action::UploadProcess,
    Action::DeliveryClaim,
    Action::DeliveryFinalize,
    Action::DeliverySucceed,
];

/// An entry, ready to be written.
pub(super) struct Row {
    at: i64,
    action: String,
    is_rare: bool,
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
            is_rare: !COMMON.contains(&entry.action),
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
        let position = db
            .prepare_cached(
                "INSERT INTO audit (at, action, rare_action, result, actor, account, subject, upload, reference, canonical)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .insert(params![
                self.at,
                self.action,
                self.is_rare.then_some(&self.action),
                self.result,
                self.actor,
                self.account,
                self.subject,
                self.upload,
                self.reference,
                self.canonical,
            ])?;
        if position % MARK == 0 {
            db.prepare_cached(
                "INSERT INTO audit_marks (position, latest_at)
                 SELECT ?1, max(max(at), coalesce((SELECT max(latest_at) FROM audit_marks), 0))
                 FROM audit WHERE position > ?1 - ?2",
            )?
            .execute((position, MARK))?;
        }
        Ok(())
    }
}

/// Entries by query.
pub(super) fn find(db: &Connection, query: &AuditQuery) -> Outcome<Vec<StoredAudit>> {
    let rare =
        query.action.as_ref().is_some_and(|action| COMMON.iter().all(|common| common.name() != *action));
    let since = query.since.map(|since| Value::Integer(since.millis()));
    let conditions: [(&str, Option<Value>); 10] = [
        ("reference = ?", query.reference.clone().map(Value::Text)),
        ("upload = ?", query.upload.map(|id| Value::Blob(id.uuid().as_bytes().to_vec()))),
        ("subject = ?", query.path.clone().map(Value::Text)),
        ("actor = ?", query.actor.clone().map(Value::Text)),
        ("account = ?", query.account.as_ref().map(|a| Value::Text(a.as_str().to_owned()))),
        ("result = ?", query.result.clone().map(Value::Text)),
        (if rare { "rare_action = ?" } else { "action = ?" }, query.action.clone().map(Value::Text)),
        ("at >= ?", since.clone()),
        ("position > (SELECT coalesce(max(position), 0) FROM audit_marks WHERE latest_at < ?)", since),
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
    } else if rare {
        "INDEXED BY audit_by_action"
    } else if query.actor.is_some() {
        "INDEXED BY audit_by_actor"
    } else if query.account.is_some() {
        "INDEXED BY audit_by_account"
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
