//! What happens to connections, for the log, the figures and the audit trail.

use crate::{
    journal::Journal,
    ssh::observer::{ConnectionInfo, LogObserver, LoginMethod, SessionFact, SessionObserver},
};
use dropgate_backends::observe::Counter;
use dropgate_schemas::audit::{Action, Actor, AuditEntry, AuditResult};
use std::sync::Arc;

/// The detail of a login's audit entry that names what stands on SHA-1.
pub const WEAK_ALGORITHMS: &str = "weak_algorithms";
/// Longest user name that is kept of a failed login, in characters.
const MAX_USER: usize = 64;

/// Puts facts into the journal.
pub(super) struct JournalObserver {
    journal: Arc<Journal>,
    node: String,
}

impl JournalObserver {
    pub(super) fn new(journal: Arc<Journal>, node: String) -> Self {
        Self { journal, node }
    }

    fn entry(&self, action: Action, actor: Actor, result: AuditResult) -> AuditEntry {
        AuditEntry { node: self.node.clone(), ..AuditEntry::new(action, actor, result) }
    }

    fn of_connection(
        &self,
        connection: &ConnectionInfo,
        action: Action,
        actor: Actor,
        result: AuditResult,
    ) -> AuditEntry {
        let mut entry = self.entry(action, actor, result);
        entry.session = Some(connection.id);
        entry.source = Some(connection.peer.to_string());
        if !connection.client_software.is_empty() {
            entry.detail.insert("client".into(), connection.client_software.escape_default().to_string());
        }
        if let Some(algorithms) = &connection.algorithms {
            entry.detail.insert("algorithms".into(), describe(algorithms));
        }
        entry
    }
}

fn describe(algorithms: &crate::ssh::NegotiatedAlgorithms) -> String {
    format!("{} {} {} {}", algorithms.kex, algorithms.host_key, algorithms.cipher, algorithms.mac)
}

fn nobody() -> Actor {
    Actor::System { id: "gateway".to_owned() }
}

impl SessionObserver for JournalObserver {
    fn record(&self, fact: SessionFact) {
        match &fact {
            SessionFact::TurnedAway { peer, limit } => {
                Counter::SessionsRefused.one();
                let mut entry = self.entry(Action::SessionConnect, nobody(), AuditResult::Refused);
                // The address without the port: repeats of one source are folded.
                entry.source = Some(peer.ip().to_string());
                entry.reason = Some(limit.to_string());
                self.journal.refuse(entry);
            }
            SessionFact::Connected { id, peer } => {
                Counter::SessionsOpened.one();
                let mut entry = self.entry(Action::SessionConnect, nobody(), AuditResult::Ok);
                // Anybody can connect, so these are folded by source; the login names session and port.
                entry.source = Some(peer.ip().to_string());
                tracing::trace!(session = %id, "connected");
                self.journal.refuse(entry);
            }
            SessionFact::LoginAccepted { session, account } => {
                Counter::LoginsAccepted.one();
                let actor = Actor::Account {
                    id: account.name.to_string(),
                    credential: Some(session.credential.to_string()),
                };
                let mut entry = self.entry(Action::SessionLogin, actor, AuditResult::Ok);
                entry.partner = Some(account.partner.clone());
                entry.account = Some(account.name.clone());
                entry.session = Some(session.id);
                entry.source = Some(session.peer.to_string());
                entry.detail.insert("client".into(), session.client_software.escape_default().to_string());
                if let Some(algorithms) = &session.algorithms {
                    entry.detail.insert("algorithms".into(), describe(algorithms));
                }
                if let Some(signature) = &session.signature {
                    entry.detail.insert("signature".into(), signature.clone());
                }
                let weak: Vec<&str> = session.weak_algorithms().collect();
                if !weak.is_empty() {
                    Counter::LoginsWeak.one();
                    entry.detail.insert(WEAK_ALGORITHMS.into(), weak.join(" "));
                }
                self.journal.note(entry);
            }
            SessionFact::LoginRefused { connection, user, method, refusal } => {
                Counter::LoginsRefused.one();
                let user: String = user.chars().take(MAX_USER).flat_map(char::escape_default).collect();
                let credential = match method {
                    LoginMethod::Password => "password".to_owned(),
                    LoginMethod::PublicKey(fingerprint) => fingerprint.clone(),
                };
                let actor = Actor::Account { id: user.clone(), credential: Some(credential) };
                let mut entry =
                    self.of_connection(connection, Action::SessionLogin, actor, AuditResult::Refused);
                entry.session = None;
                entry.source = Some(connection.peer.ip().to_string());
                entry.subject = Some(user);
                entry.reason = Some(refusal.to_string());
                self.journal.refuse(entry);
            }
            SessionFact::Disconnected {
                connection,
                account,
                reason,
                lasted,
                received,
                sent,
                refused_keys,
            } => {
                let actor = account
                    .as_ref()
                    .map_or_else(nobody, |name| Actor::Account { id: name.to_string(), credential: None });
                let mut entry =
                    self.of_connection(connection, Action::SessionDisconnect, actor, AuditResult::Ok);
                entry.account = account.clone();
                entry.reason = Some(reason.to_string());
                for (name, value) in [
                    ("seconds", lasted.as_secs()),
                    ("received_bytes", *received),
                    ("sent_bytes", *sent),
                    ("refused_keys", *refused_keys),
                ] {
                    entry.detail.insert(name.into(), value.to_string());
                }
                if account.is_some() {
                    self.journal.note(entry);
                } else {
                    entry.session = None;
                    entry.source = Some(connection.peer.ip().to_string());
                    self.journal.refuse(entry);
                }
            }
        }
        LogObserver.record(fact);
    }

    fn takes_logins(&self) -> bool {
        !self.journal.is_full()
    }
}
