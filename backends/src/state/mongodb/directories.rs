//! Directories.

use super::{MOST, apply::path_id, document, document::integer, fault::Outcome, open::Database};
use dropgate_schemas::{
    account::AccountName,
    directory::Directory,
    path::{Area, VirtualPath},
};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

/// One directory.
pub(super) async fn one(
    db: &Database,
    account: &AccountName,
    path: &VirtualPath,
) -> Outcome<Option<Directory>> {
    let find = db
        .directories
        .find_one(doc! { "_id": path_id(account, path) })
        .projection(doc! { "_id": 0, "record": 1 });
    let found = db.command(find.into_future()).await?;
    Ok(found.map(|stored| document::read(stored, "record", "a directory")).transpose()?)
}

/// Directories directly below `parent` that show in `area`, by name.
pub(super) async fn list(
    db: &Database,
    account: &AccountName,
    parent: &VirtualPath,
    area: Area,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Vec<Directory>> {
    let shown = match area {
        Area::Upload => "record.in_upload",
        Area::Sent => "record.in_sent",
        Area::Failed => "record.in_failed",
        Area::Inbox => return Ok(Vec::new()),
    };
    if limit == 0 {
        return Ok(Vec::new());
    }
    // No name is empty, so every name comes after the empty one.
    let filter = doc! {
        "record.account": account.as_str(),
        "keys.directory": parent.key(),
        "keys.name": { "$gt": after.unwrap_or_default() },
        shown: true,
    };
    let find = db
        .directories
        .find(filter)
        .projection(doc! { "_id": 0, "record": 1 })
        .sort(doc! { "keys.name": 1 })
        .limit(integer(limit.min(MOST) as u64))
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(document::read(stored, "record", "a directory")?)).collect()
}
