//! The facts about one logged-in session that every record about it carries.

use dropgate_schemas::{
    account::Account,
    audit::{Action, Actor, AuditEntry, AuditResult},
    id::{InstanceId, SessionId},
    upload::ClientInfo,
};
use std::sync::{Mutex, PoisonError};

/// Who is logged in, from where, with what.
#[derive(Debug)]
pub struct SessionFacts {
    /// The SSH connection.
    pub session: SessionId,
    /// The account as it was at login.
    pub account: Account,
    /// Source address and port.
    pub source: String,
    /// `password`, or the fingerprint of the key.
    pub credential: String,
    /// The gateway that serves it.
    pub instance: InstanceId,
    /// Host and role of that gateway, for people.
    pub node: String,
    /// Identification string of the client; a `vendor-id` request makes it more precise.
    software: Mutex<String>,
}

/// Longest description of a client's software that is kept, in bytes.
const MAX_SOFTWARE: usize = 255;

impl SessionFacts {
    /// Collects the facts. `software` is the client's identification string.
    #[must_use]
    pub fn new(
        session: SessionId,
        account: Account,
        source: String,
        credential: String,
        instance: InstanceId,
        node: String,
        software: &str,
    ) -> Self {
        Self {
            session,
            account,
            source,
            credential,
            instance,
            node,
            software: Mutex::new(printable(software)),
        }
    }

    /// Notes what the client told of itself.
    pub fn set_software(&self, software: &str) {
        *self.software.lock().unwrap_or_else(PoisonError::into_inner) = printable(software);
    }

    /// The client's software.
    #[must_use]
    pub fn software(&self) -> String {
        self.software.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As an upload's record keeps it.
    #[must_use]
    pub fn client(&self) -> ClientInfo {
        ClientInfo {
            session: self.session,
            source: self.source.clone(),
            software: self.software(),
            credential: self.credential.clone(),
        }
    }

    /// A new audit entry about something this session did.
    #[must_use]
    pub fn entry(&self, action: Action, result: AuditResult) -> AuditEntry {
        let actor =
            Actor::Account { id: self.account.name.to_string(), credential: Some(self.credential.clone()) };
        AuditEntry {
            partner: Some(self.account.partner.clone()),
            account: Some(self.account.name.clone()),
            session: Some(self.session),
            source: Some(self.source.clone()),
            node: self.node.clone(),
            ..AuditEntry::new(action, actor, result)
        }
    }
}

/// What a client says of itself, without control characters and cut to a bound.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > MAX_SOFTWARE {
            break;
        }
        out.push(c);
    }
    out
}
