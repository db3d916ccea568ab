//! Bearer tokens. The record is read for each request, so that a token that was revoked opens nothing from then on, at whichever
//! process that was done.

use crate::problem::Problem;
use axum::http::{HeaderMap, header};
use dropgate_backends::{StateStore, credentials::token::Presented};
use dropgate_schemas::{
    time::Timestamp,
    token::{Scope, Token},
};
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two log lines about refusals: whoever tries tokens must not fill the disk.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Why a token opens nothing, as the log says it. Who presents it is not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unknown,
    OtherSecret,
    Revoked,
    Expired,
}

/// Tells the log of refusals, a line a second at most.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    last: Option<Instant>,
    left_out: u64,
}

impl Refusals {
    fn log(&self, peer: Peer, presented: Option<&Presented>, token: Option<&Token>, why: &str) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if line.last.is_some_and(|last| last.elapsed() < BETWEEN_LINES) {
            line.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut line.left_out);
        line.last = Some(Instant::now());
        drop(line);
        let id = presented.map(|presented| tracing::field::display(presented.id()));
        let name = token.map(|token| token.name.as_str());
        tracing::warn!(source = %peer.0, token = id, name, why, left_out, "a request to the API was refused");
    }
}

/// The token of a request, if it opens `scope`.
pub(crate) async fn authenticate(
    state: &dyn StateStore,
    refusals: &Refusals,
    peer: Peer,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<(Presented, Token), Problem> {
    let Some(presented) = presented(headers) else {
        refusals.log(peer, None, None, "no token");
        return Err(Problem::unauthorized(
            "this needs a token: send the header `Authorization: Bearer dgt_...`; `dropgate token create` makes one",
        ));
    };
    let token = state.token(presented.id()).await.map_err(|error| {
        tracing::warn!(%error, "a token could not be looked up");
        Problem::unavailable(
            "the state store does not answer, so the token can't be checked: try again in a moment",
        )
    })?;
    if let Err(why) = check(&presented, token.as_ref()) {
        refusals.log(peer, Some(&presented), token.as_ref(), &format!("{why:?}"));
    } else if let Some(token) = token {
        if token.scopes.contains(&scope) {
            return Ok((presented, token));
        }
        refusals.log(peer, Some(&presented), Some(&token), "another scope");
        return Err(Problem::forbidden(format!("this token does not have the scope {scope}")));
    }
    Err(Problem::unauthorized("this token is not known, or it expired or was revoked"))
}

/// Whether a token that opened something does so still. A store that does not answer is no yes.
pub(crate) async fn still_opens(state: &dyn StateStore, presented: &Presented) -> bool {
    let found = state.token(presented.id()).await;
    found.is_ok_and(|token| check(presented, token.as_ref()).is_ok())
}

fn presented(headers: &HeaderMap) -> Option<Presented> {
    let (scheme, text) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Presented::parse(text.trim()))?
}

fn check(presented: &Presented, token: Option<&Token>) -> Result<(), Refusal> {
    match token {
        None => Err(Refusal::Unknown),
        Some(token) if !presented.is(token) => Err(Refusal::OtherSecret),
        Some(token) if token.is_live(Timestamp::now()) => Ok(()),
        Some(token) if token.revoked_at.is_some() => Err(Refusal::Revoked),
        Some(_) => Err(Refusal::Expired),
    }
}
