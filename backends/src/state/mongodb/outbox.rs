//! What must follow from changes, in the order in which it was stored.
//!
//! A handled entry stays for an hour as a mark without content. Another process may have read the entry where it was
//! embedded and be about to place it; the mark's unique id keeps it from coming back to life.

use super::{
    MOST,
    document::{self, date, integer, moment, number},
    fault::Outcome,
    open::{Database, visible},
};
use crate::state::StateError;
use dropgate_schemas::{
    change::{OutboxEntry, OutboxKind},
    id::OutboxId,
    time::Timestamp,
};
use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};

/// An entry as it is stored, but for its number in the order.
pub(super) fn document(entry: &OutboxEntry) -> Result<Bson, StateError> {
    let mut stored = doc! {
        "entry": entry.id.to_string(),
        "kind": entry.message.kind().as_str(),
        // When it was first due.
        "due": date(entry.not_before.unwrap_or_else(Timestamp::now)),
        "waits": entry.not_before.is_some(),
    };
    if let Some(until) = entry.not_before {
        stored.insert("not_before", date(until));
    }
    stored.insert("record", document::write(entry)?);
    Ok(Bson::Document(stored))
}

/// Entries of one kind that are due, in the order in which they were stored.
pub(super) async fn due(
    db: &Database,
    kind: OutboxKind,
    now: Timestamp,
    limit: usize,
) -> Outcome<Vec<OutboxEntry>> {
    let limit = limit.min(MOST);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let of = |filter: Document| {
        let find = db
            .outbox
            .find(filter)
            .sort(doc! { "_id": 1 })
            .limit(integer(limit as u64))
            .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
            .allow_disk_use(true)
            .max_time(db.attempt());
        db.command(async move { find.await?.try_collect::<Vec<Document>>().await })
    };
    let (mut found, later) = tokio::try_join!(
        of(doc! { "kind": kind.as_str(), "waits": false }),
        of(doc! { "kind": kind.as_str(), "waits": true, "not_before": { "$lte": date(now) } }),
    )?;
    if !later.is_empty() {
        found.extend(later);
        found.sort_by_cached_key(|stored| number(stored, "_id").unwrap_or(u64::MAX));
        found.truncate(limit);
    }
    found.into_iter().map(|stored| Ok(read(stored)?)).collect()
}

fn read(stored: Document) -> Result<OutboxEntry, StateError> {
    let not_before =
        if stored.contains_key("not_before") { Some(moment(&stored, "not_before")?) } else { None };
    let mut entry: OutboxEntry = document::read(stored, "record", "an outbox entry")?;
    // It may have been put off since.
    entry.not_before = not_before;
    Ok(entry)
}

/// When the next entry that is not due yet becomes due.
pub(super) async fn next_due(db: &Database, now: Timestamp) -> Outcome<Option<Timestamp>> {
    let next = db
        .outbox
        .find_one(doc! { "not_before": { "$gt": date(now) } })
        .sort(doc! { "not_before": 1 })
        .projection(doc! { "not_before": 1 });
    let next = db.command(next.into_future()).await?;
    Ok(next.map(|stored| moment(&stored, "not_before")).transpose()?)
}

/// Marks entries as handled.
pub(super) async fn done(db: &Database, ids: &[OutboxId]) -> Result<(), StateError> {
    let content = doc! { "kind": 1, "waits": 1, "due": 1, "not_before": 1, "record": 1 };
    let handled = doc! { "$set": { "handled_at": date(Timestamp::now()) }, "$unset": content };
    change(db, ids, Document::new(), handled).await
}

/// Puts entries off that are not handled.
pub(super) async fn defer(db: &Database, ids: &[OutboxId], until: Timestamp) -> Result<(), StateError> {
    let waits = doc! { "$set": { "waits": true, "not_before": date(until) } };
    change(db, ids, doc! { "kind": { "$exists": true } }, waits).await
}

async fn change(db: &Database, ids: &[OutboxId], only: Document, update: Document) -> Result<(), StateError> {
    for ids in ids.chunks(MOST) {
        let mut entries =
            doc! { "entry": { "$in": ids.iter().map(ToString::to_string).collect::<Vec<_>>() } };
        entries.extend(only.clone());
        let (entries, update) = (&entries, &update);
        let change = move || async move {
            let change = db.outbox.update_many(entries.clone(), update.clone()).write_concern(visible());
            db.command(change.into_future()).await
        };
        let changed = db.insist(change).await?.matched_count;
        if changed < ids.len() as u64 {
            // The rest is not there, was handled, or waits where it was written.
            db.placing.place(db).await?;
            db.insist(change).await?;
        }
    }
    Ok(())
}
