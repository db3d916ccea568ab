//! A raw-packet SFTP client: sends exactly the frames it is told, in the order it is told, without waiting for replies,
//! and reads them when told. The SSH transport below is russh's client; nothing of the product is used.

pub mod connection;
pub mod frame;
pub mod reply;
pub mod sequences;
pub mod valve;

pub use connection::{Connection, Credential, Login, PATIENCE, Transport};
pub use frame::{Attrs, Request};
pub use reply::{Body, Entry, Reply};
pub use sequences::Overwrite;
pub use valve::Valve;

use crate::harness::until::within;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use russh::client::Msg;
use std::{collections::VecDeque, time::Duration};
use tokio::sync::{mpsc, watch};

/// One SFTP channel.
pub struct Raw {
    write: russh::ChannelWriteHalf<Msg>,
    replies: mpsc::Receiver<Result<Reply>>,
    ended: watch::Receiver<()>,
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
        // russh waits for window for ever when the connection is gone.
        let sent = async {
            tokio::select! {
                sent = self.write.data_bytes(bytes) => Ok(sent?),
                _ = self.ended.changed() => bail!("the channel was closed"),
            }
        };
        within(PATIENCE, "sending", sent).await?
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
