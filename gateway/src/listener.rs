//! The door: accepts connections within limits and hands each to a supervised SSH session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dropgate_backends::CredentialStore;
use russh::SshId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ssh::auth::Authenticator;
use crate::ssh::hostkey::{HostKeyError, HostKeys};
use crate::ssh::observer::{SessionFact, SessionObserver};
use crate::ssh::watch::AccountWatch;
use crate::ssh::{Accounts, EngineFactory, KnownAccounts, Shared};

mod config;
mod connection;
mod kexinit;
mod limits;
mod source;
mod stream;

pub use config::{ListenerConfig, MoreListenerConfig, SettingError};
pub use kexinit::NegotiatedAlgorithms;
pub use limits::{LimitHit, LimitsConfig};
pub use source::Source;

pub(crate) use limits::{Admission, ConnectionPermit};

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
    #[error("can't listen on {address}: {source}. Is another server using the port?")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting that can't work.
    #[error(transparent)]
    Setting(#[from] SettingError),
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
    accounts: Arc<KnownAccounts>,
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
        let admission = Admission::new(config.limits.clone());
        Self::bind_with(config, with, admission).await
    }

    /// One more address; what comes in there counts against the limits of this listener, too.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn bind_beside(
        &self,
        config: ListenerConfig,
        with: ListenerDependencies,
    ) -> Result<Self, ListenerError> {
        Self::bind_with(config, with, Arc::clone(&self.admission)).await
    }

    async fn bind_with(
        config: ListenerConfig,
        with: ListenerDependencies,
        admission: Arc<Admission>,
    ) -> Result<Self, ListenerError> {
        let russh = russh_config(&config, &with.host_keys)?;
        let address = config.listen;
        let bound = TcpListener::bind(address).await;
        let socket = bound.map_err(|source| ListenerError::Bind { address, source })?;
        let local = socket.local_addr().map_err(|source| ListenerError::Bind { address, source })?;
        let tracker = TaskTracker::new();
        let remember = Duration::from_secs(config.auth.remember_seconds);
        let accounts = Arc::new(KnownAccounts::new(with.accounts, remember, config.auth.deadline()));
        let shared = Shared {
            authenticator: Authenticator::new(
                &config.auth,
                config.ssh.algorithms,
                with.credentials,
                Arc::clone(&accounts),
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
            admission,
            config: Arc::new(config),
            russh,
            shared: Arc::new(shared),
            accounts,
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
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(problem.into());
    }
    let ssh = &config.ssh;
    let rekey = usize::try_from(ssh.rekey_bytes).unwrap_or(usize::MAX);
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
        max_auth_attempts: usize::try_from(config.auth.tries.saturating_add(config.auth.key_offers))
            .unwrap_or(usize::MAX)
            .saturating_add(2),
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
