//! PuTTY's `psftp` and `pscp`: the SSH of WinSCP and FileZilla.

use super::{at_once, quoted};
use crate::{
    harness::{clients::Desk, sshd::HostKeys},
    matrix::{Answer, Client, Step, Words},
};
use anyhow::{Context as _, Result};
use std::{path::Path, process::Command};

/// `psftp` with a batch file.
pub struct Psftp<'a> {
    desk: &'a Desk,
    host_key: String,
}

/// `pscp`, which speaks SFTP where it can.
pub struct Pscp<'a> {
    desk: &'a Desk,
    host_key: String,
}

/// What all programs of PuTTY are told about the server.
fn arguments(command: &mut Command, desk: &Desk, host_key: &str) {
    command.args(["-batch", "-noagent", "-hostkey", host_key, "-P", &desk.server.port().to_string()]);
    command.arg("-l").arg(&desk.account).arg("-pwfile").arg(desk.password());
}

/// The fingerprint of the Ed25519 host key.
fn host_key() -> Result<String> {
    let public = format!("{}.pub", HostKeys::shared()?.ed25519.display());
    let text = std::fs::read_to_string(&public)?;
    Ok(text.split(' ').nth(1).with_context(|| format!("no key in {public}"))?.trim().to_owned())
}

impl<'a> Psftp<'a> {
    /// At `desk`.
    ///
    /// # Errors
    /// If the host key can't be read.
    pub fn new(desk: &'a Desk) -> Result<Self> {
        Ok(Self { desk, host_key: host_key()? })
    }

    async fn batch(&self, commands: &str) -> Result<Answer> {
        let outcome = self
            .desk
            .run_with("psftp", &format!("{commands}\n"), |command| {
                arguments(command, self.desk, &self.host_key);
                command.args(["-b", "/dev/stdin"]).arg(self.desk.server.ip().to_string());
            })
            .await?;
        Ok(outcome.into())
    }
}

fn word(text: &str) -> String {
    quoted(text, &['"'], '"')
}

fn text(path: &Path) -> String {
    word(&path.display().to_string())
}

impl Client for Psftp<'_> {
    fn name(&self) -> &'static str {
        "PuTTY psftp"
    }

    fn words(&self) -> Words {
        Words::Own("permission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let commands = match step {
            Step::Put { local, remote } => format!("put {} {}", text(local), word(remote)),
            Step::PutRenamed { local, remote } => {
                let temp = word(&format!("{remote}.filepart"));
                format!("put {} {temp}\nmv {temp} {}", text(local), word(remote))
            }
            Step::Resume { local, remote } => format!("reput {} {}", text(local), word(remote)),
            Step::PutTree { local, remote } => format!("put -r {} {}", text(local), word(remote)),
            Step::PutAtOnce { files } => {
                let one = async |local: &Path, remote: &str| self.take(Step::Put { local, remote }).await;
                return Box::pin(at_once(files.iter().map(|(l, r)| one(l, r)))).await;
            }
            Step::List { remote } => format!("ls {}", word(remote)),
            Step::Get { remote, local } => format!("get {} {}", word(remote), text(local)),
            Step::Remove { remote } => format!("rm {}", word(remote)),
            Step::PutWithTimes { .. } => return Ok(Answer::Cannot("does not send times")),
            Step::PutAndStat { .. } => return Ok(Answer::Cannot("asks for directories only")),
            Step::Sync { .. } => return Ok(Answer::Cannot("has no such mode")),
        };
        self.batch(&commands).await
    }
}

impl<'a> Pscp<'a> {
    /// At `desk`.
    ///
    /// # Errors
    /// If the host key can't be read.
    pub fn new(desk: &'a Desk) -> Result<Self> {
        Ok(Self { desk, host_key: host_key()? })
    }

    async fn copy(&self, options: &[&str], from: &str, to: &str) -> Result<Answer> {
        let outcome = self
            .desk
            .run("pscp", |command| {
                arguments(command, self.desk, &self.host_key);
                command.args(["-q", "-sftp"]).args(options).args([from, to]);
            })
            .await?;
        Ok(outcome.into())
    }

    fn at(&self, remote: &str) -> String {
        format!("{}:{remote}", self.desk.server.ip())
    }
}

impl Client for Pscp<'_> {
    fn name(&self) -> &'static str {
        "PuTTY pscp"
    }

    fn words(&self) -> Words {
        Words::Own("permission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        match step {
            Step::Put { local, remote } => {
                self.copy(&[], &local.display().to_string(), &self.at(remote)).await
            }
            Step::PutWithTimes { local, remote } => {
                self.copy(&["-p"], &local.display().to_string(), &self.at(remote)).await
            }
            Step::PutTree { local, remote } => {
                // It takes a new name for a file's: what it makes is named as here, in a directory that is there.
                let above = remote.rsplit_once('/').context("a path")?.0;
                self.copy(&["-r"], &local.display().to_string(), &self.at(above)).await
            }
            Step::PutAtOnce { files } => {
                let one = async |local: &Path, remote: &str| self.take(Step::Put { local, remote }).await;
                Box::pin(at_once(files.iter().map(|(l, r)| one(l, r)))).await
            }
            Step::Get { remote, local } => {
                self.copy(&[], &self.at(remote), &local.display().to_string()).await
            }
            Step::List { remote } => {
                let outcome = self.desk.run("pscp", |command| {
                    arguments(command, self.desk, &self.host_key);
                    command.args(["-sftp", "-ls", &self.at(remote)]);
                });
                Ok(outcome.await?.into())
            }
            Step::PutRenamed { .. }
            | Step::PutAndStat { .. }
            | Step::Resume { .. }
            | Step::Sync { .. }
            | Step::Remove { .. } => Ok(Answer::Cannot("copies and lists, and nothing else")),
        }
    }
}
