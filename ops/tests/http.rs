//! The three addresses that every role serves, asked over a real socket, on real stores.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use async_trait::async_trait;
use bytes::Bytes;
use dropgate_backends::{
    Backends, BackendsConfig, BlobError, BlobReader, BlobStore, BlobWriter, Claimed, JobQueue, QueueError,
    blob::Space, observe::Counter,
};
use dropgate_ops::Probe;
use dropgate_schemas::{id::BlobId, job::Job, upload::StagedBlob};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    draining: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(backends: Backends) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let probe = Probe { backends, roles: &["gateway"], draining: draining.clone() };
    let task = tokio::spawn(dropgate_ops::serve(listener, dropgate_ops::health_routes(probe), stop.clone()));
    Server { address, draining, stop, task }
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

async fn open(dir: &tempfile::TempDir) -> Backends {
    Backends::open(&BackendsConfig::default(), dir.path()).await.unwrap()
}

#[tokio::test]
async fn a_process_that_is_well_says_so_and_a_draining_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(&dir).await;
    let server = start(backends.clone()).await;
    assert_eq!(get(server.address, "/livez").await.0, StatusCode::OK);
    let (status, kind, body) = get(server.address, "/readyz").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/json"), "{body}");
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["ready"], true);
    for backend in ["blob", "state", "queue", "events", "credentials"] {
        assert_eq!(said["backends"][backend], "ok", "{body}");
    }
    assert_eq!(get(server.address, "/").await.0, StatusCode::NOT_FOUND);

    server.draining.cancel();
    let (status, _, body) = get(server.address, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert_eq!(get(server.address, "/livez").await.0, StatusCode::OK);

    server.stop.cancel();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    backends.close().await;
}

#[tokio::test]
async fn metrics_are_openmetrics_with_counters_buckets_and_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(&dir).await;
    let server = start(backends.clone()).await;
    Counter::UploadsHeld.add(3);
    dropgate_backends::observe::Timing::Acceptance.record(Duration::from_secs(60));
    let (status, kind, page) = get(server.address, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    for line in [
        "# TYPE dropgate_uploads counter",
        "dropgate_uploads_total{step=\"held\"} 3",
        "dropgate_backend_up{backend=\"state\"} 1",
        "dropgate_outbox_entries 0",
        "dropgate_queue_depth 0",
        "dropgate_acceptance_seconds_bucket{le=\"10.0\"} 0",
        "dropgate_acceptance_seconds_bucket{le=\"+Inf\"} 1",
        "dropgate_acceptance_seconds_count 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    assert!(page.ends_with("# EOF\n"), "{page}");
    let families: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), families.len(), "a family is printed twice: {families:?}");
    server.stop.cancel();
    server.task.await.unwrap();
    backends.close().await;
}

/// A blob store that hangs.
struct Hangs;

#[async_trait]
impl BlobStore for Hangs {
    fn block_size(&self) -> usize {
        1
    }
    async fn begin(&self, _: BlobId, _: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        std::future::pending().await
    }
    async fn resume(&self, _: &StagedBlob, _: u64, _: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        std::future::pending().await
    }
    async fn open(&self, _: BlobId, _: u64) -> Result<BlobReader, BlobError> {
        std::future::pending().await
    }
    async fn delete(&self, _: BlobId) -> Result<(), BlobError> {
        std::future::pending().await
    }
    async fn list(&self, _: Duration, _: Option<BlobId>, _: usize) -> Result<Vec<BlobId>, BlobError> {
        std::future::pending().await
    }
    async fn space(&self) -> Result<Option<Space>, BlobError> {
        std::future::pending().await
    }
    async fn check(&self) -> Result<(), BlobError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_named_within_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(&dir).await;
    let server = start(Backends { blob: Arc::new(Hangs), ..backends.clone() }).await;
    let begun = std::time::Instant::now();
    let (status, _, body) = get(server.address, "/readyz").await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["backends"]["blob"], "no answer within 2 s");
    assert_eq!(said["backends"]["state"], "ok");
    let (status, _, page) = get(server.address, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("dropgate_backend_up{backend=\"blob\"} 0"), "{page}");
    server.stop.cancel();
    server.task.await.unwrap();
    backends.close().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(&dir).await;
    let server = start(backends.clone()).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    server.stop.cancel();
    server.task.await.unwrap();
    backends.close().await;
}

/// A broker that is down.
struct Down;

#[async_trait]
impl JobQueue for Down {
    async fn publish(&self, _: &[Job]) -> Result<(), QueueError> {
        self.check().await
    }
    async fn take(&self, _: usize, _: Duration) -> Result<Vec<Claimed>, QueueError> {
        self.check().await.map(|()| Vec::new())
    }
    async fn ack(&self, _: &[u64]) -> Result<(), QueueError> {
        self.check().await
    }
    async fn release(&self, _: u64, _: Duration) -> Result<(), QueueError> {
        self.check().await
    }
    async fn depth(&self) -> Result<u64, QueueError> {
        self.check().await.map(|()| 0)
    }
    async fn check(&self) -> Result<(), QueueError> {
        Err(QueueError::Unavailable("connection refused".to_owned()))
    }
}

#[tokio::test]
async fn a_gateway_is_ready_without_the_broker_and_a_worker_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(&dir).await;
    let down = Backends { queue: Arc::new(Down), ..backends.clone() };
    for (roles, ready) in [(&["gateway"][..], true), (&["worker"], false), (&["gateway", "worker"], false)] {
        let probe = Probe { backends: down.clone(), roles, draining: CancellationToken::new() };
        let said = probe.readiness().await;
        assert_eq!(said.ready, ready, "{roles:?}");
        assert_ne!(said.backends["queue"], "ok");
    }
    backends.close().await;
}
