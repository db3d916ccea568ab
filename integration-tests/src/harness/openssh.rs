//! The real OpenSSH clients in batch mode.

use super::{
    cli::{Outcome, finish},
    gate::{Gate, password, wrap},
    scratch::{Medium, Scratch},
    sshd::{HostKeys, Sshd},
};
use anyhow::{Result, ensure};
use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Longest run of a client: a 1 GiB upload in a debug build on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);

/// `sftp` and `scp` as one user of one server.
pub struct OpenSsh {
    scratch: Scratch,
    server: SocketAddr,
    user: String,
    login: Login,
    /// More arguments for `sftp` and `scp`, such as `-B 262144`.
    pub more: Vec<String>,
    /// What they are started through, such as `taskset -c 1`.
    pub wrapper: Vec<String>,
}

enum Login {
    Key(PathBuf),
    Password(String),
}

impl OpenSsh {
    /// As an account of `gate`, with its key.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn new(gate: &Gate, account: &str) -> Result<Self> {
        Self::with_key(gate.sftp()?, account, &gate.key(account))
    }

    /// As an account of `gate`, with its password, which OpenSSH asks a program for.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn with_password(gate: &Gate, account: &str, secret: Option<&str>) -> Result<Self> {
        let secret = secret.map_or_else(|| password(account), ToOwned::to_owned);
        Self::make(gate.sftp()?, account, Login::Password(secret))
    }

    /// Against a real `sshd`.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn at_sshd(sshd: &Sshd) -> Result<Self> {
        Self::with_key(sshd.address, &sshd.user, &sshd.key)
    }

    /// Against any server that has the shared host keys.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn with_key(server: SocketAddr, user: &str, key: &Path) -> Result<Self> {
        Self::make(server, user, Login::Key(key.to_owned()))
    }

    fn make(server: SocketAddr, user: &str, login: Login) -> Result<Self> {
        let scratch = Scratch::new(Medium::Memory)?;
        HostKeys::shared()?.known_hosts(server, &scratch.join("known_hosts"))?;
        if let Login::Password(secret) = &login {
            let ask = scratch.join("askpass");
            std::fs::write(scratch.join("secret"), secret)?;
            std::fs::write(&ask, format!("#!/bin/sh\nexec cat '{}'\n", scratch.join("secret").display()))?;
            std::fs::set_permissions(&ask, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { scratch, server, user: user.to_owned(), login, more: Vec::new(), wrapper: Vec::new() })
    }

    /// Takes more lines of `known_hosts`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn trust(&self, lines: &str) -> Result<()> {
        let file = self.scratch.join("known_hosts");
        let known = std::fs::read_to_string(&file)?;
        Ok(std::fs::write(file, known + lines)?)
    }

    /// A file next to its own files, for what is uploaded.
    #[must_use]
    pub fn local(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null", "-q"]);
        for option in [
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", self.scratch.join("known_hosts").display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "IdentityAgent=none".to_owned(),
            "ConnectTimeout=20".to_owned(),
            "ServerAliveInterval=30".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        match &self.login {
            Login::Key(key) => {
                command.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(key);
            }
            Login::Password(_) => {
                command.args(["-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1"]);
                command.env("SSH_ASKPASS", self.scratch.join("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
                command.env("DISPLAY", ":0");
            }
        }
        command.args(["-P", &self.server.port().to_string()]).args(&self.more);
        command
    }

    /// Runs `sftp` with these commands; the first that fails ends it with code 1, unless it begins with `-`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_sftp(&self, commands: &str) -> Result<Outcome> {
        let mut command = self.command("sftp");
        // -b sets BatchMode, which forbids passwords; this order takes it back.
        if matches!(self.login, Login::Password(_)) {
            command.args(["-o", "BatchMode=no"]);
        }
        command.args(["-b", "-", &format!("{}@{}", self.user, self.server.ip())]);
        finish(wrap(&self.wrapper, command), commands.as_bytes(), LIMIT).await
    }

    /// [`Self::try_sftp`] that must succeed.
    ///
    /// # Errors
    /// If a command fails; the message has the output.
    pub async fn sftp(&self, commands: &str) -> Result<Outcome> {
        let outcome = self.try_sftp(commands).await?;
        ensure!(outcome.status.success(), "sftp failed with {}:\n{}", outcome.status, outcome.all());
        Ok(outcome)
    }

    /// Copies a local file with `scp`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_scp(&self, options: &[&str], local: &Path, remote: &str) -> Result<Outcome> {
        let mut command = self.command("scp");
        command.args(options).arg(local).arg(format!("{}@{}:{remote}", self.user, self.server.ip()));
        finish(wrap(&self.wrapper, command), b"", LIMIT).await
    }

    /// Copies a file of the server with `scp`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_scp_from(&self, remote: &str, local: &Path) -> Result<Outcome> {
        let mut command = self.command("scp");
        command.arg(format!("{}@{}:{remote}", self.user, self.server.ip())).arg(local);
        finish(wrap(&self.wrapper, command), b"", LIMIT).await
    }

    /// [`Self::try_scp`] that must succeed.
    ///
    /// # Errors
    /// If it fails; the message has the output.
    pub async fn scp(&self, options: &[&str], local: &Path, remote: &str) -> Result<Outcome> {
        let outcome = self.try_scp(options, local, remote).await?;
        ensure!(outcome.status.success(), "scp failed with {}:\n{}", outcome.status, outcome.all());
        Ok(outcome)
    }
}
