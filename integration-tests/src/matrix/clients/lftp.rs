//! `lftp`, which logs in through OpenSSH's `ssh` and speaks SFTP itself.

use super::quoted;
use crate::{
    harness::{cli::Outcome, clients::Desk},
    matrix::{Answer, Client, Step},
};
use anyhow::Result;
use std::path::Path;

/// `lftp` with a script.
pub struct Lftp<'a>(&'a Desk);

impl<'a> Lftp<'a> {
    /// At `desk`.
    #[must_use]
    pub fn new(desk: &'a Desk) -> Self {
        Self(desk)
    }

    /// Runs commands; the first that fails ends it.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn run(&self, commands: &str) -> Result<Outcome> {
        let Self(desk) = self;
        let script = format!(
            "set cmd:fail-exit yes\nset net:max-retries 2\nset net:timeout 20\n\
             set sftp:connect-program \"ssh -a -x -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {} \
             -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null\"\n\
             open -p {} -u {},unused sftp://{}\n{commands}\n",
            desk.key.display(),
            desk.known_hosts().display(),
            desk.server.port(),
            desk.account,
            desk.server.ip(),
        );
        desk.run_with("lftp", &script, |command| {
            command.args(["--norc", "-f", "/dev/stdin"]);
        })
        .await
    }
}

fn word(text: &str) -> String {
    quoted(text, &['"', '\\'], '\\')
}

fn text(path: &Path) -> String {
    word(&path.display().to_string())
}

impl Client for Lftp<'_> {
    fn name(&self) -> &'static str {
        "lftp"
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let commands = match step {
            Step::Put { local, remote } | Step::PutWithTimes { local, remote } => {
                format!("put {} -o {}", text(local), word(remote))
            }
            Step::PutRenamed { local, remote } => {
                format!("set xfer:use-temp-file yes\nput {} -o {}", text(local), word(remote))
            }
            Step::PutAndStat { local, remote } => {
                format!("put {} -o {}\ncls -l --block-size=1 {}", text(local), word(remote), word(remote))
            }
            Step::Resume { local, remote } => format!("reput {} -o {}", text(local), word(remote)),
            Step::PutTree { local, remote } | Step::Sync { local, remote } => {
                format!("mirror -R --parallel=4 {} {}", text(local), word(remote))
            }
            Step::PutAtOnce { files } => {
                let files: Vec<_> = files.iter().map(|(local, _)| text(local)).collect();
                format!("mput -P 4 -O /upload {}", files.join(" "))
            }
            Step::List { remote } => format!("ls {}", word(remote)),
            Step::Get { remote, local } => format!("get {} -o {}", word(remote), text(local)),
            Step::Remove { remote } => format!("rm {}", word(remote)),
        };
        Ok(self.run(&commands).await?.into())
    }
}
