//! The event log over HTTP: pages of it by position, and a stream. A consumer that was away asks for what came `after` the last
//! position it knows.

mod stream;

pub(crate) use stream::stream;

use crate::{
    api::Api,
    auth::{Peer, authenticate},
    problem::Problem,
};
use axum::{
    Extension,
    extract::{
        Query, State,
        rejection::{ExtensionRejection, QueryRejection},
    },
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use dropgate_backends::{
    StateError, StateStore, credentials::token::Presented, observe::Counter, state::LoggedEvent,
};
use dropgate_schemas::{
    account::PartnerName,
    token::{Scope, Token},
};
use serde::Deserialize;
use std::{fmt::Write as _, time::Duration};

/// Events in a page, unless asked otherwise, and at most.
const USUAL: usize = 100;
const MOST: usize = 1_000;
/// Bytes after which a page is not made longer. One event is given out in any case.
const BYTES: usize = 1 << 20;
/// Events that are read from the store at a time.
const BATCH: usize = 50;
/// Longest time for a page.
const DEADLINE: Duration = Duration::from_secs(10);

/// The parameters of both requests.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    after: Option<u64>,
    limit: Option<usize>,
    partner: Option<PartnerName>,
}

/// What may be answered, to whom.
struct Admitted {
    presented: Presented,
    partner: Option<PartnerName>,
    after: Option<u64>,
    limit: Option<usize>,
}

/// First the token, then the parameters: who may read nothing learns nothing.
async fn admit(
    api: &Api,
    peer: Result<Extension<Peer>, ExtensionRejection>,
    headers: &HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Admitted, Problem> {
    let Ok(Extension(peer)) = peer else {
        return Err(Problem::unavailable("the address of the client is not known"));
    };
    let state = api.probe.backends.state.as_ref();
    let (presented, token) = authenticate(state, &api.refusals, peer, headers, Scope::EventsRead).await?;
    let Query(parameters) = parameters.map_err(|error| {
        Problem::bad_request(format!(
            "{}; the parameters are after (a position), limit (1 to {MOST}, of a page) and partner",
            error.body_text()
        ))
    })?;
    let partner = of_whom(&token, parameters.partner)?;
    Ok(Admitted { presented, partner, after: parameters.after, limit: parameters.limit })
}

/// Whose events may be shown: of those that were asked for, those the token is for.
fn of_whom(token: &Token, asked: Option<PartnerName>) -> Result<Option<PartnerName>, Problem> {
    match (&token.partner, asked) {
        (None, asked) => Ok(asked),
        (Some(bound), None) => Ok(Some(bound.clone())),
        (Some(bound), Some(asked)) if *bound == asked => Ok(Some(asked)),
        (Some(bound), Some(_)) => {
            Err(Problem::forbidden(format!("this token shows events of the partner {bound} only")))
        }
    }
}

/// `GET /api/v1/events`: a page of the log.
pub(crate) async fn page(
    State(api): State<Api>,
    peer: Result<Extension<Peer>, ExtensionRejection>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let admitted = admit(&api, peer, &headers, parameters).await?;
    let limit = admitted.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::bad_request(format!("limit is {limit}: use 1 to {MOST}")));
    }
    let state = api.probe.backends.state.as_ref();
    let reading = read(state, admitted.after.unwrap_or(0), admitted.partner.as_ref(), limit);
    let page = match tokio::time::timeout(DEADLINE, reading).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return Err(unreadable(&error)),
        Err(_) => return Err(unreadable(&StateError::Unavailable("a page took too long".to_owned()))),
    };
    Counter::ApiAnswered.one();
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], page)
        .into_response())
}

fn unreadable(error: &StateError) -> Problem {
    tracing::warn!(%error, "the event log could not be read");
    match error {
        StateError::Unavailable(_) => Problem::unavailable(
            "the state store does not answer: ask again, with the same position, in a moment",
        ),
        _ => Problem::unavailable("the event log can't be read: the log of this process says why"),
    }
}

/// The page as it is sent. Events are written as they are published.
async fn read(
    state: &dyn StateStore,
    after: u64,
    partner: Option<&PartnerName>,
    limit: usize,
) -> Result<String, StateError> {
    let mut body = String::from("{\"events\":[");
    let (mut count, mut next) = (0, after);
    'page: while count < limit {
        let wanted = BATCH.min(limit - count);
        let found = state.events_after(next, partner, wanted).await?;
        let end = found.len() < wanted;
        for logged in found {
            let event = text(&logged)?;
            if count > 0 && body.len() + event.len() > BYTES {
                break 'page;
            }
            let comma = if count > 0 { "," } else { "" };
            let _ = write!(body, "{comma}{{\"position\":{},\"event\":{event}}}", logged.position);
            (count, next) = (count + 1, logged.position);
        }
        if end {
            break;
        }
    }
    let _ = write!(body, "],\"next\":{next}}}");
    Ok(body)
}

fn text(logged: &LoggedEvent) -> Result<String, StateError> {
    serde_json::to_string(&logged.event)
        .map_err(|error| StateError::Corrupt(format!("event {}: {error}", logged.event.id)))
}
