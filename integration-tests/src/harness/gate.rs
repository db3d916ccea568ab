//! A running Dropgate: one process or three, on a data directory of its own, with accounts that can log in.

mod watch;

pub use watch::SETTLE;

use super::{
    cli::{Cli, tail},
    process::{Process, Usage},
    scratch::{Medium, Scratch},
    sshd::{HostKeys, keypair},
    until::until,
};
use crate::raw::{Connection, Credential, Login, Raw, Transport};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;
use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

/// How long a start may take: the first one opens the database and reads keys.
const START: Duration = Duration::from_secs(30);
/// How long an orderly end may take: 30 s to drain, 15 s to close the stores, and some for a busy machine.
pub const STOP: Duration = Duration::from_secs(60);
/// Which processes make up the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roles {
    /// `dropgate run`.
    #[default]
    One,
    /// `dropgate gateway`, `worker` and `ops`.
    Three,
    /// `dropgate gateway`, a member of a cluster.
    Gateway,
    /// `dropgate worker`, a member of a cluster.
    Worker,
    /// `dropgate ops`, a member of a cluster.
    Ops,
}

impl Roles {
    fn commands(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::One => &[("run", "ready.json")],
            Self::Gateway => &[("gateway", "ready-gateway.json")],
            Self::Worker => &[("worker", "ready-worker.json")],
            Self::Ops => &[("ops", "ready-ops.json")],
            Self::Three => &[
                ("gateway", "ready-gateway.json"),
                ("worker", "ready-worker.json"),
                ("ops", "ready-ops.json"),
            ],
        }
    }
}

/// What a gate is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where its data lie.
    pub medium: Medium,
    /// One process or three.
    pub roles: Roles,
    /// The whole text of its config file.
    pub config: String,
    /// Accounts; each is of partner `<account>-corp`, has a password and a key.
    pub accounts: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// Whether the model that names types is asked. Most tests send noise, and have no use for its opinion.
    pub learned: bool,
    /// What the program is started through, such as `taskset -c 0`; it must end in exec.
    pub wrapper: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            medium: Medium::Memory,
            roles: Roles::One,
            config: String::new(),
            accounts: vec!["acme".to_owned()],
            env: Vec::new(),
            learned: false,
            wrapper: Vec::new(),
        }
    }
}

impl Setup {
    /// With this config file.
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = text.into();
        self
    }
    /// With these accounts.
    #[must_use]
    pub fn accounts(mut self, names: &[&str]) -> Self {
        self.accounts = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }
    /// On a real disk.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.medium = Medium::Disk;
        self
    }
    /// With the model that names types.
    #[must_use]
    pub fn learned(mut self) -> Self {
        self.learned = true;
        self
    }
    /// As three processes.
    #[must_use]
    pub fn three_roles(mut self) -> Self {
        self.roles = Roles::Three;
        self
    }
}

/// A running Dropgate. Call [`Gate::finish`] at the end of a test: a gate that is dropped without it prints its log.
pub struct Gate {
    scratch: Scratch,
    setup: Setup,
    /// The program on this data directory.
    pub cli: Cli,
    processes: Vec<(&'static str, Process)>,
    sftp: Option<SocketAddr>,
    ops: Option<SocketAddr>,
    health: Option<SocketAddr>,
    starts: usize,
    passed: bool,
}

impl Gate {
    /// Makes host keys and accounts, starts it and waits until it is ready.
    ///
    /// # Errors
    /// If one of them fails.
    pub async fn start(setup: Setup) -> Result<Self> {
        let mut gate = Self::prepare(setup).await?;
        gate.launch().await?;
        Ok(gate)
    }

    /// Everything but the start.
    ///
    /// # Errors
    /// If host keys or accounts can't be made.
    pub async fn prepare(setup: Setup) -> Result<Self> {
        let scratch = Scratch::new(setup.medium)?;
        let config = scratch.join("dropgate.toml");
        std::fs::write(&config, &setup.config)?;
        let cli = Cli { data_dir: scratch.join("data"), config: Some(config), env: setup.env.clone() };
        let gate = Self {
            scratch,
            cli,
            processes: Vec::new(),
            sftp: None,
            ops: None,
            health: None,
            starts: 0,
            passed: false,
            setup,
        };
        // The members of a cluster have theirs in a common store.
        if matches!(gate.setup.roles, Roles::One | Roles::Three) {
            let keys = HostKeys::shared()?;
            for key in [&keys.ed25519, &keys.rsa] {
                gate.cli.run(&["hostkey", "import", &key.display().to_string()]).await?;
            }
        }
        for account in gate.setup.accounts.clone() {
            gate.add_account(&account, &[]).await?;
        }
        Ok(gate)
    }

    /// Adds an account with the usual password and key, and more options.
    ///
    /// # Errors
    /// If the program refuses it.
    pub async fn add_account(&self, account: &str, more: &[&str]) -> Result<()> {
        let key = keypair(&self.scratch.join(format!("{account}.key")))?;
        let public = format!("{}.pub", key.display());
        let partner = format!("{account}-corp");
        let mut args = vec![
            "account",
            "add",
            account,
            "--partner",
            &partner,
            "--password-stdin",
            "--public-key",
            &public,
        ];
        args.extend_from_slice(more);
        self.cli.run_with(&args, format!("{}\n", password(account)).as_bytes()).await?;
        Ok(())
    }

    /// Starts the processes and waits until all are ready.
    ///
    /// # Errors
    /// If one ends or is not ready in time.
    pub async fn launch(&mut self) -> Result<()> {
        self.starts += 1;
        for (command, ready) in self.setup.roles.commands() {
            let process = self.spawn(command)?;
            let pid = process.id();
            self.processes.push((command, process));
            let address =
                self.wait_ready(ready, pid).await.with_context(|| format!("starting dropgate {command}"))?;
            self.note_addresses(&address)?;
        }
        Ok(())
    }

    fn note_addresses(&mut self, ready: &Value) -> Result<()> {
        self.sftp = address_of(ready, "sftp")?.or(self.sftp);
        self.ops = address_of(ready, "ops")?.or(self.ops);
        self.health = address_of(ready, "health")?.or(self.health);
        Ok(())
    }

    /// Starts it and kills it before it can be ready, or just then.
    ///
    /// # Errors
    /// If it can't be started or killed.
    pub async fn launch_and_kill_after(&mut self, moment: Duration) -> Result<()> {
        let mut started = Vec::new();
        for (command, _) in self.setup.roles.commands() {
            started.push(self.spawn(command)?);
        }
        tokio::time::sleep(moment).await;
        started.iter_mut().try_for_each(Process::kill)
    }

    fn spawn(&self, role: &str) -> Result<Process> {
        let mut args = vec![role];
        if matches!(role, "run" | "gateway") {
            args.extend(["--sftp-listen", "127.0.0.1:0"]);
        }
        if matches!(role, "run" | "ops") {
            args.extend(["--ops-listen", "127.0.0.1:0"]);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(role))?;
        let mut command = wrap(&self.setup.wrapper, self.cli.command(&args)?);
        // What it prints for people at the start is no log.
        let said = File::create(self.scratch.join(format!("{role}.out")))?;
        command.stdin(Stdio::null()).stdout(said).stderr(log);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        command.env("DROPGATE__GATEWAY__CONTENT_TYPE__LEARNED", self.setup.learned.to_string());
        command.env("RUST_BACKTRACE", "1").envs(self.setup.env.iter().cloned());
        Ok(Process::new(command.spawn()?))
    }

    async fn wait_ready(&mut self, file: &str, pid: u32) -> Result<Value> {
        let path = self.cli.data_dir.join(file);
        until(START, &format!("{file} of process {pid}"), || {
            let answer = self.look_ready(&path, pid);
            async { answer }
        })
        .await?
    }

    /// The outer error is tried again, the inner one is final.
    fn look_ready(&mut self, path: &Path, pid: u32) -> Result<Option<Result<Value>>> {
        for (role, process) in &mut self.processes {
            if let Some(status) = process.ended()? {
                let end = anyhow!("dropgate {role} ended with {status} before it was ready");
                return Ok(Some(Err(end)));
            }
        }
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let ready: Value =
            serde_json::from_str(&text).with_context(|| format!("{}: {text}", path.display()))?;
        // The file of a process that was killed may still be there.
        Ok((ready.get("pid").and_then(Value::as_u64) == Some(u64::from(pid))).then_some(Ok(ready)))
    }

    /// Where it listens for SFTP.
    ///
    /// # Errors
    /// If it has not been started.
    pub fn sftp(&self) -> Result<SocketAddr> {
        self.sftp.context("it does not listen")
    }
    /// Where it listens for operators.
    ///
    /// # Errors
    /// If it has not been started.
    pub fn ops(&self) -> Result<SocketAddr> {
        self.ops.context("it has no ops listener")
    }
    /// Where it answers probes, if its config has `ops.health_listen`.
    ///
    /// # Errors
    /// If it does not.
    pub fn health(&self) -> Result<SocketAddr> {
        self.health.context("it has no health listener")
    }
    /// Its scratch directory: config, keys, logs and, below `data`, everything of the program.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }
    /// A path in the scratch directory.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.join(name)
    }
    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.cli.data_dir
    }
    /// The log of one role.
    #[must_use]
    pub fn log(&self, role: &str) -> PathBuf {
        self.scratch.join(format!("{role}.log"))
    }
    /// Where the embedded default delivers what `account` uploads.
    #[must_use]
    pub fn delivered(&self, account: &str) -> PathBuf {
        self.cli.data_dir.join("delivered").join(format!("{account}-corp")).join(account)
    }
    /// The private key of an account.
    #[must_use]
    pub fn key(&self, account: &str) -> PathBuf {
        self.scratch.join(format!("{account}.key"))
    }
    /// What an account logs in with: its key, which costs the server less than a password.
    #[must_use]
    pub fn login(&self, account: &str) -> Login {
        Login { user: account.to_owned(), with: Credential::Key(self.key(account)) }
    }
    /// Password login of an account.
    #[must_use]
    pub fn password_login(&self, account: &str) -> Login {
        Login { user: account.to_owned(), with: Credential::Password(password(account)) }
    }

    /// A raw session of an account, INIT done.
    ///
    /// # Errors
    /// If it can't be had.
    pub async fn raw(&self, account: &str) -> Result<(Connection, Raw)> {
        self.raw_over(account, &Transport::default()).await
    }

    /// [`Self::raw`] with a transport of its own.
    ///
    /// # Errors
    /// If it can't be had.
    pub async fn raw_over(&self, account: &str, transport: &Transport) -> Result<(Connection, Raw)> {
        let connection = Connection::open(self.sftp()?, &self.login(account), transport).await?;
        let mut raw = connection.sftp().await?;
        let (version, _) = raw.init(3).await?;
        ensure!(version == 3, "version {version}");
        Ok((connection, raw))
    }

    /// What a role uses.
    ///
    /// # Errors
    /// If it does not run.
    pub fn usage(&self, role: &str) -> Result<Usage> {
        self.process(role)?.usage()
    }

    /// The process of a role.
    ///
    /// # Errors
    /// If it does not run.
    pub fn process(&self, role: &str) -> Result<&Process> {
        self.processes
            .iter()
            .find(|(name, _)| *name == role)
            .map(|(_, p)| p)
            .with_context(|| format!("no {role}"))
    }

    /// `kill -9` of every process.
    ///
    /// # Errors
    /// If the system can't.
    pub fn kill(&mut self) -> Result<()> {
        for (_, mut process) in self.processes.drain(..) {
            process.kill()?;
        }
        self.sftp = None;
        Ok(())
    }

    /// `kill -9` of one role.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_role(&mut self, role: &str) -> Result<()> {
        let at = self
            .processes
            .iter()
            .position(|(name, _)| *name == role)
            .with_context(|| format!("no {role}"))?;
        self.processes.remove(at).1.kill()
    }

    /// Starts one role again.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn launch_role(&mut self, role: &str) -> Result<()> {
        let (command, ready) = self
            .setup
            .roles
            .commands()
            .iter()
            .find(|(name, _)| *name == role)
            .with_context(|| format!("no {role}"))?;
        let process = self.spawn(command)?;
        let pid = process.id();
        self.processes.push((command, process));
        let address = self.wait_ready(ready, pid).await?;
        self.note_addresses(&address)
    }

    /// SIGTERM to every process; how each ended.
    ///
    /// # Errors
    /// If one does not end within [`STOP`].
    pub async fn terminate(&mut self) -> Result<Vec<(&'static str, ExitStatus)>> {
        let mut ends = Vec::new();
        for (role, mut process) in self.processes.drain(..) {
            let end = process.terminate(STOP).await.with_context(|| role.to_owned())?;
            ends.push((role, end));
        }
        self.sftp = None;
        Ok(ends)
    }

    /// Takes it down in good order and checks that it was well to the end: still running, exit code 0, `ready.json`
    /// removed, no panic in any log.
    ///
    /// # Errors
    /// If one of these does not hold.
    pub async fn finish(mut self) -> Result<()> {
        let result = self.finish_inner().await;
        self.passed = result.is_ok();
        result
    }

    async fn finish_inner(&mut self) -> Result<()> {
        for (role, process) in &mut self.processes {
            if let Some(status) = process.ended()? {
                bail!("dropgate {role} ended by itself with {status}");
            }
        }
        for (role, status) in self.terminate().await? {
            ensure!(status.code() == Some(0), "dropgate {role} ended with {status} after SIGTERM");
        }
        for (role, ready) in self.setup.roles.commands() {
            ensure!(!self.data().join(ready).exists(), "{ready} is still there after a clean exit");
            let log =
                String::from_utf8_lossy(&std::fs::read(self.log(role)).unwrap_or_default()).into_owned();
            ensure!(!log.contains("panicked at"), "dropgate {role} panicked");
        }
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.passed {
            return;
        }
        for (role, _) in self.setup.roles.commands() {
            let log = tail(&self.log(role), 40);
            eprintln!("---- the end of the log of dropgate {role} (start {}) ----\n{log}\n----", self.starts);
        }
    }
}

/// The password that [`Gate::add_account`] gives.
#[must_use]
pub fn password(account: &str) -> String {
    format!("correct horse battery {account}")
}

fn address_of(ready: &Value, role: &str) -> Result<Option<SocketAddr>> {
    match ready.get(role).and_then(Value::as_str) {
        Some(text) => Ok(Some(text.parse().with_context(|| format!("{role} in ready.json: {text}"))?)),
        None => Ok(None),
    }
}

/// `command`, started through `wrapper`.
#[must_use]
pub fn wrap(wrapper: &[String], command: Command) -> Command {
    let Some((program, arguments)) = wrapper.split_first() else { return command };
    let mut wrapped = Command::new(program);
    wrapped.args(arguments).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped
}
