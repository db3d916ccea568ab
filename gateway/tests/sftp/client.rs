//! A client that speaks SFTP packets straight into an engine, without SSH, on the real embedded stores.

use crate::shaky::Shaky;
use bytes::Bytes;
use dropgate_backends::{
    Backends, StateStore, UploadQuery,
    config::BackendsConfig,
    instance::{Identity, Liveness, Role},
    relay::Ringer,
};
use dropgate_gateway::{
    ingest::{Budget, Committer, GatewayBudget, Ingest, LiveUploads, UploadOptions},
    journal::Journal,
    session::SessionFacts,
    sftp::{
        Engine, ProtocolEnd, ReplySink, SinkClosed,
        attrs::Attrs,
        session::{Session, SessionLimits},
    },
    vfs::Tree,
};
use dropgate_schemas::{
    account::{Account, OnDuplicate, Quota},
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{OutboxKind, OutboxMessage},
    id::{InstanceId, SessionId, UploadId},
    job::Work,
    time::Timestamp,
    upload::{Grade, Upload, UploadState},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) const WRITE: u32 = 0x02;
pub(crate) const APPEND: u32 = 0x04;
pub(crate) const CREAT: u32 = 0x08;
pub(crate) const TRUNC: u32 = 0x10;
pub(crate) const EXCL: u32 = 0x20;

/// A gateway without a listener.
pub(crate) struct Gate {
    pub(crate) backends: Backends,
    pub(crate) ingest: Ingest,
    pub(crate) account: Account,
    identity: Identity,
    pub(crate) dir: tempfile::TempDir,
}

impl Gate {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Account)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::open(&BackendsConfig::default(), dir.path()).await.unwrap();
        let identity = Identity::claim(dir.path(), Role::Gateway).unwrap();
        let now = Timestamp::now();
        let mut account = Account {
            name: "acme".parse().unwrap(),
            partner: "acme-corp".parse().unwrap(),
            enabled: true,
            removed: false,
            revision: 0,
            revocation_epoch: 0,
            temp_patterns: vec![],
            on_duplicate: OnDuplicate::Deliver,
            quota: Quota::default(),
            minimum_grade: Grade::CloseOnly,
            created_at: now,
            updated_at: now,
        };
        change(&mut account);
        let ingest = Ingest {
            storage: Arc::default(),
            ringer: Ringer::start(&backends, CancellationToken::new()),
            draining: CancellationToken::new(),
            live: Arc::new(LiveUploads::default()),
            memory: GatewayBudget::new(64 << 20),
            options: Arc::new(UploadOptions::default()),
            detector: Arc::default(),
            liveness: Arc::new(Liveness::new()),
            backends: backends.clone(),
        };
        Self { backends, ingest, account, identity, dir }
    }

    /// Puts a state store that can be told to fail in front of the real one.
    pub(crate) fn shake(&mut self) -> Arc<Shaky> {
        let shaky = Shaky::new(Arc::clone(&self.backends.state));
        self.backends.state = Arc::clone(&shaky) as Arc<dyn StateStore>;
        self.ingest.backends = self.backends.clone();
        shaky
    }

    pub(crate) async fn client(&self) -> Client {
        let mut client = self.client_without_init();
        client.engine.feed(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.unwrap();
        let version = client.sink.next_packet().await;
        assert_eq!(version[0], 2);
        client
    }

    pub(crate) fn client_without_init(&self) -> Client {
        let facts = Arc::new(SessionFacts::new(
            SessionId::new(),
            self.account.clone(),
            "127.0.0.1:5".into(),
            "password".into(),
            self.identity.id(),
            self.identity.audit_node(),
            "SSH-2.0-test",
        ));
        let session = facts.session;
        let tree = Arc::new(Tree::new(Arc::clone(&self.backends.state), facts));
        let committer = Arc::new(Committer::new(&self.ingest, Arc::clone(&tree), Budget::new(24 << 20)));
        let sink = Arc::new(Sink::default());
        let journal = Journal::new(Arc::clone(&self.backends.state));
        let to: Arc<dyn ReplySink> = Arc::clone(&sink) as Arc<dyn ReplySink>;
        self.ingest.live.channel_began(session);
        let engine = Engine::new(Session::new(tree, committer, journal, to, SessionLimits::default()));
        Client { engine, sink, next: 1, early: HashMap::new(), live: Arc::clone(&self.ingest.live), session }
    }

    /// Under which identity the gateway receives uploads.
    pub(crate) fn instance(&self) -> (InstanceId, String) {
        (self.identity.id(), self.identity.audit_node())
    }

    /// All uploads of the account, newest first.
    pub(crate) async fn uploads(&self) -> Vec<Upload> {
        self.backends.state.find(UploadQuery { limit: 1000, ..UploadQuery::default() }).await.unwrap()
    }

    pub(crate) async fn upload_at(&self, path: &str, state: UploadState) -> Upload {
        let found: Vec<Upload> = self
            .uploads()
            .await
            .into_iter()
            .filter(|u| u.path.as_str() == path && u.state == state)
            .collect();
        assert_eq!(found.len(), 1, "{path} {state}: {:?}", self.states().await);
        found.into_iter().next().unwrap()
    }

    pub(crate) async fn states(&self) -> Vec<(String, u32, UploadState)> {
        self.uploads().await.into_iter().map(|u| (u.path.to_string(), u.version, u.state)).collect()
    }

    /// The bytes of a complete upload.
    pub(crate) async fn content(&self, upload: &Upload) -> Vec<u8> {
        use futures::TryStreamExt as _;
        match upload.blob.as_ref().unwrap() {
            dropgate_schemas::upload::BlobRef::Inline => {
                self.backends.state.inline(upload.upload_id).await.unwrap().unwrap().to_vec()
            }
            dropgate_schemas::upload::BlobRef::Stored { blob } => {
                let pieces: Vec<Bytes> =
                    self.backends.blob.open(*blob, 0).await.unwrap().try_collect().await.unwrap();
                pieces.concat()
            }
        }
    }

    /// How many jobs were put down to route an upload.
    pub(crate) async fn route_jobs(&self, upload: UploadId) -> usize {
        let jobs = self.backends.state.outbox_due(OutboxKind::Job, Timestamp::now(), 1000).await.unwrap();
        let route = OutboxMessage::Job { work: Work::Route };
        jobs.iter().filter(|entry| entry.upload == Some(upload) && entry.message == route).count()
    }

    /// Records a step of delivery, as a worker would.
    pub(crate) async fn settle(&self, upload: Upload, state: UploadState) -> Upload {
        self.record(Upload { state, settled_at: state.area().map(|_| Timestamp::now()), ..upload }).await
    }

    /// Writes a record as it is.
    pub(crate) async fn record(&self, mut settled: Upload) -> Upload {
        use dropgate_schemas::change::{Change, Durability, Subject};
        let subject = Subject::Upload { upload: Box::new(settled.clone()), inline: None };
        let entry =
            AuditEntry::new(Action::UploadProcess, Actor::System { id: "test".into() }, AuditResult::Ok);
        let change = Change { subject, audit: vec![entry], outbox: vec![], durability: Durability::Durable };
        settled.revision = self.backends.state.apply(change).await.unwrap();
        settled
    }
}

#[derive(Default)]
pub(crate) struct Sink {
    bytes: Mutex<Vec<u8>>,
    wake: Notify,
}

impl ReplySink for Sink {
    fn push(&self, reply: &[u8]) -> Result<(), SinkClosed> {
        self.bytes.lock().unwrap().extend_from_slice(reply);
        self.wake.notify_one();
        Ok(())
    }
    fn unsent(&self) -> usize {
        0
    }
}

impl Sink {
    fn take_packet(&self) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.lock().unwrap();
        let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        assert!(bytes.len() >= 4 + length, "replies are whole packets");
        let packet = bytes[4..4 + length].to_vec();
        bytes.drain(..4 + length);
        Some(packet)
    }

    async fn next_packet(&self) -> Vec<u8> {
        loop {
            if let Some(packet) = self.take_packet() {
                return packet;
            }
            tokio::time::timeout(Duration::from_secs(30), self.wake.notified())
                .await
                .expect("a reply within 30 s");
        }
    }
}

/// A reply, decoded as far as the tests look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Got {
    Status(u32, String),
    Handle(Vec<u8>),
    Names(Vec<(String, String)>),
    Attrs { size: u64, mode: u32, mtime: u32 },
    Extended(Vec<u8>),
}

impl Got {
    pub(crate) fn handle(self) -> Vec<u8> {
        match self {
            Self::Handle(handle) => handle,
            other => panic!("no handle: {other:?}"),
        }
    }
    pub(crate) fn ok(self) -> String {
        match self {
            Self::Status(0, text) => text,
            other => panic!("not OK: {other:?}"),
        }
    }
    pub(crate) fn refused(self, code: u32) -> String {
        match self {
            Self::Status(got, text) if got == code => text,
            other => panic!("not status {code}: {other:?}"),
        }
    }
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Attrs { size, .. } => size,
            other => panic!("no attributes: {other:?}"),
        }
    }
}

pub(crate) struct Client {
    pub(crate) engine: Engine,
    sink: Arc<Sink>,
    next: u32,
    early: HashMap<u32, Got>,
    live: Arc<LiveUploads>,
    session: SessionId,
}

pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

impl Client {
    /// Sends a request without waiting and returns its id.
    pub(crate) async fn send(&mut self, kind: u8, fields: &[u8]) -> u32 {
        let id = self.next;
        self.next += 1;
        let mut packet = ((fields.len() + 5) as u32).to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend(id.to_be_bytes());
        packet.extend(fields);
        self.engine.feed(&packet).await.unwrap();
        id
    }

    pub(crate) async fn feed(&mut self, bytes: &[u8]) -> Result<(), ProtocolEnd> {
        self.engine.feed(bytes).await
    }

    /// The reply to a request.
    pub(crate) async fn reply(&mut self, id: u32) -> Got {
        loop {
            if let Some(got) = self.early.remove(&id) {
                return got;
            }
            let (id, got) = decode(&self.sink.next_packet().await);
            self.early.insert(id, got);
        }
    }

    /// Whether the reply to a request has not come yet.
    pub(crate) fn waits_for(&mut self, id: u32) -> bool {
        while let Some(packet) = self.sink.take_packet() {
            let (id, got) = decode(&packet);
            self.early.insert(id, got);
        }
        !self.early.contains_key(&id)
    }

    pub(crate) async fn ask(&mut self, kind: u8, fields: &[u8]) -> Got {
        let id = self.send(kind, fields).await;
        self.reply(id).await
    }

    pub(crate) async fn send_open(&mut self, path: &str, flags: u32, size: Option<u64>) -> u32 {
        let mut fields = string(path.as_bytes());
        fields.extend(flags.to_be_bytes());
        Attrs { size, permissions: Some(0o100_644), ..Attrs::default() }.encode(&mut fields);
        self.send(3, &fields).await
    }
    pub(crate) async fn open(&mut self, path: &str, flags: u32) -> Got {
        let id = self.send_open(path, flags, None).await;
        self.reply(id).await
    }
    pub(crate) async fn send_write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> u32 {
        let mut fields = string(handle);
        fields.extend(offset.to_be_bytes());
        fields.extend(string(data));
        self.send(6, &fields).await
    }
    pub(crate) async fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Got {
        let id = self.send_write(handle, offset, data).await;
        self.reply(id).await
    }
    pub(crate) async fn close(&mut self, handle: &[u8]) -> Got {
        self.ask(4, &string(handle)).await
    }
    pub(crate) async fn stat(&mut self, path: &str) -> Got {
        self.ask(17, &string(path.as_bytes())).await
    }
    pub(crate) async fn remove(&mut self, path: &str) -> Got {
        self.ask(13, &string(path.as_bytes())).await
    }
    pub(crate) async fn mkdir(&mut self, path: &str) -> Got {
        self.ask(14, &[string(path.as_bytes()), vec![0; 4]].concat()).await
    }
    pub(crate) async fn rmdir(&mut self, path: &str) -> Got {
        self.ask(15, &string(path.as_bytes())).await
    }
    pub(crate) async fn rename(&mut self, from: &str, to: &str) -> Got {
        self.ask(18, &[string(from.as_bytes()), string(to.as_bytes())].concat()).await
    }
    pub(crate) async fn extended(&mut self, name: &str, fields: &[u8]) -> Got {
        self.ask(200, &[string(name.as_bytes()), fields.to_vec()].concat()).await
    }

    /// A whole upload; the answer to CLOSE.
    pub(crate) async fn put(&mut self, path: &str, content: &[u8]) -> Got {
        let handle = self.open(path, WRITE | CREAT | TRUNC).await.handle();
        for (i, piece) in content.chunks(32_000).enumerate() {
            self.write(&handle, i as u64 * 32_000, piece).await.ok();
        }
        self.close(&handle).await
    }

    /// Names in a directory, without the dots.
    pub(crate) async fn list(&mut self, path: &str) -> Vec<String> {
        self.long_list(path)
            .await
            .into_iter()
            .map(|(name, _)| name)
            .filter(|n| n != "." && n != "..")
            .collect()
    }
    pub(crate) async fn long_list(&mut self, path: &str) -> Vec<(String, String)> {
        let handle = self.ask(11, &string(path.as_bytes())).await.handle();
        let mut all = Vec::new();
        loop {
            match self.ask(12, &string(&handle)).await {
                Got::Names(names) => all.extend(names),
                Got::Status(1, _) => break,
                other => panic!("{other:?}"),
            }
        }
        self.close(&handle).await.ok();
        all
    }

    /// The connection is gone.
    pub(crate) async fn disconnect(mut self) {
        self.engine.end("the connection was lost").await;
        self.live.channel_ended(self.session);
    }
}

fn decode(packet: &[u8]) -> (u32, Got) {
    let u32_at = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    let text_at = |at: usize| {
        let n = u32_at(at) as usize;
        (String::from_utf8(packet[at + 4..at + 4 + n].to_vec()).unwrap(), at + 4 + n)
    };
    let id = u32_at(1);
    let attrs_end = |at: usize| {
        let flags = u32_at(at);
        at + 4
            + [(1, 8), (2, 8), (4, 4), (8, 8)]
                .iter()
                .filter(|(bit, _)| flags & bit != 0)
                .map(|(_, n)| n)
                .sum::<usize>()
    };
    let got = match packet[0] {
        101 => Got::Status(u32_at(5), text_at(9).0),
        102 => Got::Handle(packet[9..].to_vec()),
        104 => {
            let mut at = 9;
            let names = (0..u32_at(5))
                .map(|_| {
                    let (name, next) = text_at(at);
                    let (long, next) = text_at(next);
                    at = attrs_end(next);
                    (name, long)
                })
                .collect();
            assert_eq!(at, packet.len());
            Got::Names(names)
        }
        105 => {
            assert_eq!(u32_at(5), 0x0d, "SIZE, PERMISSIONS and ACMODTIME are always told");
            Got::Attrs {
                size: u64::from_be_bytes(packet[9..17].try_into().unwrap()),
                mode: u32_at(17),
                mtime: u32_at(25),
            }
        }
        201 => Got::Extended(packet[5..].to_vec()),
        other => panic!("packet type {other}"),
    };
    (id, got)
}
