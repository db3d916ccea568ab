//! What happens to connections, as structured facts: for the audit trail, the metrics and the ban score.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dropgate_schemas::account::Account;
use dropgate_schemas::id::SessionId;

use super::auth::Refusal;
use super::{CloseReason, SessionInfo};
use crate::listener::{LimitHit, NegotiatedAlgorithms};

/// A connection that has not logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The connection's id; the session keeps it after login.
    pub id: SessionId,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// The client's identification string, empty if none came. Client text: escape it when printing.
    pub client_software: String,
    /// What the first key exchange agreed on, if it got so far.
    pub algorithms: Option<NegotiatedAlgorithms>,
}

/// How a client tried to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginMethod {
    /// A password.
    Password,
    /// A key with a verified signature; its `SHA256:` fingerprint.
    PublicKey(String),
}

/// One fact.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionFact {
    /// A connection was closed right after accept.
    TurnedAway {
        /// From where.
        peer: SocketAddr,
        /// The limit that it hit.
        limit: LimitHit,
    },
    /// A connection was accepted.
    Connected {
        /// Its id; nothing else of the client is known yet.
        id: SessionId,
        /// From where.
        peer: SocketAddr,
    },
    /// A login succeeded.
    LoginAccepted {
        /// The session.
        session: Arc<SessionInfo>,
        /// The account as read at login.
        account: Box<Account>,
    },
    /// A login with a password or a verified signature was refused. Offers of unknown keys are not reported one by one:
    /// they are in the count of [`SessionFact::Disconnected`].
    LoginRefused {
        /// The connection.
        connection: ConnectionInfo,
        /// The user name as the client sent it, at most 255 bytes. Client text: escape it when printing.
        user: String,
        /// What was tried.
        method: LoginMethod,
        /// Why it was refused. Not told to the client.
        refusal: Refusal,
    },
    /// A connection ended, logged in or not.
    Disconnected {
        /// The connection.
        connection: ConnectionInfo,
        /// The account it was logged in as.
        account: Option<dropgate_schemas::account::AccountName>,
        /// Why it ended.
        reason: CloseReason,
        /// How long it lasted.
        lasted: Duration,
        /// Bytes received on the socket.
        received: u64,
        /// Bytes sent on the socket.
        sent: u64,
        /// Keys that were offered and refused.
        refused_keys: u64,
    },
}

/// Is told every [`SessionFact`], in order per connection.
pub trait SessionObserver: Send + Sync + 'static {
    /// Takes note. Called on connection tasks: must not block or wait, so an implementation that stores puts the fact
    /// into a bounded queue of its own and says what happens when that is full.
    fn record(&self, fact: SessionFact);

    /// Whether there is room for what a new session will do. While not, logins are answered "try again later": none may
    /// go unrecorded.
    fn takes_logins(&self) -> bool {
        true
    }
}

/// Writes facts to the log and nowhere else.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogObserver;

impl SessionObserver for LogObserver {
    fn record(&self, fact: SessionFact) {
        match fact {
            SessionFact::TurnedAway { peer, limit } => {
                tracing::info!(%peer, %limit, "connection turned away");
            }
            SessionFact::Connected { id, peer } => tracing::debug!(session = %id, %peer, "connected"),
            SessionFact::LoginAccepted { session, account } => tracing::info!(
                session = %session.id,
                peer = %session.peer,
                account = %account.name,
                credential = %session.credential,
                client = %session.client_software.escape_debug(),
                "login accepted"
            ),
            SessionFact::LoginRefused { connection, user, method, refusal } => tracing::info!(
                session = %connection.id,
                peer = %connection.peer,
                user = %user.escape_debug(),
                ?method,
                %refusal,
                "login refused"
            ),
            SessionFact::Disconnected { connection, account, reason, lasted, received, sent, .. } => {
                tracing::info!(
                    session = %connection.id,
                    peer = %connection.peer,
                    account = account.as_ref().map_or("", |name| name.as_str()),
                    %reason,
                    ?lasted,
                    received,
                    sent,
                    "disconnected"
                );
            }
        }
    }
}
