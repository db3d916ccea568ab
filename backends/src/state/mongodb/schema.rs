//! Whether the collections are ours, their schema's version, the way from older versions to this one, and their indexes.

use super::{
    collections::{ALL, Index, META, indexes},
    document,
    failure::OpenFailure,
    fault::{DUPLICATE_KEY, code, said},
};
use dropgate_schemas::{audit::SOFTWARE, time::Timestamp};
use futures::TryStreamExt as _;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Bson, Document, doc},
    error::Error,
    options::IndexOptions,
};
use std::time::Duration;

/// What tells our collections from any other program's.
const APPLICATION: &str = "dropgate";

/// The schema that this version works with. A step that leads from an older one belongs into [`step`].
pub(super) const VERSION: u64 = 1;

/// How often, and after which pause, another process is waited for that has just begun to make the schema.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Index of that name with other keys or options.
const OTHER_INDEX: [i32; 2] = [85, 86];

/// Checks that the collections are ours, or not there; brings them to the present schema; makes and checks the indexes.
pub(super) async fn prepare(db: &Database, prefix: &str) -> Result<(), OpenFailure> {
    let meta: Collection<Document> = db.collection(&format!("{prefix}{META}"));
    let mut version = match version(&meta, db, prefix).await? {
        Some(version) => version,
        None => {
            mark(&meta).await?;
            0
        }
    };
    loop {
        if version > VERSION {
            return Err(OpenFailure::new(
                format!(
                    "its collections have schema {version}, written by a newer version; this one ({SOFTWARE}) knows schemas \
                     up to {VERSION}"
                ),
                "run the newer version",
            ));
        }
        if version == VERSION {
            break;
        }
        step(version).await?;
        // Whoever else does the same step at the same time comes to the same result.
        let reached = doc! { "$set": {
            "version": document::integer(version + 1), "software": SOFTWARE, "applied_at": document::date(Timestamp::now()),
        } };
        meta.update_one(doc! { "_id": "schema", "version": document::integer(version) }, reached).await?;
        version = self::version(&meta, db, prefix).await?.unwrap_or(0);
    }
    make_indexes(db, prefix).await
}

/// Changes documents of schema `from` into those of the next one. Must bear being done twice, also at the same time.
async fn step(from: u64) -> Result<(), OpenFailure> {
    match from {
        // Nothing was there before the first schema, and its indexes are made at every start.
        0 => Ok(()),
        other => Err(OpenFailure::new(
            format!("there is no way from schema {other} to the next one"),
            "restore the collection meta from a backup",
        )),
    }
}

/// The version of the schema; none if nothing of ours is there yet.
async fn version(
    meta: &Collection<Document>,
    db: &Database,
    prefix: &str,
) -> Result<Option<u64>, OpenFailure> {
    for look in 0..LOOKS {
        if let Some(schema) = meta.find_one(doc! { "_id": "schema" }).await? {
            if schema.get_str("application").ok() != Some(APPLICATION) {
                return Err(foreign(db, &format!("{prefix}{META}")));
            }
            return Ok(Some(document::number(&schema, "version")?));
        }
        let names = db.list_collection_names().await?;
        let ours = |name: &&String| name.strip_prefix(prefix).is_some_and(|name| ALL.contains(&name));
        let Some(name) = names.iter().find(ours) else { return Ok(None) };
        // A process that starts at the same moment makes the collection just before the document.
        if look + 1 == LOOKS {
            return Err(foreign(db, name));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}

fn foreign(db: &Database, collection: &str) -> OpenFailure {
    OpenFailure::new(
        format!(
            "the database {} has a collection {collection} that is not Dropgate's (its schema mark is missing)",
            db.name()
        ),
        "set database or prefix to names of Dropgate's own, or move that collection away",
    )
}

/// Leaves our mark.
async fn mark(meta: &Collection<Document>) -> Result<(), OpenFailure> {
    let schema = doc! {
        "_id": "schema", "application": APPLICATION, "version": 0_i64, "software": SOFTWARE,
        "applied_at": document::date(Timestamp::now()),
    };
    match meta.insert_one(schema).await {
        Ok(_) => Ok(()),
        Err(e) if code(&e) == Some(DUPLICATE_KEY) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Makes the indexes that are missing and refuses those that differ: without them, two uploads could have one name.
async fn make_indexes(db: &Database, prefix: &str) -> Result<(), OpenFailure> {
    let wanted = indexes();
    let mut collections: Vec<&str> = wanted.iter().map(|index| index.collection).collect();
    collections.dedup();
    for name in collections {
        let collection: Collection<Document> = db.collection(&format!("{prefix}{name}"));
        let present = present(&collection).await?;
        let mut missing = Vec::new();
        for index in wanted.iter().filter(|index| index.collection == name) {
            match present.iter().find(|there| name_of(there) == index.name) {
                None => missing.push(index),
                Some(there) if same(index, there) => {}
                Some(_) => return Err(drifted(&collection, index.name)),
            }
        }
        if missing.is_empty() {
            continue;
        }
        if !present.is_empty() {
            let names: Vec<&str> = missing.iter().map(|index| index.name).collect();
            tracing::warn!(
                collection = collection.name(),
                indexes = names.join(" "),
                "making indexes that are missing"
            );
        }
        for index in missing {
            collection.create_index(model(index)).await.map_err(|e| not_made(&collection, index, &e))?;
        }
    }
    Ok(())
}

/// Indexes of a collection; none if it does not exist.
async fn present(collection: &Collection<Document>) -> Result<Vec<IndexModel>, OpenFailure> {
    const NO_SUCH_COLLECTION: i32 = 26;
    let listed = match collection.list_indexes().await {
        Ok(cursor) => cursor.try_collect().await,
        Err(e) => Err(e),
    };
    match listed {
        Ok(indexes) => Ok(indexes),
        Err(e) if code(&e) == Some(NO_SUCH_COLLECTION) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

fn name_of(index: &IndexModel) -> &str {
    index.options.as_ref().and_then(|options| options.name.as_deref()).unwrap_or_default()
}

fn model(index: &Index) -> IndexModel {
    let options = IndexOptions::builder()
        .name(index.name.to_owned())
        .unique(index.unique.then_some(true))
        .partial_filter_expression(index.only.clone())
        .sparse(index.sparse.then_some(true))
        .expire_after(index.expire)
        .build();
    IndexModel::builder().keys(index.keys.clone()).options(options).build()
}

/// Whether an index does what ours does. Servers answer with other types of numbers than they were given.
fn same(ours: &Index, theirs: &IndexModel) -> bool {
    let options = theirs.options.clone().unwrap_or_default();
    plain(&ours.keys) == plain(&theirs.keys)
        && ours.unique == options.unique.unwrap_or(false)
        && ours.only.as_ref().map(plain) == options.partial_filter_expression.as_ref().map(plain)
        && ours.expire == options.expire_after
        && ours.sparse == options.sparse.unwrap_or(false)
}

/// A document with all whole numbers in one form.
fn plain(document: &Document) -> Vec<(String, String)> {
    let value = |value: &Bson| match value {
        Bson::Int32(n) => n.to_string(),
        Bson::Int64(n) => n.to_string(),
        Bson::Double(n) => n.to_string(),
        Bson::Document(inner) => format!("{:?}", plain(inner)),
        other => other.to_string(),
    };
    document.iter().map(|(name, v)| (name.clone(), value(v))).collect()
}

fn drifted(collection: &Collection<Document>, index: &str) -> OpenFailure {
    let name = collection.name();
    OpenFailure::new(
        format!("the index {index} of its collection {name} is not the one that Dropgate needs"),
        format!(
            "drop it with db.getCollection({name:?}).dropIndex({index:?}); it is made anew at the next start"
        ),
    )
}

fn not_made(collection: &Collection<Document>, index: &Index, error: &Error) -> OpenFailure {
    let (name, index_name) = (collection.name(), index.name);
    match code(error) {
        Some(code) if OTHER_INDEX.contains(&code) => drifted(collection, index_name),
        Some(DUPLICATE_KEY) => OpenFailure::new(
            format!(
                "the unique index {index_name} of its collection {name} can't be made, since documents repeat a value of it: \
                 {}",
                said(error)
            ),
            "the index was removed for a while; restore the collection from a backup, or remove the documents that repeat",
        ),
        _ => {
            let failure = OpenFailure::from(error.clone());
            OpenFailure::new(
                format!("the index {index_name} of its collection {name} can't be made: {}", failure.what),
                failure.remedy,
            )
        }
    }
}
