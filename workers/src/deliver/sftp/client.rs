//! One SFTP session: requests go out in order, answers come back in any, each wait has a deadline.

use super::wire::{self, Attributes, Reply, Request, Status};
use bytes::{Buf as _, Bytes, BytesMut};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No answer is longer: data of the largest READ, and room for names.
const LONGEST: usize = (256 << 10) + 1024;
/// Requests that wait to be written; more make their callers wait.
const QUEUED: usize = 16;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientError {
    /// The server said so.
    #[error("{}", said(.0))]
    Status(Status),
    /// The session is over or of no use any more.
    #[error("{0}")]
    Lost(String),
}

fn said(status: &Status) -> String {
    let meaning = match status.code {
        wire::NO_SUCH_FILE => "no such file",
        wire::PERMISSION_DENIED => "permission denied",
        4 => "failure",
        5 => "bad message",
        wire::OP_UNSUPPORTED => "operation unsupported",
        11 => "file already exists",
        12 => "write protected",
        14 => "no space",
        15 => "quota exceeded",
        _ => "an error",
    };
    // What a server says is shown to people, so it is kept short and plain.
    let message: String = status.message.chars().filter(|c| !c.is_control()).take(200).collect();
    if message.is_empty() {
        format!("the server answered {} ({meaning}) without a message", status.code)
    } else {
        format!("the server answered {} ({meaning}): {message}", status.code)
    }
}

impl ClientError {
    /// The status code, if the server answered.
    pub(super) fn code(&self) -> Option<u32> {
        match self {
            Self::Status(status) => Some(status.code),
            Self::Lost(_) => None,
        }
    }
}

type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Reply>>>>;

struct Outgoing {
    head: Bytes,
    payload: Bytes,
}

/// A session.
pub(super) struct Client {
    requests: mpsc::Sender<Outgoing>,
    waiting: Waiting,
    next: AtomicU32,
    deadline: Duration,
    extensions: HashMap<String, Bytes>,
    closed: CancellationToken,
    _ends: DropGuard,
}

/// A request on its way.
pub(super) struct Pending(oneshot::Receiver<Reply>);

/// How much goes into one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) read: usize,
    pub(super) write: usize,
}

impl Client {
    /// Begins a session on a channel whose `sftp` subsystem runs.
    pub(super) async fn begin(channel: Channel<Msg>, deadline: Duration) -> Result<Self, ClientError> {
        let (mut incoming, outgoing) = channel.split();
        let lost = |why: &str| ClientError::Lost(why.to_owned());
        outgoing.data_bytes(wire::init()).await.map_err(|e| lost(&e.to_string()))?;
        let mut buffer = BytesMut::new();
        let packet = tokio::time::timeout(deadline, packet(&mut incoming, &mut buffer)).await;
        let packet = packet.map_err(|_| lost("the SFTP server does not begin"))?;
        let packet = packet.ok_or_else(|| lost("the SFTP server ended at once"))?;
        let (version, extensions) = wire::version(packet).map_err(|e| lost(&e.to_string()))?;
        if version < 3 {
            return Err(ClientError::Lost(format!("the server speaks SFTP version {version}; 3 is needed")));
        }
        let (requests, queued) = mpsc::channel(QUEUED);
        let waiting = Waiting::default();
        let closed = CancellationToken::new();
        tokio::spawn(read(incoming, buffer, Arc::clone(&waiting), closed.clone()));
        tokio::spawn(write(outgoing, queued, closed.clone()));
        Ok(Self {
            requests,
            waiting,
            next: AtomicU32::new(1),
            deadline,
            extensions,
            _ends: closed.clone().drop_guard(),
            closed,
        })
    }

    /// Whether the session is over.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Whether the server offers an extension.
    pub(super) fn offers(&self, extension: &str) -> bool {
        self.extensions.contains_key(extension)
    }

    /// Sends a request and lets the caller go on; waits only if too many wait to be written.
    pub(super) async fn send(
        &self,
        kind: u8,
        payload: Bytes,
        build: impl FnOnce(Request) -> Request,
    ) -> Result<Pending, ClientError> {
        let id = self.next.fetch_add(1, Relaxed);
        let head = build(Request::new(kind, id)).framed(payload.len());
        let (tell, told) = oneshot::channel();
        self.waiting().insert(id, tell);
        let sent = tokio::time::timeout(self.deadline, self.requests.send(Outgoing { head, payload })).await;
        match sent {
            Ok(Ok(())) if !self.is_closed() => Ok(Pending(told)),
            Ok(_) => {
                self.waiting().remove(&id);
                Err(ClientError::Lost("the connection was lost".to_owned()))
            }
            Err(_) => {
                self.closed.cancel();
                Err(self.late("take a request"))
            }
        }
    }

    /// Waits for the answer.
    pub(super) async fn wait(&self, pending: Pending) -> Result<Reply, ClientError> {
        match tokio::time::timeout(self.deadline, pending.0).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(ClientError::Lost("the connection was lost".to_owned())),
            Err(_) => {
                // Who can tell what state it is in: nobody may use it any more.
                self.closed.cancel();
                Err(self.late("answer"))
            }
        }
    }

    /// As [`Self::wait`], for requests that are answered by a status.
    pub(super) async fn wait_ok(&self, pending: Pending) -> Result<(), ClientError> {
        match self.wait(pending).await? {
            Reply::Status(status) if status.code == wire::OK => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn ask(&self, kind: u8, build: impl FnOnce(Request) -> Request) -> Result<Reply, ClientError> {
        let pending = self.send(kind, Bytes::new(), build).await?;
        self.wait(pending).await
    }

    async fn tell(&self, kind: u8, build: impl FnOnce(Request) -> Request) -> Result<(), ClientError> {
        let pending = self.send(kind, Bytes::new(), build).await?;
        self.wait_ok(pending).await
    }

    /// How much goes into one request: what the server says, or what every server takes.
    pub(super) async fn limits(&self) -> Limits {
        let mut limits = Limits { read: 32 << 10, write: 32 << 10 };
        if self.offers("limits@openssh.com")
            && let Ok(Reply::Extended(data)) =
                self.ask(wire::EXTENDED, |r| r.bytes(b"limits@openssh.com")).await
        {
            let mut data = wire::Cursor(data);
            let (_, read, write) = (data.u64(), data.u64(), data.u64());
            let sane = |told: Result<u64, _>, else_: usize| {
                let told: usize = told.ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                if told == 0 { else_ } else { told.clamp(4 << 10, 255 << 10) }
            };
            limits = Limits { read: sane(read, limits.read), write: sane(write, limits.write) };
        }
        limits
    }

    pub(super) async fn open(&self, path: &str, flags: u32) -> Result<Bytes, ClientError> {
        match self.ask(wire::OPEN, |r| r.bytes(path.as_bytes()).u32(flags).mode(None)).await? {
            Reply::Handle(handle) => Ok(handle),
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn close(&self, handle: &[u8]) -> Result<(), ClientError> {
        self.tell(wire::CLOSE, |r| r.bytes(handle)).await
    }

    /// Sends one piece; [`Self::wait_ok`] for it.
    pub(super) async fn write(&self, handle: &[u8], at: u64, piece: Bytes) -> Result<Pending, ClientError> {
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.send(wire::WRITE, piece, |r| r.bytes(handle).u64(at).u32(length)).await
    }

    /// Asks for one piece; [`Self::wait_data`] for it.
    pub(super) async fn read(&self, handle: &[u8], at: u64, length: usize) -> Result<Pending, ClientError> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.send(wire::READ, Bytes::new(), |r| r.bytes(handle).u64(at).u32(length)).await
    }

    /// The bytes of a READ; none at the end of the file.
    pub(super) async fn wait_data(&self, pending: Pending) -> Result<Option<Bytes>, ClientError> {
        match self.wait(pending).await? {
            Reply::Data(data) if data.is_empty() => Ok(None),
            Reply::Data(data) => Ok(Some(data)),
            Reply::Status(status) if status.code == wire::EOF => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Makes the bytes of an open file durable there, if the server can. False: it can't.
    pub(super) async fn fsync(&self, handle: &[u8]) -> Result<bool, ClientError> {
        if !self.offers("fsync@openssh.com") {
            return Ok(false);
        }
        match self.tell(wire::EXTENDED, |r| r.bytes(b"fsync@openssh.com").bytes(handle)).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(wire::OP_UNSUPPORTED) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is there, symbolic links not followed; none if nothing is.
    pub(super) async fn lstat(&self, path: &str) -> Result<Option<Attributes>, ClientError> {
        self.attributes(wire::LSTAT, path).await
    }

    /// What is there, symbolic links followed; none if nothing is.
    pub(super) async fn stat(&self, path: &str) -> Result<Option<Attributes>, ClientError> {
        self.attributes(wire::STAT, path).await
    }

    async fn attributes(&self, kind: u8, path: &str) -> Result<Option<Attributes>, ClientError> {
        match self.ask(kind, |r| r.bytes(path.as_bytes())).await? {
            Reply::Attributes(attributes) => Ok(Some(attributes)),
            Reply::Status(status) if status.code == wire::NO_SUCH_FILE => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn set_mode(&self, path: &str, mode: u32) -> Result<(), ClientError> {
        self.tell(wire::SETSTAT, |r| r.bytes(path.as_bytes()).mode(Some(mode))).await
    }

    pub(super) async fn make_directory(&self, path: &str) -> Result<(), ClientError> {
        self.tell(wire::MKDIR, |r| r.bytes(path.as_bytes()).mode(None)).await
    }

    /// Removes a file. None there is fine.
    pub(super) async fn remove(&self, path: &str) -> Result<(), ClientError> {
        match self.tell(wire::REMOVE, |r| r.bytes(path.as_bytes())).await {
            Err(error) if error.code() == Some(wire::NO_SUCH_FILE) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), ClientError> {
        self.tell(wire::RENAME, |r| r.bytes(from.as_bytes()).bytes(to.as_bytes())).await
    }

    /// Renames over what is there.
    pub(super) async fn posix_rename(&self, from: &str, to: &str) -> Result<(), ClientError> {
        let name = b"posix-rename@openssh.com";
        self.tell(wire::EXTENDED, |r| r.bytes(name).bytes(from.as_bytes()).bytes(to.as_bytes())).await
    }

    /// The absolute form of a path.
    pub(super) async fn real_path(&self, path: &str) -> Result<String, ClientError> {
        match self.ask(wire::REALPATH, |r| r.bytes(path.as_bytes())).await? {
            Reply::Name(name) => Ok(name),
            other => Err(unexpected(other)),
        }
    }

    /// The SHA-256 of a file as the server computes it; none if it doesn't.
    pub(super) async fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>, ClientError> {
        if !self.extensions.keys().any(|name| name.starts_with("check-file")) {
            return Ok(None);
        }
        let build = |r: Request| {
            r.bytes(b"check-file-name").bytes(path.as_bytes()).bytes(b"sha256").u64(0).u64(0).u32(0)
        };
        match self.ask(wire::EXTENDED, build).await? {
            Reply::Extended(data) => Ok(wire_digest(data)),
            // Offered for other algorithms, or only for handles: then it is not offered to us.
            Reply::Status(_) => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self, what: &str) -> ClientError {
        ClientError::Lost(format!("the server did not {what} within {} s", self.deadline.as_secs()))
    }
}

/// The answer to check-file: the algorithm and the digest; some servers repeat the name of the extension first.
fn wire_digest(data: Bytes) -> Option<[u8; 32]> {
    let mut rest = wire::Cursor(data);
    let mut algorithm = rest.string().ok()?;
    if algorithm.starts_with(b"check-file") {
        algorithm = rest.string().ok()?;
    }
    if &algorithm[..] != b"sha256" {
        return None;
    }
    <[u8; 32]>::try_from(&rest.0[..]).ok()
}

fn unexpected(reply: Reply) -> ClientError {
    match reply {
        Reply::Status(status) => ClientError::Status(status),
        Reply::Handle(_) | Reply::Data(_) | Reply::Name(_) | Reply::Attributes(_) | Reply::Extended(_) => {
            ClientError::Lost("the server answered something that was not asked".to_owned())
        }
    }
}

/// Reads answers until the session ends; then nobody waits any more.
async fn read(
    mut incoming: ChannelReadHalf,
    mut buffer: BytesMut,
    waiting: Waiting,
    closed: CancellationToken,
) {
    while let Some(Some(packet)) = closed.run_until_cancelled(packet(&mut incoming, &mut buffer)).await {
        let Ok((id, reply)) = wire::reply(packet) else { break };
        let teller = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(teller) = teller {
            // Who asked may have given up.
            let _ = teller.send(reply);
        }
    }
    closed.cancel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The next packet of the channel; none at its end or when it is too long.
async fn packet(incoming: &mut ChannelReadHalf, buffer: &mut BytesMut) -> Option<Bytes> {
    loop {
        if let Some(length) = buffer.first_chunk().map(|length| u32::from_be_bytes(*length)) {
            let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST)?;
            if buffer.len() >= length + 4 {
                buffer.advance(4);
                return Some(buffer.split_to(length).freeze());
            }
        }
        match incoming.wait().await? {
            ChannelMsg::Data { data } => buffer.extend_from_slice(&data),
            ChannelMsg::Eof | ChannelMsg::Close => return None,
            // Messages about the channel and what the server program says on its standard error.
            _ => {}
        }
    }
}

/// Writes requests in the order of their sending.
async fn write(
    outgoing: ChannelWriteHalf<Msg>,
    mut queued: mpsc::Receiver<Outgoing>,
    closed: CancellationToken,
) {
    while let Some(Some(next)) = closed.run_until_cancelled(queued.recv()).await {
        let written = async {
            outgoing.data_bytes(next.head).await?;
            outgoing.data_bytes(next.payload).await
        };
        match closed.run_until_cancelled(written).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => break,
        }
    }
    closed.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), outgoing.close()).await;
}
