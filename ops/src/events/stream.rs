//! Events as they come: Server-Sent Events, each with its position as its id, so that a client that lost the connection goes on
//! where it was.

use super::{BATCH, Parameters, admit, text};
use crate::{
    api::Api,
    auth::{Peer, still_opens},
    problem::Problem,
};
use axum::{
    Extension,
    extract::{
        Query, State,
        rejection::{ExtensionRejection, QueryRejection},
    },
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use dropgate_backends::{credentials::token::Presented, observe::Counter, state::LoggedEvent};
use dropgate_schemas::account::PartnerName;
use futures::Stream;
use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;

/// How often it is looked whether the token still holds, and the longest wait for news.
const LOOK: Duration = Duration::from_millis(500);
/// Shortest time between two looks at the log while nothing is in it for this stream: changes of any kind wake it.
const GATHER: Duration = Duration::from_millis(50);
/// How long one stream lasts: less than a connection. Clients come again and go on.
const LIFETIME: Duration = Duration::from_secs(240);
/// Nothing to tell for so long: a comment, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One client that listens.
struct Listening {
    api: Api,
    presented: Presented,
    partner: Option<PartnerName>,
    position: u64,
    waiting: VecDeque<LoggedEvent>,
    ends: Instant,
    looked: Instant,
    _permit: OwnedSemaphorePermit,
}

/// `GET /api/v1/events/stream`.
pub(crate) async fn stream(
    State(api): State<Api>,
    peer: Result<Extension<Peer>, ExtensionRejection>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let admitted = admit(&api, peer, &headers, parameters).await?;
    if admitted.limit.is_some() {
        return Err(Problem::bad_request("limit is for pages: a stream has no end"));
    }
    // What the client has seen since counts more than where it once began.
    let position = match headers.get("last-event-id") {
        None => admitted.after.unwrap_or(0),
        Some(id) => id.to_str().ok().and_then(|id| id.trim().parse().ok()).ok_or_else(|| {
            Problem::bad_request(
                "Last-Event-ID is no position: send the id of the last event, or leave it out",
            )
        })?,
    };
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("there are as many streams as there may be: ask for pages, or try again later")
    })?;
    Counter::ApiAnswered.one();
    let now = Instant::now();
    let listening = Listening {
        api,
        presented: admitted.presented,
        partner: admitted.partner,
        position,
        waiting: VecDeque::new(),
        ends: now + LIFETIME,
        looked: now,
        _permit: permit,
    };
    let alive = KeepAlive::new().interval(HEARTBEAT);
    Ok(Sse::new(listening.events()).keep_alive(alive).into_response())
}

impl Listening {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, |mut this| async move { Some((Ok(this.next().await?), this)) })
    }

    /// The next event; none when the stream ends: it lasted long enough, the process stops, the token does not hold any more, or
    /// the store does not answer. The client comes again, and is told then.
    async fn next(&mut self) -> Option<Event> {
        let draining = self.api.probe.draining.clone();
        draining.run_until_cancelled(self.wait()).await?
    }

    async fn wait(&mut self) -> Option<Event> {
        let state = self.api.probe.backends.state.clone();
        loop {
            if Instant::now() >= self.ends {
                return None;
            }
            if self.looked.elapsed() >= LOOK {
                if !still_opens(state.as_ref(), &self.presented).await {
                    return None;
                }
                self.looked = Instant::now();
            }
            if let Some(logged) = self.waiting.pop_front() {
                self.position = logged.position;
                return Some(Event::default().id(logged.position.to_string()).data(text(&logged).ok()?));
            }
            let found = state.events_after(self.position, self.partner.as_ref(), BATCH).await;
            let found = found.inspect_err(|error| tracing::warn!(%error, "a stream of events ends")).ok()?;
            if found.is_empty() {
                state.changed(LOOK).await;
                tokio::time::sleep(GATHER).await;
            }
            self.waiting.extend(found);
        }
    }
}
