//! WinSCP, FileZilla and Cyberduck: not run, but their requests sent as they send them.

use super::at_once;
use crate::{
    harness::Gate,
    matrix::{Answer, Client, Said, Step},
    raw::{Overwrite, Raw, Request},
};
use anyhow::{Context as _, Result};
use std::{path::Path, time::UNIX_EPOCH};

/// From this size on WinSCP uploads under a temp name.
const WINSCP_LARGE: usize = 100 * 1024;

/// Which program is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desktop {
    /// WinSCP.
    WinScp,
    /// FileZilla.
    FileZilla,
    /// Cyberduck.
    Cyberduck,
}

/// A program with windows, at an account of a gate. Each step is a session of its own.
pub struct Replayed<'a> {
    /// The gate.
    pub gate: &'a Gate,
    /// Who logs in.
    pub account: &'a str,
    /// The program.
    pub desktop: Desktop,
}

fn written(path: &Path) -> Result<u32> {
    let time = std::fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(u32::try_from(time.as_secs())?)
}

impl Replayed<'_> {
    async fn put(&self, raw: &mut Raw, local: &Path, remote: &str, times: bool) -> Result<()> {
        let data = std::fs::read(local)?;
        let written = written(local)?;
        match self.desktop {
            // It keeps times unless it is told not to.
            Desktop::WinScp if data.len() >= WINSCP_LARGE => {
                let there = raw.call(Request::Lstat { path: remote.as_bytes() }).await?.attrs().is_ok();
                let overwrite = if there { Overwrite::RemoveThenRename } else { Overwrite::No };
                raw.winscp_large_of(remote, &data, overwrite, written).await?;
            }
            Desktop::WinScp => {
                raw.winscp_small_of(remote, &data, written).await?;
            }
            Desktop::FileZilla => raw.filezilla_put(remote, &data, times.then_some(written)).await?,
            Desktop::Cyberduck => raw.cyberduck_put(remote, &data, times.then_some(written)).await?,
        }
        Ok(())
    }

    async fn put_tree(&self, raw: &mut Raw, local: &Path, remote: &str) -> Result<()> {
        match self.desktop {
            Desktop::FileZilla => raw.filezilla_mkdir(remote).await?,
            Desktop::WinScp | Desktop::Cyberduck => {
                let made = raw.call(Request::Mkdir { path: remote.as_bytes() }).await?;
                made.ok().with_context(|| format!("MKDIR {remote}"))?;
            }
        }
        for entry in std::fs::read_dir(local)? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?.to_string_lossy();
            let there = format!("{remote}/{name}");
            if path.is_dir() {
                Box::pin(self.put_tree(raw, &path, &there)).await?;
            } else {
                self.put(raw, &path, &there, false).await?;
            }
        }
        Ok(())
    }

    async fn resume(&self, raw: &mut Raw, local: &Path, remote: &str) -> Result<()> {
        let data = std::fs::read(local)?;
        match self.desktop {
            Desktop::WinScp => raw.winscp_resume(remote, &data, written(local)?).await.map(|_| ()),
            Desktop::FileZilla => raw.filezilla_resume(remote, &data).await,
            Desktop::Cyberduck => raw.cyberduck_resume(remote, &data).await,
        }
    }

    /// Takes a step in a fresh session; what is printed at its end.
    async fn session(&self, step: Step<'_>) -> Result<String> {
        let (_connection, mut raw) = self.gate.raw(self.account).await?;
        match step {
            Step::Put { local, remote } => self.put(&mut raw, local, remote, false).await?,
            Step::PutWithTimes { local, remote } => self.put(&mut raw, local, remote, true).await?,
            Step::PutRenamed { local, remote } if self.desktop == Desktop::WinScp => {
                self.put(&mut raw, local, remote, false).await?;
            }
            Step::PutRenamed { local, remote } => {
                let temp = format!("{remote}.filepart");
                self.put(&mut raw, local, &temp, false).await?;
                raw.rename_over(&temp, remote, Overwrite::No).await?;
            }
            Step::PutAndStat { local, remote } => {
                self.put(&mut raw, local, remote, false).await?;
                let about = raw.call(Request::Lstat { path: remote.as_bytes() }).await?.attrs()?;
                return Ok(format!("{about:?}"));
            }
            Step::Resume { local, remote } => self.resume(&mut raw, local, remote).await?,
            Step::PutTree { local, remote } => self.put_tree(&mut raw, local, remote).await?,
            Step::List { remote } => {
                let entries = raw.list(remote).await?;
                return Ok(entries.iter().map(|e| format!("{}\n", e.longname)).collect());
            }
            Step::Get { remote, .. } => {
                raw.open(remote, crate::raw::frame::READ, crate::raw::Attrs::none()).await?;
            }
            Step::Remove { remote } => {
                raw.call(Request::Remove { path: remote.as_bytes() }).await?.ok()?;
            }
            Step::PutAtOnce { .. } | Step::Sync { .. } => anyhow::bail!("not one session"),
        }
        Ok(String::new())
    }
}

impl Client for Replayed<'_> {
    fn name(&self) -> &'static str {
        match self.desktop {
            Desktop::WinScp => "WinSCP (replayed)",
            Desktop::FileZilla => "FileZilla (replayed)",
            Desktop::Cyberduck => "Cyberduck (replayed)",
        }
    }

    fn partial(&self, remote: &str) -> String {
        match self.desktop {
            Desktop::WinScp => format!("{remote}.filepart"),
            Desktop::FileZilla | Desktop::Cyberduck => remote.to_owned(),
        }
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        match step {
            Step::Sync { .. } if self.desktop == Desktop::FileZilla => Ok(Answer::Cannot("has no such mode")),
            Step::Sync { .. } => {
                Ok(Answer::Cannot("what it decides from listings and clocks can't be replayed"))
            }
            Step::PutAtOnce { files } => {
                let one = async |local: &Path, remote: &str| self.take(Step::Put { local, remote }).await;
                Box::pin(at_once(files.iter().map(|(l, r)| one(l, r)))).await
            }
            one => Ok(Answer::Ended(match self.session(one).await {
                Ok(text) => Said { ok: true, text },
                Err(refusal) => Said { ok: false, text: format!("{refusal:#}") },
            })),
        }
    }
}
