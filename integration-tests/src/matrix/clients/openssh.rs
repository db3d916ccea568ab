//! OpenSSH's `sftp` and `scp`.

use super::{at_once, quoted};
use crate::{
    harness::{Gate, openssh::OpenSsh},
    matrix::{Answer, Client, Step, Words},
};
use anyhow::Result;
use std::path::Path;

/// `sftp` in batch mode.
pub struct Sftp(OpenSsh);

/// `scp`, which speaks SFTP since version 9.
pub struct Scp(OpenSsh);

impl Sftp {
    /// As an account of `gate`.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn new(gate: &Gate, account: &str) -> Result<Self> {
        Ok(Self(OpenSsh::new(gate, account)?))
    }
}

impl Scp {
    /// As an account of `gate`.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn new(gate: &Gate, account: &str) -> Result<Self> {
        Ok(Self(OpenSsh::new(gate, account)?))
    }
}

fn text(path: &Path) -> String {
    word(&path.display().to_string())
}

fn word(text: &str) -> String {
    quoted(text, &['"', '\\'], '\\')
}

impl Client for Sftp {
    fn name(&self) -> &'static str {
        "OpenSSH sftp"
    }

    fn words(&self) -> Words {
        Words::Own("ermission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let commands = match step {
            Step::Put { local, remote } => format!("put {} {}", text(local), word(remote)),
            Step::PutWithTimes { local, remote } => format!("put -p {} {}", text(local), word(remote)),
            Step::PutRenamed { local, remote } => {
                let temp = word(&format!("{remote}.filepart"));
                format!("put {} {temp}\nrename {temp} {}", text(local), word(remote))
            }
            Step::PutAndStat { local, remote } => {
                format!("put {} {}\nls -l {}", text(local), word(remote), word(remote))
            }
            Step::Resume { local, remote } => format!("reput {} {}", text(local), word(remote)),
            Step::PutTree { local, remote } => format!("put -R {} {}", text(local), word(remote)),
            Step::PutAtOnce { files } => {
                let one = async |local: &Path, remote: &str| self.take(Step::Put { local, remote }).await;
                return Box::pin(at_once(files.iter().map(|(l, r)| one(l, r)))).await;
            }
            Step::Sync { .. } => return Ok(Answer::Cannot("has no such mode")),
            Step::List { remote } => format!("ls -l {}", word(remote)),
            Step::Get { remote, local } => format!("get {} {}", word(remote), text(local)),
            Step::Remove { remote } => format!("rm {}", word(remote)),
        };
        Ok(self.0.try_sftp(&format!("{commands}\n")).await?.into())
    }
}

impl Client for Scp {
    fn name(&self) -> &'static str {
        "OpenSSH scp"
    }

    fn words(&self) -> Words {
        Words::Own("ermission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let outcome = match step {
            Step::Put { local, remote } => self.0.try_scp(&[], local, remote).await?,
            Step::PutWithTimes { local, remote } => self.0.try_scp(&["-p"], local, remote).await?,
            Step::PutTree { local, remote } => self.0.try_scp(&["-r"], local, remote).await?,
            Step::PutAtOnce { files } => {
                let one = async |local: &Path, remote: &str| self.take(Step::Put { local, remote }).await;
                return Box::pin(at_once(files.iter().map(|(l, r)| one(l, r)))).await;
            }
            Step::Get { remote, local } => self.0.try_scp_from(remote, local).await?,
            Step::PutRenamed { .. }
            | Step::PutAndStat { .. }
            | Step::Resume { .. }
            | Step::Sync { .. }
            | Step::List { .. }
            | Step::Remove { .. } => return Ok(Answer::Cannot("copies, and nothing else")),
        };
        Ok(outcome.into())
    }
}
