//! Accepts HTTP connections, a bounded number at a time.

use crate::{
    api,
    auth::Peer,
    health::{Probe, livez, readyz},
    metrics::metrics,
};
use axum::{Extension, Router, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may live: a scrape or a probe takes seconds, a stream of events ends by itself before.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long open requests may take to finish once the process stops.
const GRACE: Duration = Duration::from_secs(3);

/// `/livez`, `/readyz` and `/metrics`, which every role may serve. They ask for no credential.
pub fn health_routes(probe: Probe) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probe)
}

/// Those, and the API, behind tokens: what the ops role serves.
pub fn all_routes(probe: Probe) -> Router {
    health_routes(probe.clone()).merge(api::routes(probe))
}

/// Serves `routes` on `listener` until `stop` is cancelled, then lets open requests finish for a moment.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => match accepted {
                Some((Ok((stream, peer)), permit)) => (stream, peer, permit),
                Some((Err(error), _)) => {
                    // Out of file descriptors, or the peer was gone before we looked: go on when that may have passed.
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                None => break,
            },
        };
        let service = TowerToHyperService::new(routes.clone().layer(Extension(Peer(peer))));
        let stop = stop.clone();
        connections.spawn(async move {
            let _permit = permit;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let ended = tokio::time::timeout(LIFETIME, async {
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.as_mut().await
                    }
                }
            });
            if let Ok(Err(error)) = ended.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        });
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        connections.abort_all();
    }
}
