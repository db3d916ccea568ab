//! Operators' tokens.

use super::{
    MOST,
    document::{self, integer},
    fault::Outcome,
    open::Database,
};
use dropgate_schemas::{id::TokenId, token::Token};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

/// One token.
pub(super) async fn one(db: &Database, id: TokenId) -> Outcome<Option<Token>> {
    let find = db.tokens.find_one(doc! { "_id": id.to_string() }).projection(doc! { "_id": 0, "record": 1 });
    let found = db.command(find.into_future()).await?;
    Ok(found.map(|stored| document::read(stored, "record", "a token")).transpose()?)
}

/// All tokens by id.
pub(super) async fn list(db: &Database, after: Option<TokenId>, limit: usize) -> Outcome<Vec<Token>> {
    let limit = limit.min(MOST);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let after = after.map_or_else(String::new, |id| id.to_string());
    let find = db
        .tokens
        .find(doc! { "_id": { "$gt": after } })
        .projection(doc! { "_id": 0, "record": 1 })
        .sort(doc! { "_id": 1 })
        .limit(integer(limit as u64))
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(document::read(stored, "record", "a token")?)).collect()
}
