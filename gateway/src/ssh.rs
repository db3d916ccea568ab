//! The SSH side of a session: transport and login by russh, our rules around it, and the boundary to the SFTP engine.
//!
//! russh re-opens a channel's window when data arrives, not when it is consumed, and runs a whole session on one task.
//! Two rules keep that from becoming a hang (see [`ChannelEngine::feed`] and [`Outbox`]):
//! intake may wait for storage, never for output; and replies are queued in memory up to a cap, never awaited.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use dropgate_schemas::account::Account;
use dropgate_schemas::id::SessionId;
use dropgate_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

mod accounts;
mod algorithms;
mod attempts;
pub(crate) mod auth;
mod channel;
mod control;
mod handler;
pub mod hostkey;
mod network;
pub mod observer;
mod outbox;
pub(crate) mod watch;

pub use accounts::Accounts;
pub(crate) use accounts::KnownAccounts;
pub use algorithms::AlgorithmProfile;
pub use auth::{AuthConfig, Credential, Refusal};
pub use control::{BusyGuard, CloseReason, Lifecycle};
pub use outbox::{Outbox, OutboxError};

pub(crate) use attempts::AttemptLimits;
pub(crate) use channel::TaskHome;
pub(crate) use control::SessionControl;
pub(crate) use handler::{ClientHandler, HandlerError, Shared};

pub use crate::listener::NegotiatedAlgorithms;

/// How a listener speaks SSH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshConfig {
    /// Software name and version in the identification string, after `SSH-2.0-`. Printable ASCII without spaces or `-`.
    /// Default `Dropgate_` and the version. WinSCP asks servers that call themselves `OpenSSH`, `ProFTPD` or `Bitvise`
    /// for SFTP version 6: use none of these words.
    pub ident: String,
    /// The set of algorithms: `modern`, `compatible` or `legacy`. Default `modern`.
    pub algorithms: AlgorithmProfile,
    /// Bytes in one direction after which keys are exchanged anew, at most 1 GiB. Default 1 GiB.
    pub rekey_bytes: u32,
    /// Receive window of a channel in bytes; the most a client sends without an acknowledgement. Default 2 MiB; more
    /// for long round trips.
    pub window_bytes: u32,
    /// The most channels open at once on a connection. Default 10.
    pub channels_per_connection: usize,
    /// Replies waiting in memory for one channel, in bytes; a client that lets more pile up is disconnected.
    /// Default 4 MiB.
    pub outbox_bytes: usize,
}

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            ident: concat!("Dropgate_", env!("CARGO_PKG_VERSION")).to_owned(),
            algorithms: AlgorithmProfile::default(),
            rekey_bytes: 1 << 30,
            window_bytes: 2 * 1024 * 1024,
            channels_per_connection: 10,
            outbox_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Facts about a session, fixed at login. Goes into records and audit entries.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    /// The connection's id.
    pub id: SessionId,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// The client's identification string, such as `SSH-2.0-WinSCP_release_6.3`. Client text: escape it when printing.
    pub client_software: String,
    /// What the first key exchange agreed on.
    pub algorithms: Option<NegotiatedAlgorithms>,
    /// What the client proved at login.
    pub credential: Credential,
    /// How it signed, if it logged in with a key: `rsa-sha2-512` and the like.
    pub signature: Option<String>,
    /// When the login succeeded.
    pub logged_in_at: Timestamp,
}

impl SessionInfo {
    /// The algorithms of this session that stand on SHA-1: what only a `legacy` listener offers.
    pub fn weak_algorithms(&self) -> impl Iterator<Item = &str> {
        let negotiated = self.algorithms.iter().flat_map(NegotiatedAlgorithms::names);
        negotiated.chain(self.signature.as_deref()).filter(|name| algorithms::is_weak(name))
    }
}

/// The engine can't go on with this channel: a framing error, or it was told to stop. The channel is closed; nothing
/// that arrives later is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SFTP engine closed the channel")]
pub struct EngineClosed;

/// Why a channel's engine is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client sent EOF: no more requests follow, but it still reads. Finish what is in flight and answer it; the
    /// outbox is drained, then exit status 0 and the channel's close are sent.
    Eof,
    /// The client closed the channel. Nothing can be answered any more.
    ChannelClosed,
    /// `feed` returned [`EngineClosed`]. What is in the outbox is still sent, then exit status 1 and the close.
    EngineClosed,
    /// The connection is gone, or was never ended properly.
    ConnectionLost,
    /// We ended the session: a limit, a revoked account, shutdown.
    SessionEnded,
}

/// What the SSH side needs from an SFTP engine: one per channel with the `sftp` subsystem.
#[async_trait]
pub trait ChannelEngine: Send {
    /// Takes the next bytes of the channel's stream, in order, cut anywhere; never empty.
    ///
    /// This runs on the session's only task, so while it waits, nothing of the whole connection moves: no other
    /// channel, no keepalive, no rekey, **and no output**. It may therefore wait for the storage budget only, for under
    /// 40 seconds, and never for anything that needs the client to read (such as room in the [`Outbox`]).
    ///
    /// The future may be dropped at any await when the session is killed; then only [`ChannelEngine::end`] follows.
    async fn feed(&mut self, bytes: &[u8]) -> Result<(), EngineClosed>;

    /// Ends the engine, exactly once, as its last call; runs on a task of its own and may take up to
    /// `ListenerConfig::finish_seconds` for requests in flight. Dropped after that.
    async fn end(&mut self, why: EndReason);
}

/// Everything an engine gets from its session.
#[derive(Debug)]
pub struct EngineContext {
    /// Facts about the session.
    pub session: Arc<SessionInfo>,
    /// The account as it was read at login.
    pub account: Account,
    /// Where replies go.
    pub outbox: Outbox,
    /// Draining, busyness and the end of the session.
    pub lifecycle: Lifecycle,
}

/// Makes an engine for each channel on which a client starts the `sftp` subsystem.
pub trait EngineFactory: Send + Sync + 'static {
    /// A new engine. Called on the session's task: does no I/O and does not block.
    fn open(&self, context: EngineContext) -> Box<dyn ChannelEngine>;
}
