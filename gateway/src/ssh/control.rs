//! What the parts of one connection share: its identity, its counters, and the switches that end it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dropgate_schemas::account::AccountName;
use dropgate_schemas::id::SessionId;
use russh::Disconnect;
use tokio_util::sync::CancellationToken;

use crate::listener::{ConnectionPermit, LimitHit, NegotiatedAlgorithms};

/// Why a connection ended. The first reason given counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client closed it.
    #[error("the client closed the connection")]
    ClosedByClient,
    /// It never sent a byte: a port check, typically a load balancer's.
    #[error("connected and closed without a word")]
    Probe,
    /// No identification string in time.
    #[error("no SSH identification string in time")]
    NoIdentification,
    /// What came was not SSH, or broke its rules.
    #[error("protocol error: {0}")]
    ProtocolError(String),
    /// More bytes or packets before login than a login needs.
    #[error("too much data before login")]
    FloodBeforeLogin,
    /// Not logged in within the grace time.
    #[error("no login within the grace time")]
    LoginGrace,
    /// The tries of this connection are used up.
    #[error("too many failed logins")]
    TooManyTries,
    /// A session limit was hit at login.
    #[error("{0}")]
    Limit(LimitHit),
    /// Logins can't be checked at the moment.
    #[error("logins can't be checked at the moment, try again later")]
    LoginUnavailable,
    /// No request for a long time.
    #[error("no request for too long")]
    Idle,
    /// The client no longer answers.
    #[error("the client no longer answers")]
    Unresponsive,
    /// The client stopped reading: replies can't be sent.
    #[error("the client does not read its replies")]
    NotReading,
    /// The engine waited too long for storage.
    #[error("storage did not take the data in time")]
    StorageStalled,
    /// The account was disabled, removed, or lost the credential.
    #[error("the account was disabled, removed or changed")]
    Revoked,
    /// The server shuts down.
    #[error("the server is shutting down, connect again in a moment")]
    ShuttingDown,
    /// The network failed.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl CloseReason {
    /// Code of the DISCONNECT message (RFC 4253 section 11.1).
    pub(crate) fn code(&self) -> Disconnect {
        match self {
            Self::ProtocolError(_) | Self::FloodBeforeLogin | Self::NoIdentification => {
                Disconnect::ProtocolError
            }
            Self::TooManyTries => Disconnect::NoMoreAuthMethodsAvailable,
            Self::Limit(_) => Disconnect::TooManyConnections,
            Self::LoginUnavailable => Disconnect::ServiceNotAvailable,
            Self::Unresponsive | Self::Lost(_) => Disconnect::ConnectionLost,
            Self::ClosedByClient
            | Self::Probe
            | Self::LoginGrace
            | Self::Idle
            | Self::NotReading
            | Self::StorageStalled
            | Self::Revoked
            | Self::ShuttingDown => Disconnect::ByApplication,
        }
    }

    /// How long the client has to take the DISCONNECT message and hang up before the connection is killed.
    pub(crate) fn grace(&self) -> Duration {
        match self {
            // A revoked account is to be out within a second of the change, 500 ms of which may pass before we see it.
            Self::Revoked => Duration::from_millis(200),
            Self::NotReading
            | Self::Unresponsive
            | Self::StorageStalled
            | Self::FloodBeforeLogin
            | Self::ShuttingDown => Duration::from_secs(1),
            Self::ClosedByClient
            | Self::Probe
            | Self::NoIdentification
            | Self::ProtocolError(_)
            | Self::LoginGrace
            | Self::TooManyTries
            | Self::Limit(_)
            | Self::LoginUnavailable
            | Self::Idle
            | Self::Lost(_) => Duration::from_secs(3),
        }
    }
}

/// State shared by the stream, the russh handler, the channels and the supervisor of one connection.
#[derive(Debug)]
pub(crate) struct SessionControl {
    pub(crate) id: SessionId,
    pub(crate) peer: SocketAddr,
    pub(crate) opened: Instant,
    kill: CancellationToken,
    closing: CancellationToken,
    draining: CancellationToken,
    reason: OnceLock<CloseReason>,
    authenticated: AtomicBool,
    account: OnceLock<AccountName>,
    client_software: OnceLock<String>,
    algorithms: OnceLock<NegotiatedAlgorithms>,
    received: AtomicU64,
    sent: AtomicU64,
    refused_keys: AtomicU64,
    /// Milliseconds after `opened`.
    last_request: AtomicU64,
    /// Milliseconds after `opened` since a write is blocked, plus one; 0 while none is.
    write_blocked: AtomicU64,
    busy: AtomicUsize,
    unsent: AtomicUsize,
    permit: Mutex<Option<ConnectionPermit>>,
}

impl SessionControl {
    pub(crate) fn new(peer: SocketAddr, permit: ConnectionPermit, draining: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            id: SessionId::new(),
            peer,
            opened: Instant::now(),
            kill: CancellationToken::new(),
            closing: CancellationToken::new(),
            draining,
            reason: OnceLock::new(),
            authenticated: AtomicBool::new(false),
            account: OnceLock::new(),
            client_software: OnceLock::new(),
            algorithms: OnceLock::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            refused_keys: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            write_blocked: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            permit: Mutex::new(Some(permit)),
        })
    }

    /// Cancelled when the connection is to end at once.
    pub(crate) fn kill_token(&self) -> CancellationToken {
        self.kill.clone()
    }

    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Cancelled when the connection is to end with a DISCONNECT message.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Keeps the reason, if it is the first, without ending anything.
    pub(crate) fn note(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
    }

    /// Asks the supervisor to end the connection in good order. Does not wait.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.note(reason);
        self.closing.cancel();
    }

    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get()
    }

    /// Turns the connection into a session of `account`, if the limits allow it.
    pub(crate) fn promote(&self, account: &AccountName) -> Result<(), LimitHit> {
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        match permit.as_mut() {
            Some(permit) => permit.promote(account.as_str()),
            None => Ok(()),
        }
    }

    /// Gives the connection's place back.
    pub(crate) fn release_permit(&self) {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn set_authenticated(&self, account: AccountName) {
        let _ = self.account.set(account);
        self.touch();
        self.authenticated.store(true, Ordering::Release);
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Acquire)
    }

    pub(crate) fn account(&self) -> Option<&AccountName> {
        self.account.get()
    }

    pub(crate) fn set_client_software(&self, software: &str) {
        let _ = self.client_software.set(software.to_owned());
    }

    pub(crate) fn client_software(&self) -> &str {
        self.client_software.get().map_or("", String::as_str)
    }

    pub(crate) fn set_algorithms(&self, algorithms: NegotiatedAlgorithms) {
        let _ = self.algorithms.set(algorithms);
    }

    pub(crate) fn algorithms(&self) -> Option<&NegotiatedAlgorithms> {
        self.algorithms.get()
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused_key(&self) {
        self.refused_keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused_keys(&self) -> u64 {
        self.refused_keys.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request arrived: the session is not idle.
    pub(crate) fn touch(&self) {
        self.last_request.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last_request.load(Ordering::Relaxed)))
    }

    pub(crate) fn write_blocked(&self) {
        let now = self.now().saturating_add(1);
        let _ = self.write_blocked.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn write_went_through(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.write_blocked.store(0, Ordering::Relaxed);
    }

    /// For how long the client has not taken a byte that we try to send.
    pub(crate) fn write_blocked_for(&self) -> Duration {
        match self.write_blocked.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now().saturating_sub(since - 1)),
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    pub(crate) fn add_unsent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn remove_unsent(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Bytes of replies that russh does not have yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Acquire)
    }
}

/// A session's life as its engine sees it.
#[derive(Clone, Debug)]
pub struct Lifecycle(pub(crate) Arc<SessionControl>);

impl Lifecycle {
    /// Marks the session as busy (an open upload, a commit in flight) until the guard drops. A draining server ends
    /// sessions that are not busy at once, and the others as soon as they are done.
    #[must_use]
    pub fn busy(&self) -> BusyGuard {
        self.0.busy.fetch_add(1, Ordering::AcqRel);
        BusyGuard(Arc::clone(&self.0))
    }

    /// Whether the server shuts down: begin nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Completes when the server begins to shut down.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Ends the whole session, for example because storage stays away.
    pub fn end_session(&self, reason: CloseReason) {
        self.0.close(reason);
    }
}

/// Keeps a session busy; see [`Lifecycle::busy`].
#[derive(Debug)]
pub struct BusyGuard(Arc<SessionControl>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let was = self.0.busy.fetch_sub(1, Ordering::AcqRel);
        // Not left to the next look: a client that sends one file after the other is idle for moments only.
        if was == 1 && self.0.draining.is_cancelled() {
            self.0.close(CloseReason::ShuttingDown);
        }
    }
}
