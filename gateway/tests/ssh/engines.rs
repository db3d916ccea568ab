//! Small engines: what the SSH side does with an engine that echoes, is slow, is stuck, or answers too much.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dropgate_gateway::ssh::{
    BusyGuard, ChannelEngine, EndReason, EngineClosed, EngineContext, EngineFactory, Lifecycle, Outbox,
    SessionInfo,
};
use tokio::sync::{Notify, Semaphore};

/// What the engines of a server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers what it gets.
    Echo,
    /// Waits in `feed` until the gate opens, as if for a store that is stuck.
    Gated,
    /// Answers each byte with this many.
    Amplify(usize),
    /// Gives up at the first byte.
    Refuse,
    /// Says busy until the gate opens, answers after that; takes the gate at the end, too.
    BusyUntilGate,
    /// The same, and busy again the moment it has answered, as with a client that sends one file after the other.
    BusyAgain,
    /// Answers enough SFTP for `sftp put`, each WRITE after waiting.
    SftpSink(Duration),
}

/// What the engines of a server saw.
pub(crate) struct Engines {
    pub(crate) behaviour: Behaviour,
    pub(crate) live: AtomicUsize,
    pub(crate) opened: AtomicUsize,
    pub(crate) fed: AtomicU64,
    pub(crate) feeding: AtomicBool,
    pub(crate) empty_feeds: AtomicUsize,
    pub(crate) ends: Mutex<Vec<EndReason>>,
    /// Broken promises of the SSH side; a panic on its tasks would go unseen.
    pub(crate) violations: Mutex<Vec<&'static str>>,
    pub(crate) sessions: Mutex<Vec<Arc<SessionInfo>>>,
    pub(crate) gate: Semaphore,
    pub(crate) changed: Notify,
}

impl Engines {
    pub(crate) fn new(behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self {
            behaviour,
            live: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            fed: AtomicU64::new(0),
            feeding: AtomicBool::new(false),
            empty_feeds: AtomicUsize::new(0),
            ends: Mutex::default(),
            violations: Mutex::default(),
            sessions: Mutex::default(),
            gate: Semaphore::new(0),
            changed: Notify::new(),
        })
    }

    fn violation(&self, what: &'static str) {
        self.violations.lock().unwrap().push(what);
    }
}

pub(crate) struct Factory(pub(crate) Arc<Engines>);

impl EngineFactory for Factory {
    fn open(&self, context: EngineContext) -> Box<dyn ChannelEngine> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        self.0.live.fetch_add(1, Ordering::SeqCst);
        self.0.sessions.lock().unwrap().push(Arc::clone(&context.session));
        let busy = matches!(self.0.behaviour, Behaviour::BusyUntilGate | Behaviour::BusyAgain)
            .then(|| context.lifecycle.busy());
        self.0.changed.notify_waiters();
        Box::new(Engine {
            shared: Arc::clone(&self.0),
            outbox: context.outbox,
            ended: false,
            busy,
            lifecycle: context.lifecycle,
            frames: Vec::new(),
        })
    }
}

struct Engine {
    shared: Arc<Engines>,
    outbox: Outbox,
    ended: bool,
    busy: Option<BusyGuard>,
    lifecycle: Lifecycle,
    frames: Vec<u8>,
}

#[async_trait]
impl ChannelEngine for Engine {
    async fn feed(&mut self, bytes: &[u8]) -> Result<(), EngineClosed> {
        if self.ended {
            self.shared.violation("fed after the end");
        }
        if bytes.is_empty() {
            self.shared.empty_feeds.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.fed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.shared.feeding.store(true, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
        let fed = match self.shared.behaviour {
            Behaviour::Echo => self.outbox.push(bytes).map_err(|_| EngineClosed),
            Behaviour::Gated => {
                self.shared.gate.acquire().await.unwrap().forget();
                self.outbox.push(bytes).map_err(|_| EngineClosed)
            }
            Behaviour::Amplify(factor) => {
                self.outbox.push(&vec![b'x'; bytes.len() * factor]).map_err(|_| EngineClosed)
            }
            Behaviour::Refuse => Err(EngineClosed),
            Behaviour::BusyUntilGate => {
                self.shared.gate.acquire().await.unwrap().forget();
                let answered = self.outbox.push(bytes).map_err(|_| EngineClosed);
                self.busy = None;
                answered
            }
            Behaviour::BusyAgain => {
                self.shared.gate.acquire().await.unwrap().forget();
                let answered = self.outbox.push(bytes).map_err(|_| EngineClosed);
                self.busy = None;
                self.busy = Some(self.lifecycle.busy());
                answered
            }
            Behaviour::SftpSink(pause) => self.sftp(bytes, pause).await,
        };
        self.shared.feeding.store(false, Ordering::SeqCst);
        fed
    }

    async fn end(&mut self, why: EndReason) {
        if std::mem::replace(&mut self.ended, true) {
            self.shared.violation("ended twice");
        }
        self.shared.ends.lock().unwrap().push(why);
        self.shared.changed.notify_waiters();
    }
}

impl Engine {
    /// INIT, REALPATH, STAT (always absent), OPEN, WRITE, FSETSTAT, CLOSE; anything else is unsupported.
    async fn sftp(&mut self, bytes: &[u8], pause: Duration) -> Result<(), EngineClosed> {
        self.frames.extend_from_slice(bytes);
        loop {
            let Some(length) = self.frames.first_chunk::<4>().map(|head| u32::from_be_bytes(*head) as usize)
            else {
                return Ok(());
            };
            if self.frames.len() < 4 + length {
                return Ok(());
            }
            let frame: Vec<u8> = self.frames.drain(..4 + length).skip(4).collect();
            let id = &frame[1..5];
            let status = |code: u8| {
                let mut reply = vec![101];
                reply.extend_from_slice(id);
                reply.extend([0, 0, 0, code]);
                reply.extend([0; 8]);
                reply
            };
            let reply = match frame[0] {
                1 => vec![2, 0, 0, 0, 3],
                3 => {
                    let mut handle = vec![102];
                    handle.extend_from_slice(id);
                    handle.extend([0, 0, 0, 1, b'h']);
                    handle
                }
                4 | 9 | 10 => status(0),
                6 => {
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    status(0)
                }
                7 | 17 => status(2),
                16 => {
                    let mut name = vec![104];
                    name.extend_from_slice(id);
                    name.extend([0, 0, 0, 1, 0, 0, 0, 1, b'/', 0, 0, 0, 1, b'/', 0, 0, 0, 0]);
                    name
                }
                _ => status(8),
            };
            let mut framed = u32::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(reply);
            self.outbox.push(&framed).map_err(|_| EngineClosed)?;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.live.fetch_sub(1, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
        if !self.ended {
            self.shared.violation("dropped without an end");
        }
    }
}
