//! What downstream systems receive: CloudEvents 1.0 in structured JSON. Unlike the records, events are read leniently:
//! a consumer built today must take the fields of tomorrow.

use crate::{
    account::{AccountName, DestinationName, PartnerName},
    content::ContentType,
    delivery::{Delivery, DestinationKind, VerifiedBy},
    digest::Sha256,
    id::{DeliveryId, EventId, ReceiptId, UploadId},
    path::VirtualPath,
    reason::Reason,
    time::Timestamp,
    upload::{Grade, Upload},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A CloudEvent. Complete when minted, but for `sequence`, which the relay assigns when it publishes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Always `1.0`.
    pub specversion: String,
    /// Minted once, in the change that causes it; the same on every publish.
    pub id: EventId,
    /// `dropgate`, or as configured.
    pub source: String,
    /// When it happened.
    pub time: Timestamp,
    /// The virtual path.
    pub subject: VirtualPath,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// Whose upload.
    pub account: AccountName,
    /// The account's organisation.
    pub partner: PartnerName,
    /// Which upload.
    pub uploadid: UploadId,
    /// Number of this event among the partner's events, without a gap, as a zero-padded decimal; empty until assigned.
    #[serde(default)]
    pub sequence: String,
    /// `type` and `data`.
    #[serde(flatten)]
    pub body: EventBody,
}

/// Type and data of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum EventBody {
    /// Accepted, exactly once per version.
    #[serde(rename = "dropgate.upload.received.v1")]
    UploadReceived(Received),
    /// One destination done.
    #[serde(rename = "dropgate.delivery.succeeded.v1")]
    DeliverySucceeded(Succeeded),
    /// All destinations done, once.
    #[serde(rename = "dropgate.upload.delivered.v1")]
    UploadDelivered(Delivered),
    /// Failed, will be tried again.
    #[serde(rename = "dropgate.delivery.deferred.v1")]
    DeliveryDeferred(AttemptFailed),
    /// Gave up on one destination.
    #[serde(rename = "dropgate.delivery.dead_lettered.v1")]
    DeliveryDeadLettered(AttemptFailed),
    /// In `/failed`.
    #[serde(rename = "dropgate.upload.failed.v1")]
    UploadFailed(Failed),
    /// A later version of the same name took its place.
    #[serde(rename = "dropgate.upload.superseded.v1")]
    UploadSuperseded(Other),
    /// An accepted file got another name before it was delivered.
    #[serde(rename = "dropgate.upload.renamed.v1")]
    UploadRenamed(Other),
    /// Soft delete.
    #[serde(rename = "dropgate.upload.deleted.v1")]
    UploadDeleted(Other),
    /// Soft delete taken back.
    #[serde(rename = "dropgate.upload.restored.v1")]
    UploadRestored(Other),
    /// A repeat of the last delivered version was suppressed.
    #[serde(rename = "dropgate.upload.duplicate.v1")]
    UploadDuplicate(Other),
    /// Given up before acceptance.
    #[serde(rename = "dropgate.upload.aborted.v1")]
    UploadAborted(Other),
    /// Refused by policy.
    #[serde(rename = "dropgate.upload.rejected.v1")]
    UploadRejected(Other),
}

impl EventBody {
    /// The CloudEvents `type`.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::UploadReceived(_) => "dropgate.upload.received.v1",
            Self::DeliverySucceeded(_) => "dropgate.delivery.succeeded.v1",
            Self::UploadDelivered(_) => "dropgate.upload.delivered.v1",
            Self::DeliveryDeferred(_) => "dropgate.delivery.deferred.v1",
            Self::DeliveryDeadLettered(_) => "dropgate.delivery.dead_lettered.v1",
            Self::UploadFailed(_) => "dropgate.upload.failed.v1",
            Self::UploadSuperseded(_) => "dropgate.upload.superseded.v1",
            Self::UploadRenamed(_) => "dropgate.upload.renamed.v1",
            Self::UploadDeleted(_) => "dropgate.upload.deleted.v1",
            Self::UploadRestored(_) => "dropgate.upload.restored.v1",
            Self::UploadDuplicate(_) => "dropgate.upload.duplicate.v1",
            Self::UploadAborted(_) => "dropgate.upload.aborted.v1",
            Self::UploadRejected(_) => "dropgate.upload.rejected.v1",
        }
    }
}

/// Data of `upload.received`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Received {
    /// Which upload.
    pub upload_id: UploadId,
    /// Number among the versions of the path.
    pub version: u32,
    /// Path under `/upload`.
    pub path: VirtualPath,
    /// Bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// What it is, and how that was found.
    pub content_type: Option<ContentType>,
    /// How sure we are that it is complete.
    pub completion_evidence: Grade,
    /// The client's software.
    pub client: String,
    /// Whose.
    pub account: AccountName,
    /// When accepted.
    pub received_at: Timestamp,
    /// Receipt of the acceptance.
    pub receipt_id: ReceiptId,
    /// The twin whose lost answer this repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<UploadId>,
}

/// A destination as events name it: enough to fetch the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationRef {
    /// Name in the config.
    pub name: DestinationName,
    /// Kind.
    pub kind: DestinationKind,
    /// Where the object lies; none before it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Bucket or container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Key below the destination's prefix, or path below its root; `uri` has the whole address.
    pub key: String,
    /// ETag or version id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_tag: Option<String>,
}

/// Data of `delivery.succeeded`, and one line of `upload.delivered`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Succeeded {
    /// Which upload.
    pub upload_id: UploadId,
    /// Number among the versions of the path.
    pub version: u32,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// How many tries it took.
    pub attempt: u32,
    /// Where to.
    pub destination: DestinationRef,
    /// Bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// What it is.
    pub content_type: Option<ContentType>,
    /// How the copy was compared.
    pub verified_by: VerifiedBy,
    /// When.
    pub delivered_at: Timestamp,
    /// Receipt of the delivery.
    pub receipt_id: ReceiptId,
}

/// Data of `upload.delivered`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {
    /// As `upload.received` told it.
    #[serde(flatten)]
    pub received: Received,
    /// One line a destination.
    pub deliveries: Vec<Succeeded>,
}

/// Data of `delivery.deferred` and `delivery.dead_lettered`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptFailed {
    /// Which upload.
    pub upload_id: UploadId,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Which try.
    pub attempt: u32,
    /// Where to.
    pub destination: DestinationRef,
    /// Why.
    pub reason: Reason,
    /// When it is tried again; none if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
}

/// Data of `upload.failed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// Which upload.
    pub upload_id: UploadId,
    /// Number among the versions of the path.
    pub version: u32,
    /// Path under `/upload`.
    pub path: VirtualPath,
    /// Why.
    pub reason: Reason,
    /// Its deliveries, those that succeeded included.
    pub deliveries: Vec<DestinationOutcome>,
}

/// How one delivery of a failed upload ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationOutcome {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Where to.
    pub destination: DestinationRef,
    /// How it stands.
    pub state: crate::delivery::DeliveryState,
    /// Why, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Data of the other events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Other {
    /// Which upload.
    pub upload_id: UploadId,
    /// Number among the versions of the path.
    pub version: u32,
    /// Path under `/upload`.
    pub path: VirtualPath,
    /// The name before, for `upload.renamed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_path: Option<VirtualPath>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The other version concerned: the successor of a superseded one, the original of a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_version: Option<UploadId>,
}

impl Event {
    /// Mints an event about `upload`.
    #[must_use]
    pub fn about(upload: &Upload, body: EventBody) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: EventId::new(),
            source: "dropgate".to_owned(),
            time: Timestamp::now(),
            subject: upload.path.clone(),
            datacontenttype: "application/json".to_owned(),
            account: upload.account.clone(),
            partner: upload.partner.clone(),
            uploadid: upload.upload_id,
            sequence: String::new(),
            body,
        }
    }

    /// The upload it is about.
    #[must_use]
    pub const fn upload_id(&self) -> Option<UploadId> {
        Some(self.uploadid)
    }

    /// Routing key on a topic exchange: `<partner>.<account>.<type>`.
    #[must_use]
    pub fn routing_key(&self) -> String {
        format!("{}.{}.{}", self.partner, self.account, self.body.type_name())
    }
}

impl Received {
    /// From an accepted record; none if it lacks what acceptance fills in.
    #[must_use]
    pub fn from_upload(upload: &Upload) -> Option<Self> {
        Some(Self {
            upload_id: upload.upload_id,
            version: upload.version,
            path: upload.path.clone(),
            size: upload.size?,
            sha256: upload.sha256?,
            content_type: upload.content_type.clone(),
            completion_evidence: upload.evidence?,
            client: upload.client.software.clone(),
            account: upload.account.clone(),
            received_at: upload.received_at?,
            receipt_id: upload.receipt_id?,
            retry_of: upload.retry_of,
        })
    }
}

impl Other {
    /// The bare facts about `upload`.
    #[must_use]
    pub fn about(upload: &Upload) -> Self {
        Self {
            upload_id: upload.upload_id,
            version: upload.version,
            path: upload.path.clone(),
            previous_path: None,
            reason: upload.reason.clone(),
            other_version: None,
        }
    }
}

impl DestinationRef {
    /// As `delivery` knows its destination.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            name: delivery.destination.clone(),
            kind: delivery.kind,
            uri: delivery.receipt.as_ref().map(|r| r.uri.clone()),
            container: delivery.receipt.as_ref().and_then(|r| r.container.clone()),
            key: delivery.key.clone(),
            version_tag: delivery.receipt.as_ref().and_then(|r| r.version_tag.clone()),
        }
    }
}

impl Succeeded {
    /// From a delivered delivery; none before it has its receipt.
    #[must_use]
    pub fn from_delivery(upload: &Upload, delivery: &Delivery) -> Option<Self> {
        let receipt = delivery.receipt.as_ref()?;
        Some(Self {
            upload_id: upload.upload_id,
            version: upload.version,
            delivery_id: delivery.delivery_id,
            attempt: delivery.attempts,
            destination: DestinationRef::of(delivery),
            size: receipt.size,
            sha256: receipt.sha256,
            content_type: upload.content_type.clone(),
            verified_by: receipt.verified_by,
            delivered_at: receipt.delivered_at,
            receipt_id: receipt.receipt_id,
        })
    }
}
