//! What operators review: who did what to which upload, from where, with what result. Append-only; the canonical bytes
//! (RFC 8785 JSON) are made once and stored as they are.

use crate::{
    account::{AccountName, PartnerName},
    digest::Sha256,
    id::{AuditId, SessionId, UploadId},
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the software that writes entries.
pub const SOFTWARE: &str = concat!("dropgate/", env!("CARGO_PKG_VERSION"));

/// One entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// The wall clock of the node: evidence only, order is the order of the store.
    pub at: Timestamp,
    /// What happened, such as `upload.accept`. The list is [`Action`].
    pub action: Action,
    /// Who did it.
    pub actor: Actor,
    /// How it ended.
    pub result: AuditResult,
    /// Partner concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<PartnerName>,
    /// Account concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// SSH connection, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Source address and port, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The request as the client sent it, such as `OPEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What it was about: a path, an account, a destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Upload concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadId>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The short reference that the client was shown (`7F3K2Q`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// State before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// State after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Other facts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
    /// How many alike it stands for; 1 unless repeats were folded.
    pub count: u64,
    /// Host and role that wrote it.
    pub node: String,
    /// Software that wrote it.
    pub software: String,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// A TCP connection was accepted or refused.
    #[serde(rename = "session.connect")]
    SessionConnect,
    /// A login was accepted or refused.
    #[serde(rename = "session.login")]
    SessionLogin,
    /// A connection ended; carries a summary of its reads.
    #[serde(rename = "session.disconnect")]
    SessionDisconnect,
    /// What a session read: numbers of listings and look-ups.
    #[serde(rename = "session.reads")]
    SessionReads,
    /// OPEN for writing.
    #[serde(rename = "upload.open")]
    UploadOpen,
    /// An unfinished upload was continued.
    #[serde(rename = "upload.resume")]
    UploadResume,
    /// CLOSE came, and its last bytes are being made durable. Small files skip this.
    #[serde(rename = "upload.close")]
    UploadClose,
    /// Complete under a temp name.
    #[serde(rename = "upload.hold")]
    UploadHold,
    /// Accepted under its final name.
    #[serde(rename = "upload.accept")]
    UploadAccept,
    /// The connection was lost before CLOSE.
    #[serde(rename = "upload.interrupt")]
    UploadInterrupt,
    /// Given up before acceptance.
    #[serde(rename = "upload.abort")]
    UploadAbort,
    /// Renamed.
    #[serde(rename = "upload.rename")]
    UploadRename,
    /// Attributes were set.
    #[serde(rename = "upload.setstat")]
    UploadSetstat,
    /// Soft delete.
    #[serde(rename = "upload.delete")]
    UploadDelete,
    /// Soft delete taken back.
    #[serde(rename = "upload.restore")]
    UploadRestore,
    /// REMOVE of a name about to be overwritten.
    #[serde(rename = "upload.supersede_intent")]
    UploadSupersedeIntent,
    /// A newer version took its place.
    #[serde(rename = "upload.supersede")]
    UploadSupersede,
    /// Destinations chosen.
    #[serde(rename = "upload.route")]
    UploadRoute,
    /// All deliveries done.
    #[serde(rename = "upload.process")]
    UploadProcess,
    /// Gave up.
    #[serde(rename = "upload.fail")]
    UploadFail,
    /// An operator asked for another delivery.
    #[serde(rename = "upload.redeliver")]
    UploadRedeliver,
    /// Bytes were exported by an operator.
    #[serde(rename = "upload.export")]
    UploadExport,
    /// A worker took a delivery.
    #[serde(rename = "delivery.claim")]
    DeliveryClaim,
    /// About to make the finishing call.
    #[serde(rename = "delivery.finalize")]
    DeliveryFinalize,
    /// There and verified.
    #[serde(rename = "delivery.succeed")]
    DeliverySucceed,
    /// Failed, will be tried again.
    #[serde(rename = "delivery.defer")]
    DeliveryDefer,
    /// Failed for good.
    #[serde(rename = "delivery.dead_letter")]
    DeliveryDeadLetter,
    /// Cancelled in favour of a newer version.
    #[serde(rename = "delivery.cancel")]
    DeliveryCancel,
    /// A worker's claim was taken from it.
    #[serde(rename = "delivery.release")]
    DeliveryRelease,
    /// A directory was made.
    #[serde(rename = "directory.make")]
    DirectoryMake,
    /// A directory was removed.
    #[serde(rename = "directory.remove")]
    DirectoryRemove,
    /// An entry of `/inbox` was registered.
    #[serde(rename = "inbox.add")]
    InboxAdd,
    /// An entry of `/inbox` was taken away.
    #[serde(rename = "inbox.remove")]
    InboxRemove,
    /// A request was refused.
    #[serde(rename = "request.refuse")]
    RequestRefuse,
    /// An account was added.
    #[serde(rename = "account.add")]
    AccountAdd,
    /// An account was changed.
    #[serde(rename = "account.change")]
    AccountChange,
    /// An account was removed.
    #[serde(rename = "account.remove")]
    AccountRemove,
    /// An operator's token was made.
    #[serde(rename = "token.create")]
    TokenCreate,
    /// An operator's token was revoked.
    #[serde(rename = "token.revoke")]
    TokenRevoke,
}

impl Action {
    /// The name as it is stored: `upload.accept`.
    #[must_use]
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Actor {
    /// A partner's account.
    Account {
        /// Its name, or the name that was tried.
        id: String,
        /// `password`, or the fingerprint of the key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<String>,
    },
    /// A person who operates the system.
    Operator {
        /// Who.
        id: String,
    },
    /// The system itself.
    System {
        /// Which role: `gateway`, `worker`, `relay`, `sweeper`.
        id: String,
    },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// Done.
    Ok,
    /// Refused: the request was not allowed.
    Refused,
    /// Tried and failed.
    Failed,
}

impl AuditEntry {
    /// A new entry with the bare necessities; set the other fields before it is stored.
    #[must_use]
    pub fn new(action: Action, actor: Actor, result: AuditResult) -> Self {
        Self {
            id: AuditId::new(),
            at: Timestamp::now(),
            action,
            actor,
            result,
            partner: None,
            account: None,
            session: None,
            source: None,
            request: None,
            subject: None,
            upload: None,
            size: None,
            sha256: None,
            reason: None,
            reference: None,
            before: None,
            after: None,
            detail: BTreeMap::new(),
            count: 1,
            node: String::new(),
            software: SOFTWARE.to_owned(),
        }
    }

    /// The bytes that are stored and, later, hashed: RFC 8785 canonical JSON.
    ///
    /// # Errors
    /// Never for values of this type; the signature is that of the serialiser.
    pub fn canonical(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json_canonicalizer::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_are_sorted_and_read_back() {
        let entry =
            AuditEntry::new(Action::UploadAccept, Actor::System { id: "gateway".into() }, AuditResult::Ok);
        let bytes = entry.canonical().unwrap();
        assert!(bytes.starts_with(br#"{"action":"upload.accept","actor":{"id":"gateway","kind":"system"},"#));
        assert_eq!(serde_json::from_slice::<AuditEntry>(&bytes).unwrap(), entry);
        assert_eq!(Action::UploadAccept.name(), "upload.accept");
    }
}
