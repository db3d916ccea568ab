//! `dropgate token`: who may use the HTTP API. Works beside running roles: each request looks at the record.

use super::{
    account::say,
    open::{Open, entry},
};
use crate::{
    cli::{Global, Json, TokenCommand},
    exit::Usage,
    table::Table,
};
use anyhow::{Context as _, bail};
use dropgate_backends::{StateStore, credentials::token::Presented};
use dropgate_schemas::{
    account::{PartnerName, TokenName},
    audit::{Action, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    id::TokenId,
    time::Timestamp,
    token::{Scope, Token},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Tokens read at a time.
const PAGE: usize = 500;

/// Runs one of the token commands.
///
/// # Errors
/// What could not be done, and why.
pub(crate) async fn run(command: TokenCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, scopes, partner, expires, json } => {
            let new = New { name, scopes: scopes.into_iter().collect(), partner, expires_at: expires };
            new.check()?;
            let open = Open::or_make(global).await?;
            let made = make(open.state(), new).await;
            open.close().await;
            let (token, text) = made?;
            say(&shown(&token, &text, json)?)
        }
        TokenCommand::List(json) => {
            let open = Open::existing(global).await?;
            let listed = all(open.state()).await;
            open.close().await;
            say(&list(&listed?, json)?)
        }
        TokenCommand::Revoke { id } => {
            let open = Open::existing(global).await?;
            let revoked = revoke(open.state(), id).await;
            open.close().await;
            say(&revoked?)
        }
    }
}

/// A token to be.
pub(crate) struct New {
    pub(crate) name: TokenName,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) partner: Option<PartnerName>,
    pub(crate) expires_at: Option<Timestamp>,
}

impl New {
    /// Nothing but events knows partners: a token that opens more can't be held to one.
    fn check(&self) -> anyhow::Result<()> {
        if self.partner.is_some() && self.scopes != BTreeSet::from([Scope::EventsRead]) {
            bail!(Usage(
                "--partner goes with --scopes events:read alone: other scopes show all partners".to_owned()
            ));
        }
        Ok(())
    }
}

/// Makes a token, and the text that its holder gets.
///
/// # Errors
/// What the state store said.
pub(crate) async fn make(state: &dyn StateStore, new: New) -> anyhow::Result<(Token, String)> {
    let presented = Presented::random();
    let token = Token {
        id: presented.id(),
        name: new.name,
        scopes: new.scopes,
        partner: new.partner,
        secret_sha256: presented.digest(),
        revision: 0,
        created_at: Timestamp::now(),
        expires_at: new.expires_at,
        revoked_at: None,
    };
    let mut audit = about(&token, Action::TokenCreate);
    audit.detail.insert("scopes".to_owned(), scopes(&token));
    if let Some(end) = token.expires_at {
        audit.detail.insert("expires_at".to_owned(), end.to_string());
    }
    apply(state, token.clone(), audit).await?;
    Ok((token, presented.expose()))
}

async fn revoke(state: &dyn StateStore, id: TokenId) -> anyhow::Result<String> {
    let found = state.token(id).await.with_context(|| format!("token {id}"))?;
    let mut token = found
        .with_context(|| format!("there is no token {id}: `dropgate token list` shows those there are"))?;
    let name = token.name.clone();
    if token.revoked_at.is_some() {
        return Ok(format!("token {id} of {name} is revoked already"));
    }
    token.revoked_at = Some(Timestamp::now());
    let audit = about(&token, Action::TokenRevoke);
    apply(state, token, audit).await?;
    Ok(format!("token {id} of {name} revoked; it opens nothing any more"))
}

async fn apply(state: &dyn StateStore, token: Token, audit: AuditEntry) -> anyhow::Result<()> {
    let id = token.id;
    let change = Change {
        subject: Subject::Token(token),
        audit: vec![audit],
        outbox: vec![],
        durability: Durability::Durable,
    };
    state.apply(change).await.with_context(|| format!("token {id}"))?;
    Ok(())
}

fn about(token: &Token, action: Action) -> AuditEntry {
    let mut audit = AuditEntry {
        partner: token.partner.clone(),
        subject: Some(token.id.to_string()),
        ..entry(action, AuditResult::Ok)
    };
    audit.detail.insert("name".to_owned(), token.name.to_string());
    audit
}

async fn all(state: &dyn StateStore) -> anyhow::Result<Vec<Token>> {
    let mut all: Vec<Token> = Vec::new();
    loop {
        let after = all.last().map(|token| token.id);
        let page = state.list_tokens(after, PAGE).await.context("the list of tokens")?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn scopes(token: &Token) -> String {
    token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}

fn state_of(token: &Token) -> &'static str {
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.is_live(Timestamp::now()) {
        "live"
    } else {
        "expired"
    }
}

fn as_json(token: &Token) -> Value {
    json!({
        "id": token.id, "name": token.name, "scopes": token.scopes, "partner": token.partner,
        "state": state_of(token), "created_at": token.created_at, "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    })
}

fn shown(token: &Token, text: &str, json: Json) -> anyhow::Result<String> {
    if json.json {
        let mut value = as_json(token);
        if let Some(object) = value.as_object_mut() {
            object.insert("token".to_owned(), text.into());
        }
        return Ok(serde_json::to_string_pretty(&value)?);
    }
    let of = token.partner.as_ref().map(|partner| format!(" of partner {partner}")).unwrap_or_default();
    let until = token.expires_at.map(|end| format!(", until {end}")).unwrap_or_default();
    Ok(format!(
        "token {} for {} ({}{of}{until}):\n\n    {text}\n\nIt is shown this once.",
        token.id,
        token.name,
        scopes(token)
    ))
}

fn list(tokens: &[Token], json: Json) -> anyhow::Result<String> {
    if json.json {
        return Ok(serde_json::to_string_pretty(&tokens.iter().map(as_json).collect::<Vec<_>>())?);
    }
    if tokens.is_empty() {
        return Ok("no tokens: `dropgate token create --name WHO --scopes events:read` makes one".to_owned());
    }
    let mut table = Table::new(["ID", "NAME", "SCOPES", "PARTNER", "STATE", "MADE", "EXPIRES"]);
    for token in tokens {
        table.row([
            token.id.to_string(),
            token.name.to_string(),
            scopes(token),
            token.partner.as_ref().map(ToString::to_string).unwrap_or_default(),
            state_of(token).to_owned(),
            token.created_at.to_string(),
            token.expires_at.map(|end| end.to_string()).unwrap_or_default(),
        ]);
    }
    Ok(table.to_string().trim_end().to_owned())
}
