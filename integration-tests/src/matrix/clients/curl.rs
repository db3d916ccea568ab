//! `curl`, with the SSH of libssh2.

use crate::{
    harness::{cli::Outcome, clients::Desk, gate::password},
    matrix::{Answer, Client, Step, Words},
};
use anyhow::Result;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a path in a URL must spell in another way.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// `curl`, one run a step.
pub struct Curl<'a>(&'a Desk);

impl<'a> Curl<'a> {
    /// At `desk`.
    #[must_use]
    pub fn new(desk: &'a Desk) -> Self {
        Self(desk)
    }

    /// Runs it with these arguments.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        let Self(desk) = self;
        let secret = format!("user = \"{}:{}\"\n", desk.account, password(&desk.account));
        desk.run_with("curl", &secret, |command| {
            command.args(["--disable", "--silent", "--show-error", "--config", "-"]).args(arguments);
        })
        .await
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, remote: &str) -> String {
        format!("sftp://{}{}", self.0.server, utf8_percent_encode(remote, IN_A_PATH))
    }
}

impl Client for Curl<'_> {
    fn name(&self) -> &'static str {
        "curl"
    }

    fn words(&self) -> Words {
        Words::Own("ermission denied")
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let outcome = match step {
            Step::Put { local, remote } => {
                self.run(&["-T", &local.display().to_string(), &self.url(remote)]).await?
            }
            Step::PutRenamed { local, remote } => {
                let temp = format!("{remote}.filepart");
                let rename = format!("-rename {temp} {remote}");
                self.run(&["-T", &local.display().to_string(), "-Q", &rename, &self.url(&temp)]).await?
            }
            Step::Resume { local, remote } => {
                self.run(&["-C", "-", "-T", &local.display().to_string(), &self.url(remote)]).await?
            }
            Step::PutAtOnce { files } => {
                let mut arguments = vec!["--parallel".to_owned()];
                for (local, remote) in files {
                    arguments.extend(["-T".to_owned(), local.display().to_string(), self.url(remote)]);
                }
                self.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?
            }
            Step::List { remote } => self.run(&[&self.url(&format!("{remote}/"))]).await?,
            Step::Get { remote, local } => {
                self.run(&["-o", &local.display().to_string(), &self.url(remote)]).await?
            }
            Step::Remove { remote } => {
                self.run(&["-Q", &format!("rm {remote}"), &self.url("/upload/")]).await?
            }
            Step::PutWithTimes { .. } => return Ok(Answer::Cannot("does not send times")),
            Step::PutAndStat { .. } => return Ok(Answer::Cannot("does not ask after an upload")),
            Step::PutTree { .. } => return Ok(Answer::Cannot("uploads single files")),
            Step::Sync { .. } => return Ok(Answer::Cannot("has no such mode")),
        };
        Ok(outcome.into())
    }
}
