//! A real OpenSSH server of this test alone: own keys, own port, ended by its process id.

use crate::config::SftpConfig;
use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(super) struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    subsystem: String,
    running: Option<Child>,
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed (Debian: openssh-server): {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn keygen(path: &Path, kind: &str) {
    run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-f", path.to_str().unwrap()]);
}

impl Sshd {
    /// A server with every extension.
    pub(super) fn start() -> Self {
        Self::start_with("internal-sftp")
    }

    /// A server without extensions, as those of before 2010.
    pub(super) fn start_plain() -> Self {
        Self::start_with(
            "internal-sftp -P posix-rename,statvfs,fstatvfs,hardlink,fsync,lsetstat,limits,expand-path,copy-data",
        )
    }

    fn start_with(subsystem: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for kind in ["ed25519", "rsa"] {
            keygen(&dir.path().join(format!("host_{kind}")), kind);
        }
        keygen(&dir.path().join("client"), "ed25519");
        keygen(&dir.path().join("stranger"), "ed25519");
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let mut sshd = Self { dir, port: 0, subsystem: subsystem.to_owned(), running: None };
        sshd.restart();
        sshd
    }

    /// Starts it (again), on the port that it had.
    pub(super) fn restart(&mut self) {
        self.stop();
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        for _ in 0..5 {
            let port = if self.port == 0 { free_port() } else { self.port };
            let mut child = self.spawn(port);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(10) {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    self.port = port;
                    self.running = Some(child);
                    return;
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd does not start: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    fn spawn(&self, port: u16) -> Child {
        let at = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let config = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", at("host_ed25519")),
            format!("HostKey {}", at("host_rsa")),
            format!("AuthorizedKeysFile {}", at("client.pub")),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "MaxStartups 100".to_owned(),
            format!("Subsystem sftp {}", self.subsystem),
        ];
        std::fs::write(at("config"), config.join("\n")).unwrap();
        Command::new("/usr/sbin/sshd")
            .args(["-D", "-f", &at("config"), "-E", &at("log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("/usr/sbin/sshd is needed (Debian: openssh-server): {e}"))
    }

    /// Ends the server and every session of it, as a machine that goes down would.
    pub(super) fn stop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        let pid = child.id();
        // Its sessions are children of it, and theirs are theirs.
        let mut all = vec![pid];
        let mut at = 0;
        while let Some(parent) = all.get(at) {
            let children = format!("/proc/{parent}/task/{parent}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            at += 1;
        }
        for pid in all {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Where it keeps what is delivered.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The fingerprint of its host key of a kind.
    pub(super) fn fingerprint(&self, kind: &str) -> String {
        let key = self.dir.path().join(format!("host_{kind}.pub"));
        let line = run("ssh-keygen", &["-l", "-E", "sha256", "-f", key.to_str().unwrap()]);
        line.split(' ').nth(1).unwrap().to_owned()
    }

    /// A destination that fits it.
    pub(super) fn destination(&self, name: &str) -> SftpConfig {
        let text = format!(
            "name = {name:?}\nhost = \"127.0.0.1\"\nport = {}\nusername = {:?}\nprivate_key = \"file:{}\"\nhost_keys = \
             [{:?}]\npath = {:?}\n",
            self.port,
            run("id", &["-un"]).trim(),
            self.dir.path().join("client").display(),
            self.fingerprint("ed25519"),
            self.root().to_str().unwrap(),
        );
        toml::from_str(&text).unwrap()
    }

    /// A secret reference to a key that it does not know.
    pub(super) fn stranger(&self) -> String {
        format!("file:{}", self.dir.path().join("stranger").display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
