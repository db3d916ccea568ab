//! One upload to one destination.

use crate::{
    account::DestinationName,
    digest::Sha256,
    id::{DeliveryId, InstanceId, ReceiptId},
    reason::Reason,
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of place a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationKind {
    /// A directory of the worker's host.
    Directory,
    /// An SFTP server.
    Sftp,
    /// A bucket of an S3 store.
    S3,
    /// A container of an Azure Blob account.
    AzureBlob,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Nobody works on it yet.
    Pending,
    /// A worker holds it and has written nothing.
    Claimed,
    /// Bytes are on the way under a temporary name.
    Staging,
    /// The finishing call may have been made; durable before it is made.
    Finalizing,
    /// Finished and compared, not yet recorded as final.
    Verified,
    /// Final: there, verified.
    Delivered,
    /// Will be tried again at `next_attempt_at`.
    RetryWait,
    /// Final: given up.
    Dead,
    /// Final until an operator resolves it: finished, but taken away before it could be compared.
    Unconfirmed,
    /// Final: a newer version made it pointless.
    Cancelled,
}

impl DeliveryState {
    /// No further step is taken without an operator.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Delivered | Self::Dead | Self::Unconfirmed | Self::Cancelled => true,
            Self::Pending
            | Self::Claimed
            | Self::Staging
            | Self::Finalizing
            | Self::Verified
            | Self::RetryWait => false,
        }
    }
    /// A worker holds it.
    #[must_use]
    pub const fn is_claimed(self) -> bool {
        match self {
            Self::Claimed | Self::Staging | Self::Finalizing | Self::Verified => true,
            Self::Pending
            | Self::Delivered
            | Self::RetryWait
            | Self::Dead
            | Self::Unconfirmed
            | Self::Cancelled => false,
        }
    }
    /// Whether the arrow from here to `next` exists.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use DeliveryState as S;
        match self {
            S::Pending | S::RetryWait => matches!(next, S::Claimed | S::Cancelled | S::Dead),
            // Claimed again: lease taken over, or the same instance after a restart.
            S::Claimed | S::Staging => matches!(
                next,
                S::Claimed | S::Staging | S::Finalizing | S::RetryWait | S::Dead | S::Cancelled | S::Pending
            ),
            S::Finalizing => matches!(
                next,
                S::Claimed
                    | S::Finalizing
                    | S::Verified
                    | S::Delivered
                    | S::RetryWait
                    | S::Dead
                    | S::Unconfirmed
            ),
            S::Verified => matches!(next, S::Claimed | S::Delivered),
            S::Delivered | S::Dead | S::Unconfirmed | S::Cancelled => false,
        }
    }
}

/// How a destination's copy was compared with what was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerifiedBy {
    /// The destination computed the SHA-256.
    Sha256,
    /// Read back and hashed here.
    Sha256Readback,
    /// The destination computed a CRC-64/NVME over the whole object.
    Crc64nvme,
    /// Only the size could be compared.
    Size,
}

/// What is done when the name is taken at the destination by something that is not ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCollision {
    /// The delivery is given up.
    #[default]
    Fail,
    /// It gets a name of its own: `~` and the short upload id before the extension.
    Suffix,
    /// What is there is replaced.
    Replace,
}

/// One upload to one destination in one generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Idempotency key at the destination.
    pub delivery_id: DeliveryId,
    /// Name of the destination in the config.
    pub destination: DestinationName,
    /// Its kind.
    pub kind: DestinationKind,
    /// The key (path below the destination's root) fixed at routing.
    pub key: String,
    /// What is done when the key is taken; fixed at routing too.
    #[serde(default)]
    pub on_collision: OnCollision,
    /// Raised by each redelivery; starts at 1.
    pub generation: u32,
    /// Where it stands.
    pub state: DeliveryState,
    /// Raised by each claim: writes of an older epoch are refused.
    pub epoch: u64,
    /// The worker instance that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<InstanceId>,
    /// Tries so far.
    pub attempts: u32,
    /// Tries in a row that failed for a reason that does not pass by itself.
    #[serde(default)]
    pub permanent_failures: u32,
    /// Claims that ended with the death of the worker.
    #[serde(default)]
    pub crashes: u32,
    /// When the first try began: the retry budget counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_attempt_at: Option<Timestamp>,
    /// Not tried before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What the bytes are sent into, by the name that the destination gave it (an upload in parts of S3): written before the
    /// first byte is sent, so that whoever takes over can remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_as: Option<String>,
    /// Whether the finishing call may have been made in some epoch, and under which temporary name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalizing: Option<Finalizing>,
    /// Proof, once delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<DeliveryReceipt>,
}

/// What must be known to find out, after a crash, whether the finishing call took effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finalizing {
    /// The epoch that made the call.
    pub epoch: u64,
    /// The temporary name the bytes had, where the destination has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_as: Option<String>,
    /// When it was recorded.
    pub at: Timestamp,
}

/// Proof that a destination has the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryReceipt {
    /// Its id.
    pub receipt_id: ReceiptId,
    /// Where it lies: `file:///…`, `sftp://host:port/…`, `s3://bucket/key`, ….
    pub uri: String,
    /// Bucket or container, where the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// ETag or version id, where the destination gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_tag: Option<String>,
    /// Bytes there.
    pub size: u64,
    /// The digest that was compared.
    pub sha256: Sha256,
    /// How.
    pub verified_by: VerifiedBy,
    /// When.
    pub delivered_at: Timestamp,
}
