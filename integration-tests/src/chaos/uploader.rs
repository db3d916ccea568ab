//! One client that uploads without rest, in the ways of several programs, and keeps its ledger.

use super::Shared;
use crate::{
    harness::{payload, until::until},
    raw::{Attrs, Connection, Login, Overwrite, Raw, Request, Transport, frame, reply},
};
use anyhow::{Result, bail};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

/// So many names are used over and over, so that versions pile up on some.
const NAMES: usize = 12;

/// How long a client waits before it tries again what was refused.
const AFTER_REFUSAL: Duration = Duration::from_millis(250);

pub(super) struct Uploader {
    shared: Arc<Shared>,
    login: Login,
    number: usize,
    seed: u64,
    dice: Xoshiro256PlusPlus,
}

/// How an upload that was begun ended for the client.
enum End {
    Acknowledged,
    Refused(String),
}

impl Uploader {
    pub(super) fn new(shared: Arc<Shared>, login: Login, number: usize, seed: u64) -> Self {
        Self { shared, login, number, seed, dice: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// Uploads until told to stop. Connections that break are made again.
    pub(super) async fn run(mut self) -> Result<()> {
        while !self.stopped() {
            let Some(server) = self.server().await? else { return Ok(()) };
            let Ok(connection) = Connection::open(server, &self.login, &Transport::default()).await else {
                continue;
            };
            let Ok(mut raw) = connection.sftp().await else { continue };
            if raw.init(3).await.is_err() {
                continue;
            }
            while !self.stopped() {
                let number = self.shared.attempts.fetch_add(1, Ordering::SeqCst) as u64;
                let name = self.dice.random_range(0..NAMES);
                let path = format!("/upload/u{}-{name}.dat", self.number);
                let length = self.length();
                let data = payload::bytes(self.seed.wrapping_add(number << 20), length);
                let line = self.shared.ledger.begin(&self.login.user, &path, &data)?;
                match self.upload(&mut raw, &path, &data).await {
                    Ok(End::Acknowledged) => self.shared.ledger.acknowledge(line)?,
                    Ok(End::Refused(text)) => {
                        self.note(&text);
                        // As every client does, or one that is refused at once would do nothing but ask.
                        tokio::time::sleep(AFTER_REFUSAL).await;
                    }
                    // Killed in the middle: nothing was promised.
                    Err(_) => break,
                }
            }
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn note(&self, text: &str) {
        // The reference differs every time.
        let kind = text.split(" [ref").next().unwrap_or(text).to_owned();
        *self.shared.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    async fn server(&self) -> Result<Option<SocketAddr>> {
        until(Duration::from_secs(90), "the server to be there again", || async {
            let servers = &self.shared.servers;
            let server = servers.get(self.number % servers.len()).and_then(|server| *server.borrow());
            Ok(if self.stopped() { Some(None) } else { server.map(Some) })
        })
        .await
    }

    /// Mostly small ones, which ride inside the record; some of one block; some of several.
    fn length(&mut self) -> usize {
        match self.dice.random_range(0..10) {
            0..=5 => self.dice.random_range(0..64 * 1024),
            6..=7 => self.dice.random_range(64 * 1024..1 << 20),
            _ => self.dice.random_range(1 << 20..9 << 20),
        }
    }

    async fn upload(&mut self, raw: &mut Raw, path: &str, data: &[u8]) -> Result<End> {
        let flags = frame::WRITE | frame::CREAT | frame::TRUNC;
        match self.dice.random_range(0..4) {
            // OpenSSH
            0 => self.stream(raw, path, flags, Attrs::none(), data).await,
            // WinSCP, small
            1 => self.stream(raw, path, flags, Attrs::sized(data.len() as u64), data).await,
            // WinSCP, large
            2 => {
                let part = format!("{path}.filepart");
                let attrs = Attrs::sized(data.len() as u64);
                match self.stream(raw, &part, flags, attrs, data).await? {
                    End::Refused(text) => Ok(End::Refused(text)),
                    End::Acknowledged => self.rename(raw, &part, path, Overwrite::RemoveThenRename).await,
                }
            }
            // rclone
            _ => {
                let part = format!("{path}.{:08x}.partial", self.number);
                match self.stream(raw, &part, flags, Attrs::none(), data).await? {
                    End::Refused(text) => Ok(End::Refused(text)),
                    End::Acknowledged => self.rename(raw, &part, path, Overwrite::PosixRename).await,
                }
            }
        }
    }

    /// OPEN, WRITEs and CLOSE pipelined. An error is a broken connection; a refusal is none.
    async fn stream(&self, raw: &mut Raw, path: &str, flags: u32, attrs: Attrs, data: &[u8]) -> Result<End> {
        let opened = raw.call(Request::Open { path: path.as_bytes(), flags, attrs }).await?;
        let Ok(handle) = opened.handle() else { return refusal(&opened, "OPEN") };
        let mut ids = raw.write_all(&handle, 0, data, 32 * 1024).await?;
        ids.push(raw.send(Request::Close { handle: &handle }).await?);
        let mut end = End::Acknowledged;
        for id in ids {
            let answer = raw.reply_to(id).await?;
            if answer.ok().is_err() {
                end = refusal(&answer, "WRITE or CLOSE")?;
            }
        }
        Ok(end)
    }

    async fn rename(&self, raw: &mut Raw, from: &str, to: &str, overwrite: Overwrite) -> Result<End> {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let answer = match overwrite {
            Overwrite::PosixRename => raw.call(Request::PosixRename { from, to }).await?,
            Overwrite::No => raw.call(Request::Rename { from, to }).await?,
            Overwrite::RemoveThenRename => {
                let removed = raw.call(Request::Remove { path: to }).await?;
                if !matches!(removed.status()?.0, reply::OK | reply::NO_SUCH_FILE) {
                    return refusal(&removed, "REMOVE");
                }
                raw.call(Request::Rename { from, to }).await?
            }
        };
        if answer.ok().is_ok() { Ok(End::Acknowledged) } else { refusal(&answer, "RENAME") }
    }
}

fn refusal(answer: &crate::raw::Reply, what: &str) -> Result<End> {
    match answer.status()? {
        (reply::OK, _) => bail!("{what} was answered OK where something else was due"),
        (code, text) => Ok(End::Refused(format!("{what}: {code} {text}"))),
    }
}
