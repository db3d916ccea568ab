//! Entries of `/inbox`.

use super::{MOST, apply::path_id, document, document::integer, fault::Outcome, open::Database};
use dropgate_schemas::{account::AccountName, inbox::InboxEntry, path::VirtualPath};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

/// One entry, removed or not.
pub(super) async fn one(
    db: &Database,
    account: &AccountName,
    path: &VirtualPath,
) -> Outcome<Option<InboxEntry>> {
    let find =
        db.inbox.find_one(doc! { "_id": path_id(account, path) }).projection(doc! { "_id": 0, "record": 1 });
    let found = db.command(find.into_future()).await?;
    Ok(found.map(|stored| document::read(stored, "record", "an inbox entry")).transpose()?)
}

/// Entries that were not removed, by name.
pub(super) async fn list(
    db: &Database,
    account: &AccountName,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<InboxEntry>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    // No name is empty, so every name comes after the empty one.
    let filter = doc! {
        "record.account": account.as_str(),
        "shown": true,
        "keys.name": { "$gt": after.unwrap_or_default() },
    };
    let find = db
        .inbox
        .find(filter)
        .projection(doc! { "_id": 0, "record": 1 })
        .sort(doc! { "keys.name": 1 })
        .limit(integer(limit.min(MOST) as u64))
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(document::read(stored, "record", "an inbox entry")?)).collect()
}
