//! One SFTP session: who asks, what is open, what is in flight.

use super::{
    ProtocolEnd, ReplySink, Writing,
    frame::MAX_PACKET,
    handles::{Full, Handle, Handles},
    lanes::{Lane, Lanes, Ticket},
    reply::Reply,
    request::Body,
    requests::{Answer, Plan},
    status::Status,
};
use crate::{
    ingest::{Acceptance, Committer, OpenFile},
    journal::Journal,
    session::SessionFacts,
    vfs::{Refusal, Tree},
};
use dropgate_backends::observe::Counter;
use dropgate_schemas::audit::{Action, AuditEntry, AuditResult};
use futures::future::BoxFuture;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long the next request waits for a place among those in flight. They wait for storage, a delivery or a CLOSE, each
/// with a deadline of its own.
const PLACE_LIMIT: Duration = Duration::from_secs(30);
/// How long after an acceptance it is written down that the client got its answer; several share one write.
const ANSWER_DELAY: Duration = Duration::from_secs(1);

/// Bounds of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Open handles.
    pub handles: usize,
    /// Requests in flight besides WRITEs.
    pub requests: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { handles: 100, requests: 128 }
    }
}

/// What the requests of one channel share.
pub struct Session {
    pub(super) tree: Arc<Tree>,
    pub(super) committer: Arc<Committer>,
    pub(super) facts: Arc<SessionFacts>,
    pub(super) limits: SessionLimits,
    pub(super) reads: Reads,
    journal: Arc<Journal>,
    sink: Arc<dyn ReplySink>,
    handles: Mutex<Handles>,
    lanes: Mutex<Lanes>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    answers_pending: AtomicBool,
    /// Held while something is under way.
    busy: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// What a session read: summed up in one audit entry at its end.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) listings: AtomicU64,
    pub(super) stats: AtomicU64,
}

impl Session {
    /// A session for one channel.
    #[must_use]
    pub fn new(
        tree: Arc<Tree>,
        committer: Arc<Committer>,
        journal: Arc<Journal>,
        sink: Arc<dyn ReplySink>,
        limits: SessionLimits,
    ) -> Arc<Self> {
        let facts = Arc::clone(&tree.facts);
        Arc::new(Self {
            tree,
            committer,
            facts,
            limits,
            reads: Reads::default(),
            journal,
            sink,
            handles: Mutex::new(Handles::new(limits.handles)),
            lanes: Mutex::default(),
            places: Arc::new(Semaphore::new(limits.requests)),
            tasks: TaskTracker::new(),
            answers_pending: AtomicBool::new(false),
            busy: Mutex::default(),
        })
    }

    pub(super) fn send(&self, packet: &[u8]) -> Result<(), ProtocolEnd> {
        debug_assert!(packet.len() <= MAX_PACKET as usize);
        self.sink.push(packet).map_err(|e| ProtocolEnd(e.to_string()))
    }

    /// Answers a request: at once, or when its turn has come.
    pub(super) async fn dispatch(self: &Arc<Self>, id: u32, body: Body<'_>) -> Result<(), ProtocolEnd> {
        let request = body.name();
        match self.plan(body) {
            Plan::Now(answer) => self.answer(id, request, answer),
            Plan::Later { lanes, work } => self.spawn(id, request, lanes, work).await,
        }
    }

    fn answer(&self, id: u32, request: &'static str, answer: Answer) -> Result<(), ProtocolEnd> {
        let reply = answer.unwrap_or_else(|refused| Reply::Status(self.refuse(request, &refused)));
        self.send(&reply.encode(id))
    }

    /// Runs a request beside the others, in its place on its lanes, and answers it.
    async fn spawn(
        self: &Arc<Self>,
        id: u32,
        request: &'static str,
        lanes: Vec<Lane>,
        work: BoxFuture<'static, Answer>,
    ) -> Result<(), ProtocolEnd> {
        let place = tokio::time::timeout(PLACE_LIMIT, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(self.protocol_error("too many requests wait for an answer".to_owned()));
        };
        let mut ticket: Ticket = lock(&self.lanes).enter(lanes);
        let session = Arc::clone(self);
        self.tasks.spawn(async move {
            ticket.wait().await;
            // A sink that is closed ends the session by itself.
            let _ = session.answer(id, request, work.await);
            drop(ticket);
            drop(place);
            session.rest();
        });
        Ok(())
    }

    /// The status for a refusal, with its audit entry. Looking for what is not there is no refusal.
    pub(super) fn refuse(&self, request: &'static str, refused: &Refused) -> Status {
        let looking = matches!(request, "STAT" | "LSTAT" | "OPENDIR" | "statvfs" | "check-file-name");
        if looking && let Refusal::NoSuchFile(text) = &refused.why {
            return Status { code: super::status::Code::NoSuchFile, text: text.clone() };
        }
        Counter::RequestsRefused.one();
        let entry = AuditEntry {
            request: Some(request.to_owned()),
            subject: refused.subject.clone(),
            reason: Some(refused.why.to_string()),
            ..self.facts.entry(Action::RequestRefuse, AuditResult::Refused)
        };
        let reference = self.journal.refuse(entry);
        tracing::info!(account = %self.facts.account.name, request, subject = refused.subject, why = %refused.why, %reference, "refused");
        Status::refused(&refused.why, reference)
    }

    /// The stream makes no sense; the channel is closed.
    pub(super) fn protocol_error(&self, what: String) -> ProtocolEnd {
        let entry = AuditEntry {
            reason: Some(format!("protocol error: {what}")),
            ..self.facts.entry(Action::RequestRefuse, AuditResult::Failed)
        };
        let reference = self.journal.refuse(entry);
        tracing::warn!(account = %self.facts.account.name, session = %self.facts.session, what, %reference, "protocol error; the channel is closed");
        ProtocolEnd(what)
    }

    pub(super) fn file(&self, handle: &[u8]) -> Result<Arc<OpenFile>, Refusal> {
        match lock(&self.handles).get(handle) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            Some(Handle::Directory(_)) | None => Err(Refusal::BadHandle),
        }
    }

    pub(super) fn handle(&self, handle: &[u8]) -> Option<Handle> {
        lock(&self.handles).get(handle).cloned()
    }

    pub(super) fn take_handle(&self, handle: &[u8]) -> Option<Handle> {
        lock(&self.handles).remove(handle)
    }

    pub(super) fn add_handle(&self, handle: Handle) -> Result<Reply, Refusal> {
        match lock(&self.handles).add(handle) {
            Ok(name) => Ok(Reply::Handle(name)),
            Err(Full::Limit(limit)) => {
                Err(Refusal::failure(format!("{limit} files and directories are open: close some first")))
            }
            Err(Full::Directories(limit)) => {
                Err(Refusal::failure(format!("{limit} directories are being listed: close some first")))
            }
            Err(Full::Ended) => Err(Refusal::failure("the session is over")),
        }
    }

    pub(super) fn handles_full(&self) -> bool {
        lock(&self.handles).is_full()
    }

    /// The open file of this session at `path`, if there is one.
    pub(super) fn open_at(&self, path: &dropgate_schemas::path::VirtualPath) -> Option<Arc<OpenFile>> {
        lock(&self.handles).files().find(|f| f.is_open() && f.path() == path).cloned()
    }

    /// Passes a part of a WRITE's payload on.
    pub(super) async fn write(&self, writing: &mut Writing, data: &[u8]) {
        let Ok(file) = &writing.target else { return };
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        match writing.offset.checked_add(length) {
            None => writing.target = Err(Refusal::failure("the offset is beyond any file")),
            Some(end) => match file.write(writing.offset, data, &self.committer).await {
                Ok(()) => writing.offset = end,
                Err(refusal) => writing.target = Err(refusal),
            },
        }
    }

    /// Answers a WRITE whose payload is complete.
    pub(super) fn end_write(&self, writing: Writing) -> Result<(), ProtocolEnd> {
        let status = match writing.target {
            Ok(_) => {
                Counter::BytesReceived.add(u64::from(writing.length));
                Status::ok()
            }
            Err(why) => self.refuse("WRITE", &Refused { why, subject: None }),
        };
        self.send(&Reply::Status(status).encode(writing.id))
    }

    /// Rings for the jobs of an acceptance, and writes down in a moment that it was answered. Returns the text of its OK.
    pub(super) fn accepted(self: &Arc<Self>, acceptance: &Acceptance) -> String {
        self.committer.was_answered(acceptance.upload);
        self.committer.ring(&acceptance.jobs);
        if !self.answers_pending.swap(true, Ordering::Relaxed) {
            let session = Arc::clone(self);
            // Not among the tasks that the end of the session waits for: the end writes them down itself.
            tokio::spawn(async move {
                tokio::time::sleep(ANSWER_DELAY).await;
                session.answers_pending.store(false, Ordering::Relaxed);
                if session.sink.unsent() == 0 {
                    session.committer.record_answers().await;
                }
            });
        }
        format!("accepted sha256={} receipt={}", acceptance.sha256, acceptance.receipt)
    }

    /// Whether something is under way that a draining server should let finish: a request, or an open file.
    fn is_busy(&self) -> bool {
        self.places.available_permits() < self.limits.requests || lock(&self.handles).files().next().is_some()
    }

    /// Lets go of the mark once nothing is under way any more.
    fn rest(&self) {
        if !self.is_busy() {
            *lock(&self.busy) = None;
        }
    }

    /// Keeps the SSH session marked as busy for as long as something is under way.
    pub fn keep_busy(&self, busy: impl FnOnce() -> Box<dyn std::any::Any + Send>) {
        let mut guard = lock(&self.busy);
        if !self.is_busy() {
            *guard = None;
        } else if guard.is_none() {
            *guard = Some(busy());
        }
    }

    /// The channel is over: what is in flight ends by itself, what is open is kept for a resume.
    pub(super) async fn end(&self, why: &str) {
        for file in lock(&self.handles).files() {
            file.mark_gone();
        }
        self.tasks.close();
        self.tasks.wait().await;
        let open = lock(&self.handles).end();
        for handle in open {
            if let Handle::File(file) = handle {
                file.interrupt(&self.committer, why).await;
            }
        }
        // Answers that never left were not received.
        if self.sink.unsent() == 0 {
            self.committer.record_answers().await;
        }
        let (listings, stats) =
            (self.reads.listings.load(Ordering::Relaxed), self.reads.stats.load(Ordering::Relaxed));
        if listings + stats > 0 {
            let mut entry = self.facts.entry(Action::SessionReads, AuditResult::Ok);
            entry.detail.insert("listings".into(), listings.to_string());
            entry.detail.insert("stats".into(), stats.to_string());
            self.journal.note(entry);
        }
    }
}

/// A request that is not carried out, and what it was about.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) why: Refusal,
    pub(super) subject: Option<String>,
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        Self { why, subject: None }
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
