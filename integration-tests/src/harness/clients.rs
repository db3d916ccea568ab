//! Real clients beside OpenSSH's: lftp, curl, rclone and paramiko. `scripts/test-deps` installs them; one that is missing
//! fails its test.

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

/// Longest run of a client.
const LIMIT: Duration = Duration::from_secs(60);

/// One account of one gate, as several clients log in to it.
pub struct Clients {
    scratch: Scratch,
    server: SocketAddr,
    account: String,
    key: PathBuf,
}

impl Clients {
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
        HostKeys::shared()?.known_hosts(server, &scratch.join("known_hosts"))?;
        Ok(Self { scratch, server, account: account.to_owned(), key: key.to_owned() })
    }

    /// A path next to its own files, for what is uploaded.
    #[must_use]
    pub fn local(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Runs commands in `lftp`, which logs in through OpenSSH's `ssh`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_lftp(&self, commands: &str) -> Result<Outcome> {
        let script = format!(
            "set cmd:fail-exit yes\nset net:max-retries 2\nset net:timeout 20\n\
             set sftp:connect-program \"ssh -a -x -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {} \
             -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null\"\n\
             open -p {} -u {},unused sftp://{}\n{commands}",
            self.key.display(),
            self.scratch.join("known_hosts").display(),
            self.server.port(),
            self.account,
            self.server.ip(),
        );
        let file = self.scratch.join("lftp.script");
        std::fs::write(&file, script)?;
        let mut command = self.command("lftp");
        command.args(["--norc", "-f"]).arg(file);
        run(command).await
    }

    /// [`Self::try_lftp`] that must succeed.
    ///
    /// # Errors
    /// If a command fails; the message has the output.
    pub async fn lftp(&self, commands: &str) -> Result<Outcome> {
        good("lftp", self.try_lftp(commands).await?)
    }

    /// Runs `curl` with a password on `remote`, an absolute path in URL spelling.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_curl(&self, options: &[&str], remote: &str) -> Result<Outcome> {
        // libssh2 looks for known_hosts in HOME only.
        let ssh = self.scratch.join(".ssh");
        std::fs::create_dir_all(&ssh)?;
        std::fs::copy(self.scratch.join("known_hosts"), ssh.join("known_hosts"))?;
        let secret = self.scratch.join("curl.config");
        std::fs::write(&secret, format!("user = \"{}:{}\"\n", self.account, password(&self.account)))?;
        let mut command = self.command("curl");
        command.args(["--disable", "--silent", "--show-error", "--config"]).arg(secret);
        command.args(options).arg(format!("sftp://{}{remote}", self.server));
        run(command).await
    }

    /// [`Self::try_curl`] that must succeed.
    ///
    /// # Errors
    /// If it fails; the message has the output.
    pub async fn curl(&self, options: &[&str], remote: &str) -> Result<Outcome> {
        good("curl", self.try_curl(options, remote).await?)
    }

    /// Runs `rclone`; the gate is the remote `gate:`.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn try_rclone(&self, args: &[&str]) -> Result<Outcome> {
        let mut command = self.command(&from_pypi("rclone")?);
        command.args(["--config", "/dev/null", "--retries", "1", "--low-level-retries", "1"]).args(args);
        command.env("RCLONE_CONFIG_GATE_TYPE", "sftp");
        command.env("RCLONE_CONFIG_GATE_HOST", self.server.ip().to_string());
        command.env("RCLONE_CONFIG_GATE_PORT", self.server.port().to_string());
        command.env("RCLONE_CONFIG_GATE_USER", &self.account);
        command.env("RCLONE_CONFIG_GATE_KEY_FILE", &self.key);
        command.env("RCLONE_CONFIG_GATE_KNOWN_HOSTS_FILE", self.scratch.join("known_hosts"));
        run(command).await
    }

    /// [`Self::try_rclone`] that must succeed.
    ///
    /// # Errors
    /// If it fails; the message has the output.
    pub async fn rclone(&self, args: &[&str]) -> Result<Outcome> {
        good("rclone", self.try_rclone(args).await?)
    }

    /// Runs Python statements with `sftp`, a connected `paramiko.SFTPClient`, and `local`, the directory of
    /// [`Self::local`].
    ///
    /// # Errors
    /// If it can't be run, or a statement raises; the message has the traceback.
    pub async fn paramiko(&self, statements: &str) -> Result<Outcome> {
        let mut script = format!(
            "import io, paramiko, sys\n\
             client = paramiko.SSHClient()\n\
             client.load_host_keys(sys.argv[1] + '/known_hosts')\n\
             local, server, port, account, secret = sys.argv[1:]\n\
             client.connect(server, int(port), account, secret, allow_agent=False, look_for_keys=False)\n\
             sftp = client.open_sftp()\n\
             {statements}\n"
        );
        script.push_str("client.close()\n");
        let file = self.scratch.join("script.py");
        std::fs::write(&file, script)?;
        let mut command = self.command(&from_pypi("python3")?);
        command.args(["-W", "ignore"]).arg(file).arg(self.scratch.path());
        command.args([self.server.ip().to_string(), self.server.port().to_string()]);
        command.arg(&self.account).arg(password(&self.account));
        good("paramiko", run(command).await?)
    }

    /// `program` with nothing of the user's own settings.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("HOME", self.scratch.path()).env_remove("SSH_AUTH_SOCK").env_remove("XDG_CONFIG_HOME");
        command.current_dir(self.scratch.path());
        command
    }
}

async fn run(command: Command) -> Result<Outcome> {
    let program = command.get_program().display().to_string();
    finish(command, b"", LIMIT)
        .await
        .with_context(|| format!("{program} can't be run: scripts/test-deps installs it"))
}

fn good(program: &str, outcome: Outcome) -> Result<Outcome> {
    ensure!(outcome.status.success(), "{program} failed with {}:\n{}", outcome.status, outcome.all());
    Ok(outcome)
}

/// A program of the Python environment that `scripts/test-deps` makes.
///
/// # Errors
/// If it is not there.
pub fn from_pypi(program: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|c| !c.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
    let path = cache.context("neither XDG_CACHE_HOME nor HOME is set")?;
    let path = path.join("dropgate/test-clients/bin").join(program);
    ensure!(path.is_file(), "{} is not there: run scripts/test-deps", path.display());
    Ok(path)
}
