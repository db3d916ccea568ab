//! The door: accepts connections within limits and hands each to a supervised SSH session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dropgate_backends::CredentialStore;
use russh::SshId;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ssh::auth::Authenticator;
use crate::ssh::hostkey::{HostKeyError, HostKeys};
use crate::ssh::observer::{SessionFact, SessionObserver};
use crate::ssh::watch::AccountWatch;
use crate::ssh::{Accounts, AuthConfig, EngineFactory, Shared, SshConfig};

mod connection;
mod kexinit;
mod limits;
mod source;
mod stream;

pub use kexinit::NegotiatedAlgorithms;
pub use limits::{LimitHit, LimitsConfig};
pub use source::Source;

pub(crate) use limits::{Admission, ConnectionPermit};

/// One listening address with everything that guards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerConfig {
    /// Address and port; port 0 takes a free one. Default `127.0.0.1:2222`.
    pub listen: SocketAddr,
    /// Caps on connections and sessions.
    pub limits: LimitsConfig,
    /// Identification, algorithms, channels.
    pub ssh: SshConfig,
    /// Tries, delays, deadlines of logins.
    pub auth: AuthConfig,
    /// Seconds within which the client's identification string must arrive. Default 10.
    pub identification_seconds: u64,
    /// Seconds from accept within which the login must succeed, key exchange included. Default 60.
    pub login_grace_seconds: u64,
    /// Bytes that a client may send before its login succeeded. Default 262144.
    pub before_login_bytes: u64,
    /// Packets that a client may send before its login succeeded. Default 100.
    pub before_login_packets: u64,
    /// Seconds without a request after which a session is closed. Default 900.
    pub idle_seconds: u64,
    /// Seconds of silence after which the client is asked whether it still lives. Default 30.
    pub keepalive_seconds: u64,
    /// Unanswered questions after which a session is closed. Default 3.
    pub keepalive_tries: usize,
    /// Seconds that an engine may take to accept data before the session is closed; longer than the engine's own patience
    /// with storage. Default 45.
    pub storage_stall_seconds: u64,
    /// Seconds that requests in flight get to finish after their client hung up. Default 60.
    pub finish_seconds: u64,
    /// Seconds that busy sessions get at shutdown before they are ended. Default 30.
    pub drain_seconds: u64,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 2222)),
            limits: LimitsConfig::default(),
            ssh: SshConfig::default(),
            auth: AuthConfig::default(),
            identification_seconds: 10,
            login_grace_seconds: 60,
            before_login_bytes: 256 * 1024,
            before_login_packets: 100,
            idle_seconds: 900,
            keepalive_seconds: 30,
            keepalive_tries: 3,
            storage_stall_seconds: 45,
            finish_seconds: 60,
            drain_seconds: 30,
        }
    }
}

/// What a listener works with.
#[derive(Clone)]
pub struct ListenerDependencies {
    /// Verifiers of logins.
    pub credentials: Arc<dyn CredentialStore>,
    /// Accounts, read at login and watched over live sessions: `Arc::new(state_store)`.
    pub accounts: Arc<dyn Accounts>,
    /// Makes the engine of each SFTP channel.
    pub engines: Arc<dyn EngineFactory>,
    /// Is told what happens.
    pub observer: Arc<dyn SessionObserver>,
    /// The server's identity.
    pub host_keys: HostKeys,
}

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The address can't be listened on.
    #[error(
        "can't listen on {address}: {source}. Is another server using the port? Set gateway.listen to change it"
    )]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting that can't work.
    #[error("{key} = {value}: {why}")]
    Setting {
        /// The key below the listener's section.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it and what to write instead.
        why: &'static str,
    },
    /// No usable host key.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
}

/// A bound address, not accepting yet.
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    config: Arc<ListenerConfig>,
    russh: Arc<russh::server::Config>,
    admission: Arc<Admission>,
    shared: Arc<Shared>,
    accounts: Arc<dyn Accounts>,
    tracker: TaskTracker,
}

/// How long accept rests when the process or the host is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// At most one log line about accept errors in this time.
const ACCEPT_COMPLAINT: Duration = Duration::from_secs(10);

impl Listener {
    /// Checks the settings and binds the address. Must be called inside the async runtime.
    ///
    /// # Errors
    /// [`ListenerError`] names the setting or address and what to do.
    pub async fn bind(config: ListenerConfig, with: ListenerDependencies) -> Result<Self, ListenerError> {
        let russh = russh_config(&config, &with.host_keys)?;
        let address = config.listen;
        let bound = TcpListener::bind(address).await;
        let socket = bound.map_err(|source| ListenerError::Bind { address, source })?;
        let local = socket.local_addr().map_err(|source| ListenerError::Bind { address, source })?;
        let tracker = TaskTracker::new();
        let shared = Shared {
            authenticator: Authenticator::new(
                &config.auth,
                config.ssh.algorithms,
                with.credentials,
                Arc::clone(&with.accounts),
            ),
            engines: with.engines,
            observer: with.observer,
            watch: AccountWatch::default(),
            home: crate::ssh::TaskHome {
                tracker: tracker.clone(),
                runtime: tokio::runtime::Handle::current(),
                finish_within: Duration::from_secs(config.finish_seconds),
            },
            attempts: crate::ssh::AttemptLimits {
                passwords: config.auth.password_tries,
                all: config.auth.tries,
                key_offers: config.auth.key_offers,
            },
            failure_delay: Duration::from_millis(config.auth.failure_delay_ms),
            channels: config.ssh.channels_per_connection,
            outbox_bytes: config.ssh.outbox_bytes,
            storage_stall: Duration::from_secs(config.storage_stall_seconds),
        };
        Ok(Self {
            socket,
            local,
            admission: Admission::new(config.limits.clone()),
            config: Arc::new(config),
            russh,
            shared: Arc::new(shared),
            accounts: with.accounts,
            tracker,
        })
    }

    /// The bound address, with the port that was taken for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts until `shutdown`, then drains: sessions without work in progress are closed at once, the others when
    /// they are done or `drain_seconds` are over. Returns when the last connection and its engines have ended.
    pub async fn serve(self, shutdown: CancellationToken) {
        let stop_watch = CancellationToken::new();
        let shared = Arc::clone(&self.shared);
        let (accounts, stopped) = (Arc::clone(&self.accounts), stop_watch.clone());
        let watch = tokio::spawn(async move { shared.watch.run(accounts, stopped).await });
        self.accept_until(&shutdown).await;
        drop(self.socket);
        self.tracker.close();
        self.tracker.wait().await;
        stop_watch.cancel();
        let _ = watch.await;
    }

    async fn accept_until(&self, shutdown: &CancellationToken) {
        let places =
            Arc::new(Semaphore::new(self.admission.open_connections_max().min(Semaphore::MAX_PERMITS)));
        let mut complained: Option<Instant> = None;
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => return,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let Some(supervised) = self.admit(socket, peer, shutdown) else { continue };
                    self.tracker.spawn(async move {
                        supervised.run().await;
                        drop(place);
                    });
                }
                // No error of one accept is a reason to stop: the connection may be gone already (ECONNABORTED), or
                // descriptors may be short for a while (EMFILE).
                Err(error) => {
                    if complained.is_none_or(|last| last.elapsed() > ACCEPT_COMPLAINT) {
                        complained = Some(Instant::now());
                        tracing::error!(%error, listen = %self.local, "accept failed, trying again");
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(ACCEPT_REST) => {}
                    }
                }
            }
        }
    }

    fn admit(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        shutdown: &CancellationToken,
    ) -> Option<connection::Connection> {
        match self.admission.admit(peer.ip(), Instant::now(), rand::random::<f64>()) {
            Ok(permit) => Some(connection::Connection::new(
                socket,
                peer,
                permit,
                Arc::clone(&self.config),
                Arc::clone(&self.russh),
                Arc::clone(&self.shared),
                shutdown.clone(),
            )),
            Err(limit) => {
                // A line before the identification string is allowed (RFC 4253 section 4.2), and OpenSSH shows it.
                let _ = socket.try_write(b"Too many connections, try again later\r\n");
                self.shared.observer.record(SessionFact::TurnedAway { peer, limit });
                None
            }
        }
    }
}

fn russh_config(
    config: &ListenerConfig,
    keys: &HostKeys,
) -> Result<Arc<russh::server::Config>, ListenerError> {
    let ssh = &config.ssh;
    let printable = |c: char| c.is_ascii_graphic() && c != '-';
    if ssh.ident.is_empty() || ssh.ident.len() > 200 || !ssh.ident.chars().all(printable) {
        return Err(ListenerError::Setting {
            key: "ssh.ident",
            value: format!("{:?}", ssh.ident),
            why: "write 1 to 200 printable ASCII characters without spaces and `-`, such as Dropgate_1.0",
        });
    }
    let rekey = usize::try_from(ssh.rekey_bytes).unwrap_or(usize::MAX);
    if !(1 << 20..=1 << 30).contains(&rekey) {
        return Err(ListenerError::Setting {
            key: "ssh.rekey_bytes",
            value: ssh.rekey_bytes.to_string(),
            why: "write 1048576 (1 MiB) to 1073741824 (1 GiB)",
        });
    }
    if !(64 << 10..=64 << 20).contains(&ssh.window_bytes) {
        return Err(ListenerError::Setting {
            key: "ssh.window_bytes",
            value: ssh.window_bytes.to_string(),
            why: "write 65536 (64 KiB) to 67108864 (64 MiB)",
        });
    }
    let keepalive = (config.keepalive_seconds > 0).then(|| Duration::from_secs(config.keepalive_seconds));
    Ok(Arc::new(russh::server::Config {
        server_id: SshId::Standard(format!("SSH-2.0-{}", ssh.ident).into()),
        methods: russh::MethodSet::from(
            [russh::MethodKind::PublicKey, russh::MethodKind::Password].as_slice(),
        ),
        // The handler delays by itself what is to be delayed: russh would delay every refused key offer, too.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // The handler counts. This one is the stop for requests that never reach it, such as unknown methods.
        max_auth_attempts: usize::try_from(config.auth.tries + config.auth.key_offers).unwrap_or(usize::MAX),
        keys: keys.for_profile(ssh.algorithms)?,
        certificates: Vec::new(),
        limits: russh::Limits::new(rekey, rekey, Duration::from_secs(3600)),
        window_size: ssh.window_bytes,
        maximum_packet_size: 65_535,
        channel_buffer_size: 1,
        event_buffer_size: 10,
        preferred: ssh.algorithms.preferred(),
        // Ours: russh's restarts with every packet, and is parked together with a parked session.
        inactivity_timeout: None,
        keepalive_interval: keepalive,
        keepalive_max: config.keepalive_tries,
        nodelay: true,
    }))
}

#[cfg(test)]
pub(crate) fn test_control() -> Arc<crate::ssh::SessionControl> {
    let admission = Admission::new(LimitsConfig::default());
    let peer = SocketAddr::from(([127, 0, 0, 1], 4242));
    let permit = admission.admit(peer.ip(), Instant::now(), 0.99).unwrap();
    crate::ssh::SessionControl::new(peer, permit, CancellationToken::new())
}
