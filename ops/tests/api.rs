//! The bounds of the API, and what it says while the store is down, on a real store over a real socket.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use bytes::Bytes;
use dropgate_backends::{
    Backends, BackendsConfig, credentials::token::Presented, state::conformance::samples,
};
use dropgate_ops::Probe;
use dropgate_schemas::{
    change::{Change, Durability, Subject},
    time::Timestamp,
    token::{Scope, Token},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    backends: Backends,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::open(&BackendsConfig::default(), dir.path()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let probe = Probe { backends: backends.clone(), roles: &["ops"], draining: stop.clone() };
        let routes = dropgate_ops::all_routes(probe);
        let task = tokio::spawn(dropgate_ops::serve(listener, routes, stop.clone()));
        Self { address, backends, stop, task, _dir: dir }
    }

    /// A token that reads events, until `expires_at`.
    async fn token(&self, expires_at: Option<Timestamp>) -> String {
        let made = Presented::random();
        let token = Token {
            id: made.id(),
            secret_sha256: made.digest(),
            partner: None,
            scopes: [Scope::EventsRead].into(),
            expires_at,
            ..samples::token("erp")
        };
        let change = Change {
            subject: Subject::Token(token),
            audit: vec![],
            outbox: vec![],
            durability: Durability::Visible,
        };
        self.backends.state.apply(change).await.unwrap();
        made.expose()
    }

    async fn ask(&self, path: &str, token: &str) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::get(path).header("host", "x").header("authorization", format!("Bearer {token}"));
        sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    }

    async fn json(&self, path: &str, token: &str) -> (StatusCode, usize, serde_json::Value) {
        let response = self.ask(path, token).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, body.len(), serde_json::from_slice(&body).unwrap())
    }

    async fn finish(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.backends.close().await;
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_the_next_one_goes_on() {
    let server = Server::start().await;
    let token = server.token(None).await;
    // About 2 KiB each.
    let path = ["x".repeat(240), "y".repeat(240), "z".repeat(240), "w".repeat(240)].join("/");
    let upload = samples::upload("acme", &format!("/upload/{path}"), 1);
    let events = (0..700).map(|_| samples::event(&upload)).collect();
    server.backends.state.log_events(events).await.unwrap();
    let (mut seen, mut next, mut pages) = (0, 0, 0);
    loop {
        let (status, bytes, page) =
            server.json(&format!("/api/v1/events?limit=1000&after={next}"), &token).await;
        assert_eq!(status, StatusCode::OK);
        assert!(bytes < (1 << 20) + 8_192, "a page of {bytes} bytes");
        for logged in page["events"].as_array().unwrap() {
            seen += 1;
            assert_eq!(logged["position"], seen);
        }
        if page["next"] == next {
            break;
        }
        next = page["next"].as_u64().unwrap();
        pages += 1;
    }
    assert_eq!((seen, next), (700, 700));
    assert!(pages >= 2, "{pages} pages");
    server.finish().await;
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_places_back() {
    let server = Server::start().await;
    let token = server.token(None).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        let response = server.ask("/api/v1/events/stream", &token).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        open.push(response);
    }
    let (status, _, problem) = server.json("/api/v1/events/stream", &token).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert_eq!(server.json("/api/v1/events", &token).await.0, StatusCode::OK, "pages go on");
    open.clear();
    let again = async {
        while server.ask("/api/v1/events/stream", &token).await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
    server.finish().await;
}

#[tokio::test]
async fn a_token_ends_at_its_time_and_a_store_that_is_down_is_told_as_such() {
    let server = Server::start().await;
    let now = Timestamp::now();
    let (past, live) = (
        server.token(Some(now.minus(Duration::from_secs(1)))).await,
        server.token(Some(now.plus(Duration::from_secs(3_600)))).await,
    );
    assert_eq!(server.json("/api/v1/events", &past).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(server.json("/api/v1/events", &live).await.0, StatusCode::OK);
    server.backends.close().await;
    let response = server.ask("/api/v1/events", &live).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["retry-after"], "2");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], 503);
    assert!(problem["detail"].as_str().unwrap().contains("state store does not answer"), "{problem}");
    server.finish().await;
}

#[tokio::test]
async fn the_health_listener_has_no_api() {
    let dir = tempfile::tempdir().unwrap();
    let backends = Backends::open(&BackendsConfig::default(), dir.path()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let probe = Probe { backends: backends.clone(), roles: &["worker"], draining: stop.clone() };
    let task = tokio::spawn(dropgate_ops::serve(listener, dropgate_ops::health_routes(probe), stop.clone()));
    let server = Server { address, backends, stop, task, _dir: dir };
    let token = server.token(None).await;
    assert_eq!(server.ask("/api/v1/events", &token).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.ask("/livez", &token).await.status(), StatusCode::OK);
    server.finish().await;
}
