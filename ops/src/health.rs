//! Whether the process lives, and whether it can do its work.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use dropgate_backends::{Backends, observe::Counter};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long a backend may take to answer before it counts as down.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// What health and metrics look at. Cheap to clone.
#[derive(Clone)]
pub struct Probe {
    /// The backends of this process.
    pub backends: Backends,
    /// The roles that run in this process: `gateway`, `worker`, `ops`.
    pub roles: &'static [&'static str],
    /// Cancelled as soon as the process takes no new work.
    pub draining: CancellationToken,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether new work should come here.
    pub ready: bool,
    /// Whether the process is shutting down.
    pub draining: bool,
    /// The roles in this process.
    pub roles: &'static [&'static str],
    /// `ok`, or what the backend said, by backend.
    pub backends: BTreeMap<&'static str, String>,
}

impl Probe {
    /// Asks every backend at the same time whether it answers, each with a deadline of [`DEADLINE`].
    pub async fn readiness(&self) -> Readiness {
        let b = &self.backends;
        let (blob, state, queue, events, credentials) = tokio::join!(
            answer(Counter::ErrorsBlob, b.blob.check()),
            answer(Counter::ErrorsState, b.state.check()),
            answer(Counter::ErrorsQueue, b.queue.check()),
            answer(Counter::ErrorsEvents, b.events.check()),
            answer(Counter::ErrorsCredentials, b.credentials.check()),
        );
        let backends = BTreeMap::from([
            ("blob", blob),
            ("state", state),
            ("queue", queue),
            ("events", events),
            ("credentials", credentials),
        ]);
        let draining = self.draining.is_cancelled();
        let needed = |name: &str| self.roles.iter().any(|role| needs(role).contains(&name));
        let ready = !draining && backends.iter().all(|(name, said)| said == "ok" || !needed(name));
        Readiness { ready, draining, roles: self.roles, backends }
    }
}

/// The backends that a role can't do its work without. A gateway accepts uploads while the broker is down.
fn needs(role: &str) -> &'static [&'static str] {
    match role {
        "gateway" => &["blob", "state", "credentials"],
        "worker" => &["blob", "state", "queue", "events"],
        _ => &["state"],
    }
}

async fn answer<E: fmt::Display>(errors: Counter, check: impl Future<Output = Result<(), E>>) -> String {
    let said = match tokio::time::timeout(DEADLINE, check).await {
        Ok(Ok(())) => return "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
    };
    errors.one();
    said
}

/// `GET /livez`: the process runs and its executor answers.
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 when every backend that the process's roles need answers and it is not draining, else 503. The body
/// says what each backend answered.
pub(crate) async fn readyz(State(probe): State<Probe>) -> impl IntoResponse {
    let readiness = probe.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}
