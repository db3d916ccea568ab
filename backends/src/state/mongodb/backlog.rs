//! Counts for status and metrics.

use super::{
    document::{date, moment, number, text},
    fault::Outcome,
    open::Database,
};
use crate::state::{Backlog, StateError};
use dropgate_schemas::{change::OutboxKind, time::Timestamp};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

/// Counts what there is. Uploads are counted through an index that holds nothing but their states: there is no transaction
/// that could keep counters in step with the records.
pub(super) async fn count(db: &Database) -> Outcome<Backlog> {
    let kinds: Vec<&str> = OutboxKind::ALL.into_iter().map(OutboxKind::as_str).collect();
    let count = [
        doc! { "$match": { "deleted": false } },
        doc! { "$group": { "_id": "$record.state", "n": { "$sum": 1 } } },
    ];
    let count = db.uploads.aggregate(count).max_time(db.attempt());
    let waiting = db.outbox.count_documents(doc! { "kind": { "$in": kinds } }).max_time(db.attempt());
    let oldest = db
        .outbox
        .find_one(doc! { "due": { "$lte": date(Timestamp::now()) } })
        .sort(doc! { "due": 1 })
        .projection(doc! { "due": 1 });
    let (states, outbox, oldest) = tokio::try_join!(
        db.command(async { count.await?.try_collect::<Vec<Document>>().await }),
        db.command(waiting.into_future()),
        db.command(oldest.into_future()),
    )?;
    let mut uploads = Vec::new();
    for counted in states {
        let state = text(&counted, "_id")?.parse().map_err(StateError::Corrupt)?;
        uploads.push((state, number(&counted, "n")?));
    }
    uploads.sort_unstable();
    let oldest_outbox = oldest.map(|stored| moment(&stored, "due")).transpose()?;
    Ok(Backlog { uploads, outbox, oldest_outbox })
}
