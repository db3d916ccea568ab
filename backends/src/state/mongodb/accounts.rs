//! Accounts.

use super::{MOST, document, document::integer, fault::Outcome, open::Database};
use dropgate_schemas::account::{Account, AccountName};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

/// One account.
pub(super) async fn one(db: &Database, name: &AccountName) -> Outcome<Option<Account>> {
    let find = db.accounts.find_one(doc! { "_id": name.as_str() }).projection(doc! { "_id": 0, "record": 1 });
    let found = db.command(find.into_future()).await?;
    Ok(found.map(|stored| document::read(stored, "record", "an account")).transpose()?)
}

/// Several accounts.
pub(super) async fn several(db: &Database, names: &[AccountName]) -> Outcome<Vec<Account>> {
    let mut found = Vec::new();
    for names in names.chunks(MOST) {
        let names: Vec<&str> = names.iter().map(AccountName::as_str).collect();
        found.extend(query(db, doc! { "_id": { "$in": names } }, MOST).await?);
    }
    Ok(found)
}

/// All accounts by name.
pub(super) async fn list(db: &Database, after: Option<&AccountName>, limit: usize) -> Outcome<Vec<Account>> {
    let after = after.map_or("", AccountName::as_str);
    query(db, doc! { "_id": { "$gt": after } }, limit.min(MOST)).await
}

async fn query(db: &Database, filter: Document, limit: usize) -> Outcome<Vec<Account>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let find = db
        .accounts
        .find(filter)
        .projection(doc! { "_id": 0, "record": 1 })
        .sort(doc! { "_id": 1 })
        .limit(integer(limit as u64))
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(document::read(stored, "record", "an account")?)).collect()
}
