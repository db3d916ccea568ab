//! A listener on port 0 with its stores, engines and recorded facts, and ways to connect to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use argon2::{Argon2, Params, PasswordHasher as _, Version};
use dropgate_gateway::listener::{Listener, ListenerConfig, ListenerDependencies};
use dropgate_gateway::ssh::CloseReason;
use dropgate_gateway::ssh::hostkey::{HostKey, HostKeyKind, HostKeys};
use dropgate_gateway::ssh::observer::{SessionFact, SessionObserver};
use dropgate_schemas::account::{Credentials, PublicKey as StoredKey};
use dropgate_schemas::time::Timestamp;
use russh::client;
use russh::keys::ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engines::{Behaviour, Engines, Factory};
use crate::stores::Stores;

/// The longest that any test waits for something that is to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const PASSWORD: &str = "correct horse";

static HOST_KEY: LazyLock<HostKey> = LazyLock::new(|| HostKey::generate(HostKeyKind::Ed25519).unwrap());
// Cheaper than real ones: the cost is in the hash, and hundreds of logins are not about it.
static PASSWORD_HASH: LazyLock<String> = LazyLock::new(|| {
    let cheap = Params::new(64, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, cheap);
    argon2.hash_password(PASSWORD.as_bytes()).unwrap().to_string()
});
static RUSSH_KEY: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap());

#[derive(Default)]
pub(crate) struct Recorder {
    facts: Mutex<Vec<SessionFact>>,
    changed: Notify,
    pub(crate) full: AtomicBool,
}

impl SessionObserver for Recorder {
    fn record(&self, fact: SessionFact) {
        self.facts.lock().unwrap().push(fact);
        self.changed.notify_waiters();
    }

    fn takes_logins(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stores: Arc<Stores>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) directory: tempfile::TempDir,
    serving: Option<JoinHandle<()>>,
}

/// A key of an account, as the stores keep it.
pub(crate) fn stored(public: &PublicKey) -> StoredKey {
    StoredKey {
        key: public.to_openssh().unwrap(),
        fingerprint: public.fingerprint(HashAlg::Sha256).to_string(),
        comment: String::new(),
        from: Vec::new(),
        expires_at: None,
        added_at: Timestamp::now(),
    }
}

pub(crate) fn russh_key() -> Arc<PrivateKey> {
    Arc::new(RUSSH_KEY.clone())
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::start_with(behaviour, |_| {}).await
    }

    pub(crate) async fn start_with(behaviour: Behaviour, change: impl FnOnce(&mut ListenerConfig)) -> Self {
        Self::start_with_keys(behaviour, HostKeys::from_keys(vec![HOST_KEY.clone()]), change).await
    }

    pub(crate) async fn start_with_keys(
        behaviour: Behaviour,
        host_keys: HostKeys,
        change: impl FnOnce(&mut ListenerConfig),
    ) -> Self {
        let stores = Arc::new(Stores::default());
        let engines = Engines::new(behaviour);
        let recorder = Arc::new(Recorder::default());
        let mut config = ListenerConfig { listen: ([127, 0, 0, 1], 0).into(), ..ListenerConfig::default() };
        config.auth.failure_delay_ms = 50;
        change(&mut config);
        let listener = Listener::bind(
            config,
            ListenerDependencies {
                credentials: Arc::clone(&stores) as _,
                accounts: Arc::clone(&stores) as _,
                engines: Arc::new(Factory(Arc::clone(&engines))),
                observer: Arc::clone(&recorder) as _,
                host_keys,
            },
        )
        .await
        .unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(shutdown.clone()));
        let directory = tempfile::tempdir().unwrap();
        stores.put_account(
            "alice",
            Credentials {
                account: "alice".parse().unwrap(),
                password_hash: Some(PASSWORD_HASH.clone()),
                public_keys: vec![stored(RUSSH_KEY.public_key())],
            },
        );
        Self { address, stores, engines, recorder, shutdown, directory, serving: Some(serving) }
    }

    /// Shuts down and waits until everything has ended.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().unwrap();
        tokio::time::timeout(PATIENCE, serving).await.expect("serve() ends after shutdown").unwrap();
        assert_eq!(self.engines.live.load(Ordering::SeqCst), 0, "engines left");
        assert!(self.engines.violations.lock().unwrap().is_empty(), "{:?}", self.engines.violations);
    }

    pub(crate) fn facts(&self) -> Vec<SessionFact> {
        self.recorder.facts.lock().unwrap().clone()
    }

    /// Waits for a fact that `pick` takes.
    pub(crate) async fn fact<T>(&self, mut pick: impl FnMut(&SessionFact) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.recorder.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(picked) = self.facts().iter().find_map(&mut pick) {
                    return picked;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(picked) => picked,
            Err(_) => panic!("the fact did not come; there are {:#?}", self.facts()),
        }
    }

    /// Waits for the first end of a connection that was more than a probe.
    pub(crate) async fn end_of_connection(&self) -> CloseReason {
        self.fact(|fact| match fact {
            SessionFact::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the engines are in a state that `good` accepts.
    pub(crate) async fn engines_until(&self, what: &str, good: impl Fn(&Engines) -> bool) {
        let waiting = async {
            loop {
                let changed = self.engines.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if good(&self.engines) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("engines: {what} did not happen"));
    }

    /// Makes a user key with ssh-keygen and gives it to the account.
    pub(crate) async fn user_key(
        &self,
        account: &str,
        arguments: &[&str],
        adjust: impl FnOnce(&mut StoredKey),
    ) -> PathBuf {
        let path = self.directory.path().join(format!("key-{account}-{}", arguments.join("-")));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-f"])
            .arg(&path)
            .args(arguments)
            .status()
            .await
            .unwrap();
        assert!(made.success());
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let mut key = stored(&PublicKey::from_openssh(&public).unwrap());
        adjust(&mut key);
        self.stores.put_account(
            account,
            Credentials {
                account: account.parse().unwrap(),
                password_hash: Some(PASSWORD_HASH.clone()),
                public_keys: vec![key],
            },
        );
        path
    }

    /// An OpenSSH program (`ssh`, `sftp`) set up for this server, without any configuration of the machine.
    pub(crate) fn openssh(&self, program: &str, key: Option<&Path>) -> Command {
        let mut command = Command::new(program);
        let known_hosts = self.directory.path().join("known_hosts");
        std::fs::write(&known_hosts, HOST_KEY.known_hosts_line("127.0.0.1", self.address.port()) + "\n")
            .unwrap();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.directory.path())
            .args(["-F", "none"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=20"])
            .args([if program == "sftp" { "-P" } else { "-p" }, &self.address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match key {
            Some(key) => {
                command.args(["-o", "BatchMode=yes", "-i"]).arg(key);
            }
            None => {
                command.args(["-o", "PreferredAuthentications=password,keyboard-interactive"]);
            }
        }
        command
    }

    /// Lets an OpenSSH program answer password prompts.
    pub(crate) fn with_password(&self, command: &mut Command, password: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let script = self.directory.path().join("askpass");
        std::fs::write(&script, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        command.env("SSH_ASKPASS", script).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
    }

    /// A russh client connected to `address` (the server, or a proxy before it), not logged in.
    pub(crate) async fn connect_to(
        &self,
        address: SocketAddr,
        config: client::Config,
    ) -> client::Handle<AnyHost> {
        client::connect(Arc::new(config), address, AnyHost).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> client::Handle<AnyHost> {
        self.connect_to(self.address, client::Config::default()).await
    }

    /// A russh client logged in as alice.
    pub(crate) async fn logged_in(&self) -> client::Handle<AnyHost> {
        let mut client = self.connect().await;
        self.log_in(&mut client).await;
        client
    }

    pub(crate) async fn log_in(&self, client: &mut client::Handle<AnyHost>) {
        let key = russh::keys::PrivateKeyWithHashAlg::new(russh_key(), None);
        assert!(client.authenticate_publickey("alice", key).await.unwrap().success());
    }

    /// A channel of a logged-in client with the subsystem started.
    pub(crate) async fn sftp_channel(&self, client: &client::Handle<AnyHost>) -> russh::Channel<client::Msg> {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.request_subsystem(true, "sftp").await.unwrap();
        match channel.wait().await {
            Some(russh::ChannelMsg::Success) => channel,
            other => panic!("the subsystem was not started: {other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Trusts whatever key comes: host keys are the business of the OpenSSH tests.
pub(crate) struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}
