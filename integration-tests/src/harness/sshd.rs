//! A real OpenSSH server of our own, and keys made by the real `ssh-keygen`.

use super::{
    binary,
    gate::wrap,
    process::Process,
    scratch::{Medium, Scratch},
    until::until_true,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fmt::Write as _,
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

/// Host keys that all servers in tests share, since making RSA keys takes long.
#[derive(Clone, Debug)]
pub struct HostKeys {
    /// Ed25519 private key; `.pub` beside it.
    pub ed25519: PathBuf,
    /// RSA private key; `.pub` beside it.
    pub rsa: PathBuf,
}

impl HostKeys {
    /// Those beside the build: made by the first process that asks, and found there by all others, at the same time or later.
    /// Nothing is ever dropped at the end of a process, so keys of its own would be left behind.
    ///
    /// # Errors
    /// If `ssh-keygen` fails.
    pub fn shared() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<HostKeys, String>> = OnceLock::new();
        match FOUND.get_or_init(|| Self::find_or_make().map_err(|e| format!("{e:#}"))) {
            Ok(keys) => Ok(keys),
            Err(e) => bail!("{e}"),
        }
    }

    fn find_or_make() -> Result<Self> {
        let place = binary::profile_dir()?.join("test-host-keys");
        if !place.is_dir() {
            Self::make(&place)?;
        }
        Ok(Self::within(&place))
    }

    fn within(dir: &Path) -> Self {
        Self { ed25519: dir.join("host_ed25519"), rsa: dir.join("host_rsa") }
    }

    fn make(place: &Path) -> Result<()> {
        let parent = place.parent().context("no parent")?;
        let dir = tempfile::Builder::new().prefix("test-host-keys-").tempdir_in(parent)?;
        let keys = Self::within(dir.path());
        keygen(&["-t", "ed25519"], &keys.ed25519)?;
        keygen(&["-t", "rsa", "-b", "3072"], &keys.rsa)?;
        // All of them or none: where another process was faster, its keys are used and these go.
        match std::fs::rename(dir.path(), place) {
            Err(_) if place.is_dir() => {}
            moved => {
                moved?;
                // It has another name now.
                let _ = dir.keep();
            }
        }
        Ok(())
    }

    /// A known_hosts file for a server with these keys.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn known_hosts(&self, server: SocketAddr, file: &Path) -> Result<()> {
        let mut lines = String::new();
        for key in [&self.ed25519, &self.rsa] {
            let public = std::fs::read_to_string(format!("{}.pub", key.display()))?;
            writeln!(lines, "[{}]:{} {}", server.ip(), server.port(), public.trim())?;
        }
        Ok(std::fs::write(file, lines)?)
    }
}

/// An Ed25519 key pair at `path` and `path.pub`.
///
/// # Errors
/// If `ssh-keygen` fails.
pub fn keypair(path: &Path) -> Result<PathBuf> {
    keygen(&["-t", "ed25519"], path)?;
    Ok(path.to_owned())
}

/// A key pair of any kind, as `ssh-keygen` names it.
///
/// # Errors
/// If `ssh-keygen` fails.
pub fn keygen(kind: &[&str], path: &Path) -> Result<()> {
    let out = Command::new("ssh-keygen")
        .args(kind)
        .args(["-q", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .context("running ssh-keygen (Debian package openssh-client)")?;
    ensure!(out.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// Where the program of the SFTP subsystem may lie.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// How the subsystem is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// The separate program.
    SftpServer,
    /// In `sshd` itself, with more arguments (`-P posix-rename` denies requests).
    Internal(String),
}

/// A running `sshd`, for the user that runs the tests, with key login only.
pub struct Sshd {
    process: Process,
    scratch: Scratch,
    /// Where it listens.
    pub address: SocketAddr,
    /// The private key that may log in.
    pub key: PathBuf,
    /// Its user.
    pub user: String,
}

impl Sshd {
    /// Starts one. `options` are more lines of its config.
    ///
    /// # Errors
    /// If OpenSSH's server is not installed or does not start.
    pub async fn start(subsystem: &Subsystem, options: &str) -> Result<Self> {
        Self::start_on(Medium::Memory, &[], subsystem, options).await
    }

    /// [`Self::start`] with its directories on `medium`, through a `wrapper` such as `taskset -c 0`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(
        medium: Medium,
        wrapper: &[String],
        subsystem: &Subsystem,
        options: &str,
    ) -> Result<Self> {
        Self::start_in(Scratch::new(medium)?, free_address()?, wrapper, subsystem, options).await
    }

    async fn start_in(
        scratch: Scratch,
        address: SocketAddr,
        wrapper: &[String],
        subsystem: &Subsystem,
        options: &str,
    ) -> Result<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|p| Path::new(p).is_file())
            .context("no sshd: install Debian package openssh-server")?;
        let keys = HostKeys::shared()?;
        let key = scratch.join("login.key");
        if !key.exists() {
            keypair(&key)?;
        }
        let authorized = scratch.join("authorized_keys");
        std::fs::copy(format!("{}.pub", key.display()), &authorized)?;
        std::fs::set_permissions(&authorized, std::fs::Permissions::from_mode(0o600))?;
        let subsystem = match subsystem {
            Subsystem::Internal(arguments) => format!("internal-sftp {arguments}"),
            Subsystem::SftpServer => SFTP_SERVERS
                .into_iter()
                .find(|p| Path::new(p).is_file())
                .context("no sftp-server: install Debian package openssh-sftp-server")?
                .to_owned(),
        };
        let config = scratch.join("sshd_config");
        std::fs::write(
            &config,
            format!(
                "ListenAddress {address}\nHostKey {}\nHostKey {}\nPidFile none\nUsePAM no\nStrictModes no\nUseDNS no\n\
                 PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 AuthorizedKeysFile {}\nSubsystem sftp {subsystem}\nMaxStartups 1000\nMaxSessions 100\n{options}\n",
                keys.ed25519.display(),
                keys.rsa.display(),
                authorized.display(),
            ),
        )?;
        // Privilege separation wants this directory, which the package's service would make.
        if !Path::new("/run/sshd").exists() {
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let log = File::create(scratch.join("sshd.log"))?;
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(&config);
        let child =
            wrap(wrapper, command).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let user =
            std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "root".to_owned());
        let sshd = Self { process: Process::new(child), scratch, address, key, user };
        until_true(Duration::from_secs(10), "sshd to listen", || async {
            Ok(tokio::net::TcpStream::connect(address).await.is_ok())
        })
        .await
        .with_context(|| super::cli::tail(&sshd.scratch.join("sshd.log"), 20))?;
        Ok(sshd)
    }

    /// Its process, for its processor time.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it, but keeps its address, keys and directory: [`Self::again`] starts it at the same place.
    ///
    /// # Errors
    /// If the system can't.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts a stopped one again.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn again(self, subsystem: &Subsystem, options: &str) -> Result<Self> {
        let Self { scratch, address, process, .. } = self;
        drop(process);
        Self::start_in(scratch, address, &[], subsystem, options).await
    }

    /// A directory in its scratch space, made if missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// A loopback address whose port was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
