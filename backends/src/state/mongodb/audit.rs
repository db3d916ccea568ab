//! The audit trail: canonical bytes as they were made, and beside them what queries ask for.

use super::{
    MOST,
    document::{date, integer, number},
    fault::Outcome,
    open::Database,
};
use crate::state::{AuditQuery, StateError, StoredAudit};
use bytes::Bytes;
use dropgate_schemas::audit::{Action, Actor, AuditEntry, AuditResult};
use futures::TryStreamExt as _;
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};

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

/// An entry as it is stored, but for its position.
pub(super) fn document(entry: &AuditEntry) -> Result<Bson, StateError> {
    let (Actor::Account { id, .. } | Actor::Operator { id } | Actor::System { id }) = &entry.actor;
    let action = entry.action.name();
    let canonical = entry
        .canonical()
        .map_err(|e| StateError::Rejected(format!("an audit entry can't be serialised: {e}")))?;
    let mut stored = doc! {
        "entry": entry.id.to_string(),
        "at": date(entry.at),
        "action": &action,
        "result": match entry.result {
            AuditResult::Ok => "ok",
            AuditResult::Refused => "refused",
            AuditResult::Failed => "failed",
        },
        "actor": id,
    };
    let mut maybe = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            stored.insert(name, value);
        }
    };
    maybe("account", entry.account.as_ref().map(ToString::to_string));
    maybe("subject", entry.subject.clone());
    maybe("upload", entry.upload.map(|id| id.to_string()));
    maybe("reference", entry.reference.clone());
    maybe("rare_action", (!COMMON.contains(&entry.action)).then_some(action));
    if entry.result != AuditResult::Ok {
        stored.insert("trouble", true);
    }
    stored.insert("canonical", Binary { subtype: BinarySubtype::Generic, bytes: canonical });
    Ok(Bson::Document(stored))
}

/// Entries by query.
pub(super) async fn find(db: &Database, query: &AuditQuery) -> Outcome<Vec<StoredAudit>> {
    let limit = query.limit.min(MOST);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let order = if query.newest_first { -1 } else { 1 };
    let find = db
        .audit
        .find(filter(query))
        .projection(doc! { "canonical": 1 })
        .sort(doc! { "_id": order })
        .limit(integer(limit as u64))
        .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
        .allow_disk_use(true)
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.iter().map(|stored| Ok(read(stored)?)).collect()
}

fn filter(query: &AuditQuery) -> Document {
    let rare =
        query.action.as_ref().is_some_and(|action| COMMON.iter().all(|common| common.name() != *action));
    let mut filter = Document::new();
    let mut equal = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            filter.insert(name, value);
        }
    };
    equal("reference", query.reference.clone());
    equal("upload", query.upload.map(|id| id.to_string()));
    equal("subject", query.path.clone());
    equal("actor", query.actor.clone());
    equal("account", query.account.as_ref().map(ToString::to_string));
    equal("result", query.result.clone());
    equal(if rare { "rare_action" } else { "action" }, query.action.clone());
    if query.result.as_deref().is_some_and(|result| result != "ok") {
        // Said once more the way the index says it, or the server can't see that it may be used.
        filter.insert("trouble", true);
    }
    if let Some(since) = query.since {
        filter.insert("at", doc! { "$gte": date(since) });
    }
    if let Some(after) = query.after {
        filter.insert("_id", doc! { "$gt": integer(after) });
    }
    filter
}

fn read(stored: &Document) -> Result<StoredAudit, StateError> {
    let position = number(stored, "_id")?;
    let canonical = stored
        .get_binary_generic("canonical")
        .map_err(|e| StateError::Corrupt(format!("audit entry {position} has no canonical bytes: {e}")))?;
    Ok(StoredAudit { position, canonical: Bytes::copy_from_slice(canonical) })
}
