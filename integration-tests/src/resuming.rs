//! Clients that upload slowly, lose their server in the middle, and go on: OpenSSH, lftp (`put` and `mirror`) and curl as they
//! are, WinSCP and FileZilla by their recorded requests.

use crate::{
    checker::Ledger,
    harness::{Gate, Medium, Scratch, clients::Desk, openssh::OpenSsh, payload, until::until},
    matrix::clients::{Curl, Lftp},
    raw::{Attrs, Connection, Login, Raw, Request, Transport, frame},
};
use anyhow::{Context as _, Result, ensure};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Long enough that no client is through with it before progress was saved, which happens every 2 s.
const LENGTH: u64 = 20 << 20;
/// Bytes a second while the server is to be lost.
const SLOW: u64 = 2_500_000;
/// Until an interrupted upload can be continued: its gateway may have to be found dead first.
const AGAIN: Duration = Duration::from_secs(60);
const PIECE: usize = 32_000;

/// How a client uploads, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OpenSsh,
    Lftp,
    LftpMirror,
    Curl,
    WinScp,
    FileZilla,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::OpenSsh, Self::Lftp, Self::LftpMirror, Self::Curl, Self::WinScp, Self::FileZilla];

    const fn path(self) -> &'static str {
        match self {
            Self::OpenSsh => "/upload/by-openssh",
            Self::Lftp => "/upload/by-lftp",
            Self::LftpMirror => "/upload/mirrored/large",
            Self::Curl => "/upload/by-curl",
            Self::WinScp => "/upload/by-winscp",
            Self::FileZilla => "/upload/by-filezilla",
        }
    }

    /// The name while it is uploaded.
    fn part(self) -> String {
        let suffix = if self == Self::WinScp { ".filepart" } else { "" };
        format!("{}{suffix}", self.path())
    }
}

/// What all of them upload, and as whom.
struct Source {
    scratch: Scratch,
    file: PathBuf,
    data: Vec<u8>,
    account: String,
    key: PathBuf,
    login: Login,
}

/// Uploads under way, one of each client.
pub struct Uploads {
    source: Arc<Source>,
    lines: Vec<(Kind, usize)>,
    running: JoinSet<(Kind, Result<()>)>,
}

impl Uploads {
    /// Begins them at `server`, and comes back when some of each is durable.
    ///
    /// # Errors
    /// If one ends, or makes no progress.
    pub async fn begin(gate: &Gate, account: &str, server: SocketAddr, ledger: &Ledger) -> Result<Self> {
        let scratch = Scratch::new(Medium::Memory)?;
        std::fs::create_dir(scratch.join("mirrored"))?;
        let file = scratch.join("mirrored/large");
        let digest = payload::write_file(&file, 21, LENGTH)?;
        let source = Arc::new(Source {
            data: std::fs::read(&file)?,
            file,
            scratch,
            account: account.to_owned(),
            key: gate.key(account),
            login: gate.login(account),
        });
        let mut lines = Vec::new();
        let mut running = JoinSet::new();
        for kind in Kind::ALL {
            lines.push((kind, ledger.begin_digest(account, kind.path(), LENGTH, digest.clone())?));
            let source = Arc::clone(&source);
            running.spawn(async move { (kind, source.upload(kind, server).await) });
        }
        let mut uploads = Self { source, lines, running };
        let (_connection, mut raw) = uploads.source.session(server).await?;
        for kind in Kind::ALL {
            let path = kind.part();
            let begun = std::time::Instant::now();
            while durable(&mut raw, &path).await? == 0 {
                if let Some(ended) = uploads.running.try_join_next() {
                    anyhow::bail!("it ended before it was interrupted: {ended:?}");
                }
                ensure!(begun.elapsed() < AGAIN, "{path}: nothing is durable after {AGAIN:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(uploads)
    }

    /// Once the clients have lost their server: each goes on at `server`, and its whole file is accepted.
    ///
    /// # Errors
    /// If one was told that all is well, can't go on, or begins anew.
    pub async fn resume(mut self, server: SocketAddr, ledger: &Ledger) -> Result<()> {
        while let Some(ended) = self.running.join_next().await {
            let (kind, ended) = ended?;
            ensure!(ended.is_err(), "{kind:?} was told that its upload is complete");
        }
        let (_connection, mut raw) = self.source.session(server).await?;
        for (kind, _) in &self.lines {
            let kept = durable(&mut raw, &kind.part()).await?;
            ensure!(kept > 0 && kept < LENGTH, "{kind:?}: {kept} bytes were kept of {LENGTH}");
        }
        let mut going_on = JoinSet::new();
        for (kind, line) in self.lines {
            let source = Arc::clone(&self.source);
            going_on.spawn(async move {
                let again = || async { source.go_on(kind, server).await.map(Some) };
                until(AGAIN, &format!("{kind:?} to go on"), again).await.map(|()| line)
            });
        }
        while let Some(done) = going_on.join_next().await {
            ledger.acknowledge(done??)?;
        }
        Ok(())
    }
}

/// What STAT tells of an unfinished upload; 0 before there is one.
async fn durable(raw: &mut Raw, path: &str) -> Result<u64> {
    let reply = raw.call(Request::Stat { path: path.as_bytes() }).await?;
    Ok(reply.attrs().map_or(0, |attrs| attrs.size.unwrap_or(0)))
}

impl Source {
    async fn session(&self, server: SocketAddr) -> Result<(Connection, Raw)> {
        let connection = Connection::open(server, &self.login, &Transport::default()).await?;
        let mut raw = connection.sftp().await?;
        raw.init(3).await?;
        Ok((connection, raw))
    }

    async fn lftp(&self, server: SocketAddr, commands: &str) -> Result<()> {
        let desk = Desk::at(server, &self.account, &self.key)?;
        Lftp::new(&desk).run(commands).await?.good().map(|_| ())
    }

    async fn curl(&self, server: SocketAddr, options: &[&str], path: &str) -> Result<()> {
        let desk = Desk::at(server, &self.account, &self.key)?;
        let curl = Curl::new(&desk);
        curl.run(&[options, &[&curl.url(path)]].concat()).await?.good().map(|_| ())
    }

    async fn upload(&self, kind: Kind, server: SocketAddr) -> Result<()> {
        let (file, path) = (self.file.display().to_string(), kind.path());
        let limit = format!("set net:limit-rate {SLOW}\nset net:max-retries 1\n");
        match kind {
            Kind::OpenSsh => {
                let mut client = OpenSsh::with_key(server, &self.account, &self.key)?;
                // In Kbit/s.
                client.more = vec![format!("-l{}", SLOW * 8 / 1000)];
                client.sftp(&format!("put {file} {path}\n")).await?;
            }
            Kind::Lftp => {
                self.lftp(server, &format!("{limit}put {file} -o {path}\n")).await?;
            }
            Kind::LftpMirror => {
                let from = self.scratch.join("mirrored").display().to_string();
                self.lftp(server, &format!("{limit}mirror -R {from} /upload/mirrored\n")).await?;
            }
            Kind::Curl => {
                let rate = SLOW.to_string();
                self.curl(server, &["--limit-rate", &rate, "-T", &file], path).await?;
            }
            Kind::WinScp | Kind::FileZilla => {
                let (_connection, mut raw) = self.session(server).await?;
                let attrs = if kind == Kind::WinScp { Attrs::sized(LENGTH) } else { Attrs::none() };
                let flags = frame::WRITE | frame::CREAT | frame::TRUNC;
                let handle = raw.open(&kind.part(), flags, attrs).await?;
                let half = self.data.get(..self.data.len() / 2).context("half of it")?;
                let ids = raw.write_all(&handle, 0, half, PIECE).await?;
                raw.all_ok(&ids).await?;
                // Until the server is lost.
                raw.closed_by_server().await?;
                anyhow::bail!("the server is gone");
            }
        }
        Ok(())
    }

    async fn go_on(&self, kind: Kind, server: SocketAddr) -> Result<()> {
        let (file, path) = (self.file.display().to_string(), kind.path());
        match kind {
            Kind::OpenSsh => {
                let client = OpenSsh::with_key(server, &self.account, &self.key)?;
                client.sftp(&format!("reput {file} {path}\n")).await?;
            }
            Kind::Lftp => {
                self.lftp(server, &format!("reput {file} -o {path}\n")).await?;
            }
            Kind::LftpMirror => {
                let from = self.scratch.join("mirrored").display().to_string();
                self.lftp(server, &format!("mirror -R -c {from} /upload/mirrored\n")).await?;
            }
            Kind::Curl => {
                self.curl(server, &["-C", "-", "-T", &file], path).await?;
            }
            Kind::WinScp | Kind::FileZilla => {
                let (_connection, mut raw) = self.session(server).await?;
                let part = kind.part();
                let (handle, from) = if kind == Kind::WinScp {
                    let lstat = raw.call(Request::Lstat { path: part.as_bytes() }).await?.attrs()?;
                    let flags = frame::WRITE | frame::CREAT;
                    (raw.open(&part, flags, Attrs::sized(LENGTH)).await?, lstat.size)
                } else {
                    let handle = raw.open(&part, frame::WRITE, Attrs::none()).await?;
                    let fstat = raw.call(Request::Fstat { handle: &handle }).await?.attrs()?;
                    (handle, fstat.size)
                };
                let from = from.context("a size")?;
                let rest = self.data.get(usize::try_from(from)?..).context("more than there is")?;
                let ids = raw.write_all(&handle, from, rest, PIECE).await?;
                raw.all_ok(&ids).await?;
                raw.call(Request::Close { handle: &handle }).await?.ok()?;
                if kind == Kind::WinScp {
                    raw.call(Request::Rename { from: part.as_bytes(), to: path.as_bytes() }).await?.ok()?;
                }
            }
        }
        Ok(())
    }
}
