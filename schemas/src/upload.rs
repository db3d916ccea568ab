//! The record of one version of one upload: from OPEN to its final state, with everything an auditor asks for.

use crate::{
    account::{AccountName, PartnerName},
    content::ContentType,
    delivery::{Delivery, DeliveryState},
    digest::{Base64, Sha256},
    id::{BlobId, InstanceId, ReceiptId, SessionId, UploadId},
    path::{Area, VirtualPath},
    reason::Reason,
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a version stands. The arrows are in [`UploadState::may_become`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// A client is writing it.
    Receiving,
    /// CLOSE came; not accepted yet.
    Closing,
    /// The connection was lost; it can be resumed.
    Partial,
    /// Complete under a temp name, waiting for its RENAME.
    Held,
    /// Accepted: durable, recorded, waiting for delivery.
    Committed,
    /// Accepted, and a worker holds at least one delivery.
    Delivering,
    /// Accepted, but kept back until an operator decides.
    Quarantined,
    /// Final: delivered to every destination.
    Processed,
    /// Final: gave up.
    Failed,
    /// Final: never accepted.
    Aborted,
    /// Final: a later version of the same name was accepted.
    Superseded,
}

impl UploadState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Receiving,
        Self::Closing,
        Self::Partial,
        Self::Held,
        Self::Committed,
        Self::Delivering,
        Self::Quarantined,
        Self::Processed,
        Self::Failed,
        Self::Aborted,
        Self::Superseded,
    ];

    /// The state as it is printed: `processed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Closing => "closing",
            Self::Partial => "partial",
            Self::Held => "held",
            Self::Committed => "committed",
            Self::Delivering => "delivering",
            Self::Quarantined => "quarantined",
            Self::Processed => "processed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    /// The directory that lists it; none for states that partners don't see.
    #[must_use]
    pub const fn area(self) -> Option<Area> {
        match self {
            Self::Receiving
            | Self::Closing
            | Self::Partial
            | Self::Held
            | Self::Committed
            | Self::Delivering
            | Self::Quarantined => Some(Area::Upload),
            Self::Processed => Some(Area::Sent),
            Self::Failed => Some(Area::Failed),
            Self::Aborted | Self::Superseded => None,
        }
    }

    /// Accepted under its final name: the promise to the client stands.
    #[must_use]
    pub const fn is_accepted(self) -> bool {
        match self {
            Self::Committed
            | Self::Delivering
            | Self::Quarantined
            | Self::Processed
            | Self::Failed
            | Self::Superseded => true,
            Self::Receiving | Self::Closing | Self::Partial | Self::Held | Self::Aborted => false,
        }
    }

    /// Not accepted and not given up: may still become something.
    #[must_use]
    pub const fn is_unfinished(self) -> bool {
        match self {
            Self::Receiving | Self::Closing | Self::Partial | Self::Held => true,
            Self::Committed
            | Self::Delivering
            | Self::Quarantined
            | Self::Processed
            | Self::Failed
            | Self::Aborted
            | Self::Superseded => false,
        }
    }

    /// Whether the arrow from here to `next` exists. Staying in a state while other fields change is always allowed.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use UploadState as S;
        if self as u8 == next as u8 {
            return true;
        }
        match self {
            S::Receiving => matches!(next, S::Closing | S::Partial | S::Held | S::Committed | S::Aborted),
            S::Closing => matches!(next, S::Held | S::Committed | S::Partial | S::Aborted),
            S::Partial => matches!(next, S::Receiving | S::Aborted),
            // Failed: never renamed. Receiving: opened again to continue.
            S::Held => matches!(next, S::Committed | S::Receiving | S::Aborted | S::Failed),
            S::Committed => {
                matches!(next, S::Delivering | S::Quarantined | S::Processed | S::Failed | S::Superseded)
            }
            S::Delivering => {
                matches!(next, S::Committed | S::Quarantined | S::Processed | S::Failed | S::Superseded)
            }
            S::Quarantined => matches!(next, S::Committed | S::Failed | S::Superseded),
            // Committed: redelivered by an operator.
            S::Processed | S::Failed => matches!(next, S::Committed | S::Superseded),
            S::Aborted | S::Superseded => false,
        }
    }
}

impl fmt::Display for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for UploadState {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == s).ok_or_else(|| {
            format!("{s:?} is not a state: use one of {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// How sure we are that the client had sent everything, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// A CLOSE and nothing else. OpenSSH sends one also after Ctrl-C.
    #[default]
    CloseOnly,
    /// The client set the size after writing, and it was the size written (lftp, scp).
    FsetstatSize,
    /// The client declared the size at OPEN, and it was the size written (WinSCP).
    DeclaredSize,
    /// The client renamed a temp name to the final name.
    RenamedFromTemp,
}

/// Where the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BlobRef {
    /// In the state store, written together with the record.
    Inline,
    /// In the blob store, sealed.
    Stored {
        /// Which blob.
        blob: BlobId,
    },
}

/// How far an unfinished upload is durably staged, with all that is needed to continue from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// Durable contiguous length in bytes.
    pub length: u64,
    /// SHA-256 state at that length (`sha2`'s serialised form).
    pub sha256_state: Base64,
    /// The first 4 KiB at most, for type detection.
    pub head: Base64,
    /// The last 4 KiB, for the same; empty while `head` holds everything.
    #[serde(default, skip_serializing_if = "Base64::is_empty")]
    pub tail: Base64,
    /// The blob the bytes are in; none while they fit inline and are kept with the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<StagedBlob>,
}

/// The blob of an unfinished upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StagedBlob {
    /// Which blob.
    pub blob: BlobId,
    /// Runs of blocks staged so far, in order, for stores that are told the list at seal (Azure). Empty for others.
    #[serde(default)]
    pub blocks: Vec<StagedBlock>,
    /// What the store marked the blob with when it was last taken over, for stores that keep older owners out by it (Azure:
    /// the ETag). None for others, and for a blob that was never taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A run of staged blocks: those of one epoch, numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StagedBlock {
    /// Epoch of the owner that staged them.
    pub epoch: u64,
    /// Number of the last one.
    pub seq: u32,
    /// Bytes of all of them together.
    pub length: u64,
}

/// What the client said of the file; kept, answered, never interpreted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// Permission bits without type bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<u32>,
    /// Numeric owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Numeric group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Access time, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atime: Option<u32>,
    /// Modification time, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<u32>,
}

/// Who sent it, with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientInfo {
    /// The SSH connection.
    pub session: SessionId,
    /// Source address and port.
    pub source: String,
    /// Identification string of the client's SSH software, or what it told of itself by `vendor-id`.
    pub software: String,
    /// `password` or the fingerprint of the key that logged in.
    pub credential: String,
}

/// A REMOVE of the target that a client sent before renaming its temp name onto it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupersedeIntent {
    /// The name that was removed.
    pub target: VirtualPath,
    /// When; it lapses after 60 s.
    pub at: Timestamp,
}

/// One version of one uploaded file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// Its id, from OPEN on.
    pub upload_id: UploadId,
    /// Whose it is.
    pub account: AccountName,
    /// The account's organisation.
    pub partner: PartnerName,
    /// Its name under `/upload`; a temp name until it is renamed.
    pub path: VirtualPath,
    /// The name it was opened under.
    pub opened_as: VirtualPath,
    /// Number of this version among all versions of (account, path), from 1. The highest accepted one is current.
    pub version: u32,
    /// Where it stands.
    pub state: UploadState,
    /// Compare-and-set revision; 0 before the first write.
    pub revision: u64,
    /// Raised by each change of owner: an owner that was cut off can't write any more.
    pub epoch: u64,
    /// The gateway instance that receives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<InstanceId>,
    /// The client that opened it (or took it over).
    pub client: ClientInfo,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was accepted under its final name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// When it reached Processed or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// Hidden from listings since; bytes and record are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// What the client said of the file.
    #[serde(default)]
    pub attributes: Attributes,
    /// The size the client declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_size: Option<u64>,
    /// Progress of an unfinished upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// Where the bytes are, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobRef>,
    /// Bytes, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Content type, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// Completeness evidence, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Grade>,
    /// Receipt of the acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_id: Option<ReceiptId>,
    /// Whether the client is known to have got its OK (written lazily).
    #[serde(default)]
    pub answered: bool,
    /// Why it failed, was aborted or is kept back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// A pending overwrite by REMOVE and RENAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede_intent: Option<SupersedeIntent>,
    /// The version this one took the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<UploadId>,
    /// The version that took this one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<UploadId>,
    /// The twin whose lost answer this repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<UploadId>,
    /// Raised by each redelivery; 0 before routing.
    #[serde(default)]
    pub generation: u32,
    /// Its deliveries: none before routing.
    #[serde(default)]
    pub deliveries: Vec<Delivery>,
}

impl Upload {
    /// The directory that lists it now; none if partners don't see it.
    #[must_use]
    pub fn area(&self) -> Option<Area> {
        if self.deleted_at.is_some() { None } else { self.state.area() }
    }

    /// The path under which its partner sees it now.
    #[must_use]
    pub fn listed_at(&self) -> Option<VirtualPath> {
        self.area().map(|area| self.path.in_area(area))
    }

    /// Bytes as a listing shows them: the size once complete, the durable length before.
    #[must_use]
    pub fn visible_size(&self) -> u64 {
        self.size.or_else(|| self.staged.as_ref().map(|s| s.length)).unwrap_or(0)
    }

    /// The deliveries of the present generation.
    pub fn current_deliveries(&self) -> impl Iterator<Item = &Delivery> {
        let generation = self.generation;
        self.deliveries.iter().filter(move |d| d.generation == generation)
    }

    /// Whether a worker holds one of its deliveries.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.deliveries.iter().any(|d| d.state.is_claimed())
    }

    /// The state that the deliveries call for, once routed: Failed as soon as one is Dead and the others are final,
    /// Processed when all are Delivered (or Unconfirmed), Delivering while one is claimed, Committed between tries.
    #[must_use]
    pub fn state_by_deliveries(&self) -> UploadState {
        let mut all_final = true;
        let mut dead = false;
        for delivery in self.current_deliveries() {
            all_final &= delivery.state.is_final();
            dead |= delivery.state == DeliveryState::Dead;
        }
        if self.is_claimed() {
            UploadState::Delivering
        } else if !all_final {
            UploadState::Committed
        } else if dead {
            UploadState::Failed
        } else {
            UploadState::Processed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn final_states_that_are_not_accepted_have_no_way_back() {
        for next in UploadState::ALL {
            if next != UploadState::Aborted {
                assert!(!UploadState::Aborted.may_become(next));
            }
            if next != UploadState::Superseded {
                assert!(!UploadState::Superseded.may_become(next));
            }
        }
    }

    #[test]
    fn an_accepted_version_never_becomes_unaccepted() {
        for from in UploadState::ALL.into_iter().filter(|s| s.is_accepted()) {
            for to in UploadState::ALL.into_iter().filter(|s| !s.is_accepted()) {
                assert!(!from.may_become(to), "{from} -> {to}");
            }
        }
    }

    proptest! {
        #[test]
        fn walks_along_the_arrows_end_accepted_or_never_were(steps in proptest::collection::vec(0_usize..11, 1..40)) {
            let mut state = UploadState::Receiving;
            let mut accepted = false;
            for step in steps {
                let next = UploadState::ALL[step];
                if state.may_become(next) {
                    state = next;
                }
                accepted |= state.is_accepted();
                prop_assert!(!accepted || state.is_accepted());
            }
        }
    }
}
