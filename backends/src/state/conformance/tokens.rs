//! Operators' tokens.

use super::{Fixture, samples::token};
use dropgate_schemas::{
    change::{Change, Durability, Subject},
    id::TokenId,
    time::Timestamp,
    token::Token,
};
use std::sync::Arc;

async fn write(handle: &Arc<dyn crate::StateStore>, token: &mut Token) {
    let change = Change {
        subject: Subject::Token(token.clone()),
        audit: Vec::new(),
        outbox: Vec::new(),
        durability: Durability::Durable,
    };
    token.revision = handle.apply(change).await.unwrap();
}

/// A revocation by one handle is what the other sees next.
pub async fn tokens_are_kept_listed_by_id_and_seen_revoked_at_once(store: &Fixture) {
    assert!(store.two.list_tokens(None, 10).await.unwrap().is_empty());
    let mut tokens: Vec<Token> = ["erp", "erp", "grafana", "alice", "bob"].map(token).to_vec();
    for token in &mut tokens {
        write(&store.one, token).await;
        assert_eq!(store.two.token(token.id).await.unwrap().as_ref(), Some(&*token));
    }
    assert_eq!(store.one.token(TokenId::new()).await.unwrap(), None);
    tokens[2].revoked_at = Some(Timestamp::now());
    write(&store.two, &mut tokens[2]).await;
    assert_eq!(store.one.token(tokens[2].id).await.unwrap().as_ref(), Some(&tokens[2]));
    tokens.sort_by_key(|token| token.id);
    let mut seen: Vec<Token> = Vec::new();
    loop {
        let page = store.two.list_tokens(seen.last().map(|token| token.id), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        seen.extend(page);
    }
    assert_eq!(seen, tokens);
    assert!(store.one.list_tokens(None, 0).await.unwrap().is_empty());
}
