//! What the tests of this crate share: real embedded backends, the relay, and uploads accepted as a gateway accepts them.

use crate::{
    config::{DestinationConfig, RouteConfig, Seconds, WorkersConfig, or_embedded},
    failpoint::Failpoints,
    worker::{Setup, Workers},
};
use bytes::Bytes;
use dropgate_backends::{
    AuditQuery, Backends, BackendsConfig, Identity, Relay, Role, UploadQuery,
    instance::{Liveness, heartbeat},
};
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxEntry, OutboxMessage, Subject},
    digest::Sha256,
    event::{Event, EventBody, Received},
    id::{BlobId, OutboxId, ReceiptId, SessionId, UploadId},
    job::Work,
    path::VirtualPath,
    time::Timestamp,
    upload::{BlobRef, ClientInfo, Grade, Upload, UploadState},
};
use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory with open backends and a running relay.
pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) backends: Backends,
    pub(crate) failpoints: Failpoints,
    shutdown: CancellationToken,
    relay: Option<JoinHandle<()>>,
}

/// One worker process, as far as a test needs one.
pub(crate) struct Crew {
    workers: Workers,
    shutdown: CancellationToken,
    beating: JoinHandle<()>,
}

impl House {
    pub(crate) async fn new() -> Self {
        let house = Self::without_relay().await;
        Self { relay: Some(house.relay()), ..house }
    }

    pub(crate) async fn without_relay() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::open(&BackendsConfig::default(), &dir.path().join("data")).await.unwrap();
        let shutdown = CancellationToken::new();
        Self { dir, backends, failpoints: Failpoints::default(), shutdown, relay: None }
    }

    fn relay(&self) -> JoinHandle<()> {
        let identity = Identity::claim(&self.place("relay"), Role::Worker).unwrap();
        tokio::spawn(Relay::new(self.backends.clone(), &identity).run(self.shutdown.clone()))
    }

    fn place(&self, name: &str) -> PathBuf {
        let place = self.dir.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    /// Where the embedded destination delivers to.
    pub(crate) fn delivered(&self) -> PathBuf {
        self.dir.path().join("data/delivered")
    }

    pub(crate) fn setup(&self, destinations: Vec<DestinationConfig>, routes: Vec<RouteConfig>) -> Setup {
        let (destinations, routes) = or_embedded(destinations, routes).unwrap();
        let data_dir = self.dir.path().join("data");
        Setup { config: quick(), destinations, routes, data_dir, failpoints: self.failpoints.clone() }
    }

    /// Starts the worker of the embedded default.
    pub(crate) async fn work(&self) -> Crew {
        self.work_with(self.setup(Vec::new(), Vec::new())).await
    }

    pub(crate) async fn work_with(&self, setup: Setup) -> Crew {
        self.work_as("worker", setup).await
    }

    /// Starts a worker that is the same as the last one of that name.
    pub(crate) async fn work_as(&self, name: &str, setup: Setup) -> Crew {
        let identity = Arc::new(Identity::claim(&self.place(name), Role::Worker).unwrap());
        let peers = Arc::new(Liveness::new());
        let shutdown = CancellationToken::new();
        let state = self.backends.state.clone();
        let beating = tokio::spawn(heartbeat(state, identity.clone(), peers.clone(), shutdown.clone()));
        let workers = Workers::start(setup, self.backends.clone(), identity, peers, shutdown.clone()).await;
        Crew { workers: workers.unwrap(), shutdown, beating }
    }

    /// Accepts an upload of account `anna` of partner `acme`, as a gateway does.
    pub(crate) async fn accept(&self, path: &str, bytes: &[u8]) -> Upload {
        self.accept_with(path, bytes, |_| ()).await
    }

    pub(crate) async fn accept_with(
        &self,
        path: &str,
        bytes: &[u8],
        adjust: impl FnOnce(&mut Upload),
    ) -> Upload {
        let mut upload = record(path);
        let state = &self.backends.state;
        upload.version = state.highest_version(&upload.account, &upload.path).await.unwrap() + 1;
        let query = UploadQuery {
            account: Some(upload.account.clone()),
            path: Some(upload.path.clone()),
            limit: 50,
            ..UploadQuery::default()
        };
        let older = state.find(query).await.unwrap();
        let older = older.into_iter().max_by_key(|u| u.version).map(|u| u.upload_id);
        let mut inline = None;
        if bytes.len() <= 64 << 10 {
            upload.blob = Some(BlobRef::Inline);
            inline = Some(Bytes::copy_from_slice(bytes));
        } else {
            let blob = BlobId::new();
            let mut writer = self.backends.blob.begin(blob, 1).await.unwrap();
            for block in bytes.chunks(4 << 20) {
                writer.stage(Bytes::copy_from_slice(block)).await.unwrap();
            }
            writer.seal(bytes.len() as u64).await.unwrap();
            upload.blob = Some(BlobRef::Stored { blob });
        }
        upload.size = Some(bytes.len() as u64);
        upload.sha256 = Some(Sha256::of(bytes));
        upload.supersedes = older;
        adjust(&mut upload);
        let received = Received::from_upload(&upload).unwrap();
        let mut outbox = vec![
            OutboxEntry::job(upload.upload_id, Work::Route),
            OutboxEntry::event(Event::about(&upload, EventBody::UploadReceived(received))),
        ];
        outbox.extend(older.map(|older| OutboxEntry {
            id: OutboxId::new(),
            upload: Some(upload.upload_id),
            message: OutboxMessage::Supersede { older },
            not_before: None,
        }));
        self.write(upload, inline, Action::UploadAccept, outbox).await
    }

    /// Writes a record as it is.
    pub(crate) async fn write(
        &self,
        mut upload: Upload,
        inline: Option<Bytes>,
        action: Action,
        outbox: Vec<OutboxEntry>,
    ) -> Upload {
        let mut entry = AuditEntry::new(action, Actor::System { id: "test".into() }, AuditResult::Ok);
        entry.upload = Some(upload.upload_id);
        let subject = Subject::Upload { upload: Box::new(upload.clone()), inline };
        let change = Change { subject, audit: vec![entry], outbox, durability: Durability::Durable };
        upload.revision = self.backends.state.apply(change).await.unwrap();
        upload
    }

    pub(crate) async fn upload(&self, id: UploadId) -> Upload {
        self.backends.state.upload(id).await.unwrap().unwrap()
    }

    /// Waits until an upload is as wanted.
    pub(crate) async fn until(&self, id: UploadId, wanted: impl Fn(&Upload) -> bool) -> Upload {
        let looking = async {
            loop {
                let upload = self.upload(id).await;
                if wanted(&upload) {
                    return upload;
                }
                self.backends.state.changed(Duration::from_millis(100)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(upload) => upload,
            Err(_) => panic!("never as wanted: {:#?}", self.upload(id).await),
        }
    }

    pub(crate) async fn until_state(&self, id: UploadId, state: UploadState) -> Upload {
        self.until(id, |upload| upload.state == state).await
    }

    /// The audited acts of an upload, in order.
    pub(crate) async fn acts(&self, id: UploadId) -> Vec<String> {
        let query = AuditQuery { upload: Some(id), limit: 1000, ..AuditQuery::default() };
        let stored = self.backends.state.audit(query).await.unwrap();
        stored.iter().map(|s| s.entry().unwrap().action.name()).collect()
    }

    /// The types of an upload's events in the order of the log, once `last` is among them.
    pub(crate) async fn events(&self, id: UploadId, last: &str) -> Vec<String> {
        let looking = async {
            loop {
                let events = self.backends.state.events_after(0, None, 1000).await.unwrap();
                let types: Vec<String> = events
                    .iter()
                    .filter(|e| e.event.uploadid == id)
                    .map(|e| e.event.body.type_name().trim_start_matches("dropgate.").to_owned())
                    .collect();
                if types.iter().any(|t| t.starts_with(last)) {
                    return types;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(looking).await
    }

    pub(crate) async fn close(mut self) {
        self.shutdown.cancel();
        if let Some(relay) = self.relay.take() {
            within(relay).await.unwrap();
        }
        self.backends.close().await;
    }
}

impl Crew {
    /// Ends as SIGTERM would.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        within(self.workers.drained()).await;
        // Aborted, if it was hushed.
        let _ = within(self.beating).await;
    }

    /// Its heartbeat stands still; whatever it does goes on.
    pub(crate) fn hush(&self) {
        self.beating.abort();
    }

    /// Ends as kill -9 would.
    pub(crate) async fn crash(self) {
        self.beating.abort();
        let _ = self.beating.await;
        within(self.workers.crash()).await;
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A config that does in milliseconds what takes seconds otherwise.
pub(crate) fn quick() -> WorkersConfig {
    let mut config = WorkersConfig::default();
    config.retry.base_seconds = millis(20);
    config.retry.longest_seconds = millis(100);
    config.retry.budget_seconds = Seconds::from(20);
    config.breaker.pause_seconds = millis(50);
    config.breaker.longest_seconds = millis(100);
    config.drain_seconds = Seconds::from(5);
    config.sweep.every_seconds = millis(100);
    config.sweep.unclaimed_seconds = millis(500);
    config
}

pub(crate) fn millis(millis: u64) -> Seconds {
    Seconds::from(Duration::from_millis(millis))
}

/// A complete record of account `anna` of partner `acme`, but for its bytes.
pub(crate) fn record(path: &str) -> Upload {
    let path: VirtualPath = path.parse().unwrap();
    let now = Timestamp::now();
    Upload {
        upload_id: UploadId::new(),
        account: "anna".parse().unwrap(),
        partner: "acme".parse().unwrap(),
        opened_as: path.clone(),
        path,
        version: 1,
        state: UploadState::Committed,
        revision: 0,
        epoch: 1,
        owner: None,
        client: ClientInfo {
            session: SessionId::new(),
            source: "127.0.0.1:1".into(),
            software: "test".into(),
            credential: "password".into(),
        },
        opened_at: now,
        updated_at: now,
        received_at: Some(now),
        settled_at: None,
        deleted_at: None,
        attributes: dropgate_schemas::upload::Attributes::default(),
        declared_size: None,
        staged: None,
        blob: None,
        size: None,
        sha256: None,
        content_type: None,
        evidence: Some(Grade::CloseOnly),
        receipt_id: Some(ReceiptId::new()),
        answered: true,
        reason: None,
        supersede_intent: None,
        supersedes: None,
        superseded_by: None,
        retry_of: None,
        generation: 0,
        deliveries: Vec::new(),
    }
}

/// All files below a directory, by path, temporary ones included.
pub(crate) fn files(root: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}
