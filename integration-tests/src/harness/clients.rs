//! Where foreign clients run: one account of one gate, the files to log in with, and nothing of the user's own settings.
//! `scripts/test-deps` installs them; one that is missing fails its test.

use super::{
    cli::{Outcome, finish},
    gate::{Gate, password},
    scratch::{Medium, Scratch},
    sshd::HostKeys,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Longest run of a client: 20 MiB beside other tests on a small machine.
const LIMIT: Duration = Duration::from_secs(120);

/// One account of one gate, as clients log in to it.
pub struct Desk {
    scratch: Scratch,
    /// Where the gate listens.
    pub server: SocketAddr,
    /// Who logs in.
    pub account: String,
    /// The private key, in OpenSSH's format.
    pub key: PathBuf,
}

impl Desk {
    /// For an account of `gate`.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn new(gate: &Gate, account: &str) -> Result<Self> {
        Self::at(gate.sftp()?, account, &gate.key(account))
    }

    /// For an account at any server that has the shared host keys.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn at(server: SocketAddr, account: &str, key: &Path) -> Result<Self> {
        let scratch = Scratch::new(Medium::Memory)?;
        let desk = Self { scratch, server, account: account.to_owned(), key: key.to_owned() };
        // libssh2 and others look for known_hosts in HOME only.
        std::fs::create_dir_all(desk.local(".ssh"))?;
        HostKeys::shared()?.known_hosts(desk.server, &desk.known_hosts())?;
        std::fs::write(desk.password(), password(account))?;
        Ok(desk)
    }

    /// A path in the directory where clients run.
    #[must_use]
    pub fn local(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The host keys of the gate, as OpenSSH keeps them.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.local(".ssh/known_hosts")
    }

    /// A file with the password.
    #[must_use]
    pub fn password(&self) -> PathBuf {
        self.local("password")
    }

    /// Runs a program to its end, whatever that is; `prepare` gives it its arguments.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn run(
        &self,
        program: impl AsRef<Path>,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Outcome> {
        self.run_with(program, "", prepare).await
    }

    /// [`Self::run`] with standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(
        &self,
        program: impl AsRef<Path>,
        stdin: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Outcome> {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.env("HOME", self.scratch.path()).env("LC_ALL", "C.UTF-8");
        for name in ["SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "SSH_ASKPASS", "DISPLAY"] {
            command.env_remove(name);
        }
        command.current_dir(self.scratch.path());
        prepare(&mut command);
        finish(command, stdin.as_bytes(), LIMIT)
            .await
            .with_context(|| format!("{} can't be run: scripts/test-deps installs it", program.display()))
    }
}

/// What `scripts/test-deps` has installed outside the system's own directories.
///
/// # Errors
/// If it is not there.
pub fn installed(path: &str) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("DROPGATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|c| c.join("dropgate")))
        .or_else(|| set("HOME").map(|h| h.join(".cache/dropgate")))
        .context("neither DROPGATE_CACHE nor XDG_CACHE_HOME nor HOME is set")?;
    let path = cache.join("foreign").join(path);
    ensure!(path.exists(), "{} is not there: run scripts/test-deps", path.display());
    Ok(path)
}
