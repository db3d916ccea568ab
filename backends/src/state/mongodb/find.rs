//! Uploads by id and by query.

use super::{
    MOST,
    document::{self, date, integer, number},
    fault::Outcome,
    open::Database,
};
use crate::state::{MOST_COUNTED, StateError, UploadOrder, UploadQuery, Usage};
use bytes::Bytes;
use dropgate_schemas::{
    account::AccountName,
    id::UploadId,
    path::VirtualPath,
    time::Timestamp,
    upload::{Upload, UploadState},
};
use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};

/// Without the content, which nobody asked for.
fn of_record() -> Document {
    doc! { "_id": 0, "record": 1, "answered": 1 }
}

/// One upload.
pub(super) async fn one(db: &Database, id: UploadId) -> Outcome<Option<Upload>> {
    let find = db.uploads.find_one(doc! { "_id": id.to_string() }).projection(of_record());
    let found = db.command(find.into_future()).await?;
    Ok(found.map(read).transpose()?)
}

/// The record, and the mark that is kept beside it.
fn read(stored: Document) -> Result<Upload, StateError> {
    let answered = stored.get_bool("answered").unwrap_or(false);
    let mut upload: Upload = document::read(stored, "record", "an upload")?;
    upload.answered |= answered;
    Ok(upload)
}

/// Uploads by query.
pub(super) async fn find(db: &Database, query: &UploadQuery) -> Outcome<Vec<Upload>> {
    let limit = query.limit.min(MOST);
    if limit == 0 {
        return Ok(Vec::new());
    }
    if let Some((account, path)) = one_path(query) {
        return versions(db, account, path, &query.states, limit).await;
    }
    let find = db
        .uploads
        .find(filter(query))
        .projection(of_record())
        .sort(order(query))
        .limit(integer(limit as u64))
        .allow_disk_use(true)
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(read(stored)?)).collect()
}

/// The path whose versions a query asks for, if it asks for nothing else but states.
fn one_path(query: &UploadQuery) -> Option<(&AccountName, &VirtualPath)> {
    let UploadQuery {
        account: Some(account),
        partner: None,
        path: Some(path),
        directory: None,
        under: None,
        states: _,
        area: None,
        owner: None,
        sha256: None,
        blob: None,
        since: None,
        until: None,
        updated_before: None,
        order: UploadOrder::ByVersion,
        limit: _,
    } = query
    else {
        return None;
    };
    Some((account, path))
}

/// Versions of one path, newest first, as the unique index has them. States are a condition of their own behind that on the
/// path: a server that plans well makes one of both, and one that does not goes by the path, which few records have, and not
/// by the states, which most have.
async fn versions(
    db: &Database,
    account: &AccountName,
    path: &VirtualPath,
    states: &[UploadState],
    limit: usize,
) -> Outcome<Vec<Upload>> {
    let of_path = doc! { "record.account": account.as_str(), "keys.path": path.key() };
    let mut stages = vec![doc! { "$match": of_path }];
    if !states.is_empty() {
        let states: Vec<&str> = states.iter().copied().map(UploadState::as_str).collect();
        stages.push(doc! { "$match": { "record.state": { "$in": states } } });
    }
    stages.extend([
        doc! { "$sort": { "record.version": -1 } },
        doc! { "$limit": integer(limit as u64) },
        doc! { "$project": of_record() },
    ]);
    let find = db.uploads.aggregate(stages).max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(read(stored)?)).collect()
}

/// What an account has sent. Added up through an index that holds nothing else: there is no transaction that could keep
/// counters in step with the records.
pub(super) async fn usage(db: &Database, account: &AccountName, since: Option<Timestamp>) -> Outcome<Usage> {
    let mut counts = doc! {
        "record.account": account.as_str(),
        "record.state": { "$ne": UploadState::Aborted.as_str() },
        "record.size": { "$gte": 0 },
    };
    if let Some(since) = since {
        counts.insert("opened_at", doc! { "$gte": date(since) });
    }
    let size = doc! { "$min": ["$record.size", integer(MOST_COUNTED)] };
    let sum = doc! { "$group": { "_id": Bson::Null, "uploads": { "$sum": 1 }, "bytes": { "$sum": size } } };
    let sum = db.uploads.aggregate([doc! { "$match": counts }, sum]).max_time(db.attempt());
    let found: Vec<Document> = db.command(async { sum.await?.try_collect().await }).await?;
    let Some(sum) = found.first() else { return Ok(Usage::default()) };
    Ok(Usage { uploads: number(sum, "uploads")?, bytes: number(sum, "bytes")? })
}

fn order(query: &UploadQuery) -> Document {
    match &query.order {
        UploadOrder::NewestFirst | UploadOrder::Before(_) => doc! { "_id": -1 },
        UploadOrder::ByName | UploadOrder::ByNameAfter(_) => {
            doc! { "keys.name": 1, "record.version": -1, "_id": 1 }
        }
        UploadOrder::ByVersion => doc! { "record.version": -1, "_id": 1 },
    }
}

/// All conditions of a query; several may be about one field.
fn filter(query: &UploadQuery) -> Document {
    let equal = |field: &str, value: Option<String>| value.map(|value| doc! { field: value });
    let states = match query.states.as_slice() {
        [] => None,
        [one] => equal("record.state", Some(one.as_str().to_owned())),
        several => {
            let states: Vec<&str> = several.iter().copied().map(UploadState::as_str).collect();
            Some(doc! { "record.state": { "$in": states } })
        }
    };
    // What few have comes first: a planner that does not weigh takes the first condition that has an index.
    let mut conditions: Vec<Document> = [
        equal("owners", query.owner.map(|id| id.to_string())),
        equal("blob", query.blob.map(|id| id.to_string())),
        equal("record.sha256", query.sha256.map(|digest| digest.to_string())),
        states,
        equal("record.account", query.account.as_ref().map(ToString::to_string)),
        equal("record.partner", query.partner.as_ref().map(ToString::to_string)),
        equal("keys.path", query.path.as_ref().map(|path| path.key().to_owned())),
        equal("keys.directory", query.directory.as_ref().map(|path| path.key().to_owned())),
        equal("area", query.area.map(|area| area.name().to_owned())),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(under) = &query.under {
        // Between `dir/` and `dir0`, the character after the slash.
        let under = under.key().trim_end_matches('/');
        conditions.push(doc! { "keys.path": { "$gt": format!("{under}/"), "$lt": format!("{under}0") } });
    }
    if let Some(since) = query.since {
        conditions.push(doc! { "opened_at": { "$gte": date(since) } });
    }
    if let Some(until) = query.until {
        conditions.push(doc! { "opened_at": { "$lt": date(until) } });
    }
    if let Some(before) = query.updated_before {
        conditions.push(doc! { "updated_at": { "$lt": date(before) } });
    }
    match &query.order {
        UploadOrder::NewestFirst | UploadOrder::ByName | UploadOrder::ByVersion => {}
        UploadOrder::Before(id) => conditions.push(doc! { "_id": { "$lt": id.to_string() } }),
        UploadOrder::ByNameAfter(name) => conditions.push(doc! { "keys.name": { "$gt": name } }),
    }
    all_of(conditions)
}

/// All conditions in one document: side by side, which every server's planner understands, and those about a field that has
/// one already under `$and`.
fn all_of(conditions: Vec<Document>) -> Document {
    let mut all = Document::new();
    let mut more = Vec::new();
    for condition in conditions {
        if condition.keys().any(|field| all.contains_key(field)) {
            more.push(condition);
        } else {
            all.extend(condition);
        }
    }
    if !more.is_empty() {
        all.insert("$and", more);
    }
    all
}

/// The highest version of a path.
pub(super) async fn highest_version(
    db: &Database,
    account: &AccountName,
    path: &VirtualPath,
) -> Outcome<u32> {
    let find = db
        .uploads
        .find_one(doc! { "record.account": account.as_str(), "keys.path": path.key() })
        .sort(doc! { "record.version": -1 })
        .projection(doc! { "_id": 0, "record.version": 1 });
    let Some(found) = db.command(find.into_future()).await? else { return Ok(0) };
    let record = found.get_document("record").map_err(|e| StateError::Corrupt(format!("an upload: {e}")))?;
    let version = number(record, "version")?;
    Ok(u32::try_from(version)
        .map_err(|_| StateError::Corrupt(format!("an upload has version {version}, which is too high")))?)
}

/// Inline content of an upload.
pub(super) async fn inline(db: &Database, id: UploadId) -> Outcome<Option<Bytes>> {
    let find = db.uploads.find_one(doc! { "_id": id.to_string() }).projection(doc! { "_id": 0, "inline": 1 });
    let found = db.command(find.into_future()).await?;
    match found.and_then(|mut stored| stored.remove("inline")) {
        None => Ok(None),
        Some(Bson::Binary(binary)) => Ok(Some(Bytes::from(binary.bytes))),
        Some(other) => {
            let why = format!("the content of upload {id} is a {:?}", other.element_type());
            Err(StateError::Corrupt(why).into())
        }
    }
}
