//! The addresses below `/api/v1`, each behind a token.

use crate::{
    auth::Refusals,
    events::{page, stream},
    health::Probe,
    problem::Problem,
};
use axum::{
    Router,
    http::{StatusCode, Uri},
    routing::get,
};
use std::{fmt, sync::Arc};
use tokio::sync::Semaphore;

/// Streams of events at a time. They take a part of the connections only: probes find one.
const STREAMS: usize = 16;

/// What requests share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) probe: Probe,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) refusals: Arc<Refusals>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Everything that operators and consumers of events ask for.
pub(crate) fn routes(probe: Probe) -> Router {
    let api = Api { probe, streams: Arc::new(Semaphore::new(STREAMS)), refusals: Arc::default() };
    Router::new()
        .route("/api/v1/events", get(page).fallback(no_such_method))
        .route("/api/v1/events/stream", get(stream).fallback(no_such_method))
        .route("/api/{*other}", get(nothing_here).fallback(nothing_here))
        .with_state(api)
}

async fn nothing_here(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET".to_owned())
}
