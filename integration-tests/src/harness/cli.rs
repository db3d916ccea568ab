//! The program's command line, run as an operator runs it.

use super::{binary, until::within};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::io::AsyncWriteExt as _;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Its exit code, -1 if a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
    /// Itself, if it went well.
    ///
    /// # Errors
    /// If it did not; the message has the output.
    pub fn good(self) -> Result<Self> {
        ensure!(self.status.success(), "it failed with {}:\n{}", self.status, self.all());
        Ok(self)
    }
    /// Both streams, for messages.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// `dropgate` on one data directory.
#[derive(Clone, Debug)]
pub struct Cli {
    /// Given as `--data-dir`.
    pub data_dir: PathBuf,
    /// Given as `--config`, if set.
    pub config: Option<PathBuf>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

impl Cli {
    /// The command line up to the subcommand's own arguments, without what the environment may set.
    ///
    /// # Errors
    /// If the program can't be found.
    pub fn command(&self, args: &[&str]) -> Result<std::process::Command> {
        let mut command = std::process::Command::new(binary::dropgate()?);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("DROPGATE__") {
                command.env_remove(key);
            }
        }
        command.args(args).arg("--data-dir").arg(&self.data_dir);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.envs(self.env.iter().cloned());
        Ok(command)
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// If it can't be started or takes too long.
    pub async fn try_run(&self, args: &[&str], stdin: &[u8]) -> Result<Outcome> {
        finish(self.command(args)?, stdin, LIMIT).await
    }

    /// Runs a command that must succeed; returns its standard output.
    ///
    /// # Errors
    /// If it fails; the message has its output.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with(args, b"").await
    }

    /// [`Self::run`] with standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(&self, args: &[&str], stdin: &[u8]) -> Result<String> {
        let outcome = self.try_run(args, stdin).await?;
        ensure!(
            outcome.status.success(),
            "dropgate {} failed with {}:\n{}",
            args.join(" "),
            outcome.status,
            outcome.all()
        );
        Ok(outcome.stdout)
    }

    /// Runs a command with `--json` and reads its output.
    ///
    /// # Errors
    /// As [`Self::run`], or if the output is not one JSON value.
    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.push("--json");
        let out = self.run(&all).await?;
        serde_json::from_str(&out).with_context(|| format!("dropgate {} printed {out}", all.join(" ")))
    }
}

/// Runs any command to its end with `stdin`, both outputs captured.
///
/// # Errors
/// If it can't be started or takes longer than `limit`.
pub async fn finish(command: std::process::Command, stdin: &[u8], limit: Duration) -> Result<Outcome> {
    let what = format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>());
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let input = child.stdin.take();
    let run = async {
        if let Some(mut input) = input {
            // A command that does not read its input may be gone already.
            let _ = input.write_all(stdin).await;
        }
        child.wait_with_output().await
    };
    let output = within(limit, &what, run).await??;
    Ok(Outcome {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The last lines of a file, for the message of a failed test.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
