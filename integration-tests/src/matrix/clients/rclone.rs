//! `rclone`, with the SFTP of Go's `pkg/sftp`.

use crate::{
    harness::{
        cli::Outcome,
        clients::{Desk, installed},
    },
    matrix::{Answer, Client, Step, Words},
};
use anyhow::Result;
use std::path::Path;

/// `rclone`, one run a step; the gate is the remote `gate:`.
pub struct Rclone<'a>(&'a Desk);

impl<'a> Rclone<'a> {
    /// At `desk`.
    #[must_use]
    pub fn new(desk: &'a Desk) -> Self {
        Self(desk)
    }

    /// Runs it; the gate is `gate:`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        let Self(desk) = self;
        desk.run(installed("python/bin/rclone")?, |command| {
            command.args(["--config", "/dev/null", "--retries", "1", "--low-level-retries", "1"]);
            command.args(arguments);
            command.env("RCLONE_CONFIG_GATE_TYPE", "sftp");
            command.env("RCLONE_CONFIG_GATE_HOST", desk.server.ip().to_string());
            command.env("RCLONE_CONFIG_GATE_PORT", desk.server.port().to_string());
            command.env("RCLONE_CONFIG_GATE_USER", &desk.account);
            command.env("RCLONE_CONFIG_GATE_KEY_FILE", &desk.key);
            command.env("RCLONE_CONFIG_GATE_KNOWN_HOSTS_FILE", desk.known_hosts());
        })
        .await
    }

    async fn step(&self, arguments: &[&str]) -> Result<Answer> {
        Ok(self.run(arguments).await?.into())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn at(remote: &str) -> String {
    format!("gate:{remote}")
}

impl Client for Rclone<'_> {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn words(&self) -> Words {
        Words::Own("permission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        match step {
            Step::Put { local, remote }
            | Step::PutWithTimes { local, remote }
            | Step::PutRenamed { local, remote } => self.step(&["copyto", &text(local), &at(remote)]).await,
            Step::PutAndStat { local, remote } => {
                match self.step(&["copyto", &text(local), &at(remote)]).await? {
                    Answer::Ended(said) if said.ok => {
                        // `lsl` would look for it in the directory, which it may have left already.
                        self.step(&["lsjson", "--stat", &at(remote)]).await
                    }
                    failed => Ok(failed),
                }
            }
            Step::Resume { .. } => Ok(Answer::Cannot("sends a file again from its beginning")),
            Step::PutTree { local, remote } | Step::Sync { local, remote } => {
                self.step(&["copy", &text(local), &at(remote)]).await
            }
            Step::PutAtOnce { .. } => {
                self.step(&["copy", "--transfers", "4", "--include", "/at-once-*", ".", &at("/upload")]).await
            }
            Step::List { remote } => self.step(&["lsl", &at(remote)]).await,
            Step::Get { remote, local } => self.step(&["copyto", &at(remote), &text(local)]).await,
            Step::Remove { remote } => self.step(&["deletefile", &at(remote)]).await,
        }
    }
}
