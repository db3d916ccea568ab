//! A raw-packet SFTP client: sends exactly the frames it is told, in the order it is told, without waiting for replies,
//! and reads them when told. The SSH transport below is russh's client; nothing of the product is used.

pub mod frame;
pub mod reply;
pub mod sequences;
pub mod valve;

pub use frame::{Attrs, Request};
pub use reply::{Body, Entry, Reply};
pub use sequences::Overwrite;
pub use valve::Valve;

use crate::harness::until::within;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use russh::{
    ChannelMsg, Limits, Preferred, cipher,
    client::{self, AuthResult, Msg},
    keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyBase64 as _, load_secret_key},
};
use std::{borrow::Cow, collections::VecDeque, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc};

/// How long any single answer may take. Longer than every deadline of the product (RENAME waits up to 60 s).
pub const PATIENCE: Duration = Duration::from_secs(75);

/// Who logs in, with what.
#[derive(Clone, Debug)]
pub struct Login {
    /// Account name.
    pub user: String,
    /// Password or private key.
    pub with: Credential,
}

/// What is shown at login.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A password.
    Password(String),
    /// The file of an unencrypted OpenSSH private key.
    Key(PathBuf),
}

/// How the SSH connection is made.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Bytes sent or received before the client asks for new keys.
    pub rekey_after: usize,
    /// Ciphers, best first.
    pub ciphers: &'static [cipher::Name],
}

impl Default for Transport {
    fn default() -> Self {
        Self { rekey_after: 1 << 30, ciphers: &[cipher::AES_128_GCM, cipher::CHACHA20_POLY1305] }
    }
}

/// One SSH connection, logged in. Dropping it drops the socket.
pub struct Connection {
    session: client::Handle<Trusting>,
    /// Stops reading, half-closes or cuts the socket below.
    pub valve: Valve,
}

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;
    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// If the connection fails or the login is refused.
    pub async fn open(server: SocketAddr, login: &Login, transport: &Transport) -> Result<Self> {
        let mut connection = Self::greet(server, transport).await?;
        let result = connection.authenticate(login).await?;
        ensure!(result.success(), "login of {} was refused: {result:?}", login.user);
        Ok(connection)
    }

    /// Connects without logging in.
    ///
    /// # Errors
    /// If the connection or the key exchange fails.
    pub async fn greet(server: SocketAddr, transport: &Transport) -> Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let valve = Valve::default();
        let config = client::Config {
            limits: Limits::new(transport.rekey_after, transport.rekey_after, Duration::from_secs(3600)),
            preferred: Preferred { cipher: Cow::Borrowed(transport.ciphers), ..Preferred::default() },
            channel_buffer_size: 1000,
            ..client::Config::default()
        };
        let stream = valve::Valved::new(stream, valve.clone());
        let session =
            within(PATIENCE, "key exchange", client::connect_stream(Arc::new(config), stream, Trusting))
                .await??;
        Ok(Self { session, valve })
    }

    /// One attempt to log in.
    ///
    /// # Errors
    /// If the connection fails meanwhile; a refusal is no error.
    pub async fn authenticate(&mut self, login: &Login) -> Result<AuthResult> {
        let attempt = async {
            Ok::<_, anyhow::Error>(match &login.with {
                Credential::Password(password) => {
                    self.session.authenticate_password(&login.user, password).await?
                }
                Credential::Key(file) => {
                    let key =
                        load_secret_key(file, None).with_context(|| format!("reading {}", file.display()))?;
                    let key = PrivateKeyWithHashAlg::new(Arc::new(key), Some(HashAlg::Sha512));
                    ensure!(!key.public_key_bytes().is_empty(), "an empty key");
                    self.session.authenticate_publickey(&login.user, key).await?
                }
            })
        };
        within(PATIENCE, "login", attempt).await?
    }

    /// Asks for another session channel without a subsystem.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn channel(&self) -> Result<russh::Channel<Msg>> {
        Ok(within(PATIENCE, "channel open", self.session.channel_open_session()).await??)
    }

    /// Opens a channel with the `sftp` subsystem; INIT is not sent yet.
    ///
    /// # Errors
    /// If the server refuses the channel or the subsystem.
    pub async fn sftp(&self) -> Result<Raw> {
        let channel = self.channel().await?;
        channel.request_subsystem(true, "sftp").await?;
        let (mut read, write) = channel.split();
        loop {
            match within(PATIENCE, "subsystem reply", read.wait()).await? {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) | None => bail!("the sftp subsystem was refused"),
                Some(_) => {}
            }
        }
        let (sender, replies) = mpsc::channel(1 << 16);
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => buffer.extend_from_slice(&data),
                    ChannelMsg::Close => break,
                    _ => continue,
                }
                let mut from = 0;
                while let Some(reply) = cut_frame(&buffer, &mut from) {
                    if sender.send(reply).await.is_err() {
                        return;
                    }
                }
                buffer.drain(..from);
            }
        });
        Ok(Raw { write, replies, stash: VecDeque::new(), next_id: 1 })
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Asks the session task for new keys now.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn rekey(&self) -> Result<()> {
        Ok(self.session.rekey_soon().await?)
    }
}

fn cut_frame(buffer: &[u8], from: &mut usize) -> Option<Result<Reply>> {
    let rest = buffer.get(*from..)?;
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
    let body = rest.get(4..4 + length)?;
    *from += 4 + length;
    Some(Reply::decode(body))
}

/// One SFTP channel.
pub struct Raw {
    write: russh::ChannelWriteHalf<Msg>,
    replies: mpsc::Receiver<Result<Reply>>,
    stash: VecDeque<Reply>,
    next_id: u32,
}

impl Raw {
    /// Sends INIT and reads VERSION: its number and its extension pairs.
    ///
    /// # Errors
    /// If anything else comes back.
    pub async fn init(&mut self, version: u32) -> Result<(u32, Vec<(String, String)>)> {
        self.bytes(Request::Init { version }.encode(0)).await?;
        match self.next().await?.body {
            Body::Version(version, extensions) => Ok((version, extensions)),
            other => bail!("expected VERSION, got {other:?}"),
        }
    }

    /// Sends a request and returns its id, without waiting for anything.
    ///
    /// # Errors
    /// If the channel is gone.
    pub async fn send(&mut self, request: Request<'_>) -> Result<u32> {
        let id = self.take_id();
        self.bytes(request.encode(id)).await?;
        Ok(id)
    }

    /// Sends several requests in one piece: what a client does that pipelines them.
    ///
    /// # Errors
    /// If the channel is gone.
    pub async fn send_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut bytes = Vec::new();
        for request in requests {
            let id = self.take_id();
            bytes.extend_from_slice(&request.encode(id));
            ids.push(id);
        }
        self.bytes(bytes).await?;
        Ok(ids)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the channel is gone.
    pub async fn bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(within(PATIENCE, "sending", self.write.data_bytes(bytes)).await??)
    }

    /// Tells the server that nothing more comes on this channel; replies still arrive.
    ///
    /// # Errors
    /// If the channel is gone.
    pub async fn eof(&mut self) -> Result<()> {
        Ok(self.write.eof().await?)
    }

    /// A fresh request id.
    pub fn take_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// The next reply, in the order of arrival.
    ///
    /// # Errors
    /// If none comes in time, it can't be decoded, or the channel ended.
    pub async fn next(&mut self) -> Result<Reply> {
        if let Some(reply) = self.stash.pop_front() {
            return Ok(reply);
        }
        self.arrival().await
    }

    /// The reply to one request; others stay for later.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn reply_to(&mut self, id: u32) -> Result<Reply> {
        if let Some(at) = self.stash.iter().position(|r| r.id == id) {
            return self.stash.remove(at).ok_or_else(|| anyhow!("lost a reply"));
        }
        loop {
            let reply =
                self.arrival().await.with_context(|| format!("waiting for the reply to request {id}"))?;
            if reply.id == id {
                return Ok(reply);
            }
            self.stash.push_back(reply);
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::next`].
    pub async fn call(&mut self, request: Request<'_>) -> Result<Reply> {
        let id = self.send(request).await?;
        self.reply_to(id).await
    }

    async fn arrival(&mut self) -> Result<Reply> {
        match within(PATIENCE, "a reply", self.replies.recv()).await? {
            Some(reply) => reply,
            None => bail!("the channel was closed"),
        }
    }

    /// A reply if one is there or comes within `wait`.
    ///
    /// # Errors
    /// If it can't be decoded, or the channel ended.
    pub async fn reply_within(&mut self, wait: Duration) -> Result<Option<Reply>> {
        if let Some(reply) = self.stash.pop_front() {
            return Ok(Some(reply));
        }
        match tokio::time::timeout(wait, self.replies.recv()).await {
            Err(_) => Ok(None),
            Ok(Some(reply)) => reply.map(Some),
            Ok(None) => bail!("the channel was closed"),
        }
    }

    /// Waits until the server has closed the channel; returns the replies that still came.
    ///
    /// # Errors
    /// If it stays open, or a reply can't be decoded.
    pub async fn closed_by_server(&mut self) -> Result<Vec<Reply>> {
        let mut last: Vec<Reply> = self.stash.drain(..).collect();
        let drain = async {
            while let Some(reply) = self.replies.recv().await {
                last.push(reply?);
            }
            Ok::<_, anyhow::Error>(())
        };
        within(PATIENCE, "the server to close the channel", drain).await??;
        Ok(last)
    }

    /// OPEN, and the handle.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn open(&mut self, path: &str, flags: u32, attrs: Attrs) -> Result<Vec<u8>> {
        let reply = self.call(Request::Open { path: path.as_bytes(), flags, attrs }).await?;
        reply.handle().with_context(|| format!("OPEN {path}"))
    }

    /// WRITEs `data` from `offset` on in pieces, pipelined; returns the ids.
    ///
    /// # Errors
    /// If the channel is gone.
    pub async fn write_all(
        &mut self,
        handle: &[u8],
        offset: u64,
        data: &[u8],
        piece: usize,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut at = offset;
        for chunk in data.chunks(piece) {
            ids.push(self.send(Request::Write { handle, offset: at, data: chunk }).await?);
            at += chunk.len() as u64;
        }
        Ok(ids)
    }

    /// Expects OK for each id; returns the text of the last.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn all_ok(&mut self, ids: &[u32]) -> Result<String> {
        let mut last = String::new();
        for id in ids {
            self.reply_to(*id).await?.ok().with_context(|| format!("request {id}"))?.clone_into(&mut last);
        }
        Ok(last)
    }

    /// OPEN W|C|T, WRITEs, CLOSE as OpenSSH does; returns the text of CLOSE.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn put(&mut self, path: &str, data: &[u8]) -> Result<String> {
        let handle = self.open(path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none()).await?;
        let ids = self.write_all(&handle, 0, data, 32 * 1024).await?;
        self.all_ok(&ids).await.with_context(|| format!("WRITE {path}"))?;
        let reply = self.call(Request::Close { handle: &handle }).await?;
        Ok(reply.ok().with_context(|| format!("CLOSE {path}"))?.to_owned())
    }

    /// All entries of a directory, `.` and `..` included.
    ///
    /// # Errors
    /// If it can't be listed.
    pub async fn list(&mut self, path: &str) -> Result<Vec<Entry>> {
        let handle = self.call(Request::Opendir { path: path.as_bytes() }).await?.handle()?;
        let mut entries = Vec::new();
        loop {
            let reply = self.call(Request::Readdir { handle: &handle }).await?;
            match &reply.body {
                Body::Status(reply::EOF, _) => break,
                _ => {
                    let page = reply.names()?;
                    ensure!(!page.is_empty() && page.len() <= 100, "a page of {} names", page.len());
                    entries.extend_from_slice(page);
                }
            }
        }
        self.call(Request::Close { handle: &handle }).await?.ok()?;
        Ok(entries)
    }

    /// Names in a directory, without `.` and `..`, sorted.
    ///
    /// # Errors
    /// If it can't be listed.
    pub async fn names(&mut self, path: &str) -> Result<Vec<String>> {
        let entries = self.list(path).await?;
        let mut names: Vec<_> = entries.iter().map(Entry::text).filter(|n| n != "." && n != "..").collect();
        names.sort();
        Ok(names)
    }
}
