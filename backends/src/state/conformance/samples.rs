//! Records to test with.

use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    content::{ContentType, ModelMissed},
    delivery::{Delivery, DeliveryState, DestinationKind, OnCollision},
    digest::{Base64, Sha256},
    directory::Directory,
    event::{Event, EventBody, Other},
    id::{BlobId, DeliveryId, InstanceId, ReceiptId, SessionId, TokenId, UploadId},
    inbox::InboxEntry,
    path::VirtualPath,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    token::{Scope, Token},
    upload::{
        Attributes, BlobRef, ClientInfo, Grade, Staged, StagedBlob, StagedBlock, SupersedeIntent, Upload,
        UploadState,
    },
};

/// A path.
#[must_use]
pub fn path(text: &str) -> VirtualPath {
    text.parse().unwrap()
}

/// An account's name.
#[must_use]
pub fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

/// A partner's name.
#[must_use]
pub fn partner(name: &str) -> PartnerName {
    name.parse().unwrap()
}

/// An upload that was just opened, of the partner that is named like the account.
#[must_use]
pub fn upload(of: &str, name: &str, version: u32) -> Upload {
    let now = Timestamp::now();
    Upload {
        upload_id: UploadId::new(),
        account: account(of),
        partner: partner(of),
        path: path(name),
        opened_as: path(name),
        version,
        state: UploadState::Receiving,
        revision: 0,
        epoch: 1,
        owner: None,
        client: ClientInfo {
            session: SessionId::new(),
            source: "192.0.2.7:50122".to_owned(),
            software: "SSH-2.0-OpenSSH_9.9".to_owned(),
            credential: "password".to_owned(),
        },
        opened_at: now,
        updated_at: now,
        received_at: None,
        settled_at: None,
        deleted_at: None,
        attributes: Attributes::default(),
        declared_size: None,
        staged: None,
        blob: None,
        size: None,
        sha256: None,
        content_type: None,
        evidence: None,
        receipt_id: None,
        answered: false,
        reason: None,
        supersede_intent: None,
        supersedes: None,
        superseded_by: None,
        retry_of: None,
        generation: 0,
        deliveries: Vec::new(),
    }
}

/// An audit entry about an upload.
#[must_use]
pub fn entry(upload: &Upload) -> AuditEntry {
    let actor = Actor::Account { id: upload.account.to_string(), credential: None };
    AuditEntry {
        account: Some(upload.account.clone()),
        partner: Some(upload.partner.clone()),
        upload: Some(upload.upload_id),
        subject: Some(upload.path.to_string()),
        after: Some(upload.state.to_string()),
        ..AuditEntry::new(Action::UploadOpen, actor, AuditResult::Ok)
    }
}

/// The change that writes `upload` as it is, with one audit entry and nothing in the outbox.
#[must_use]
pub fn change(upload: &Upload, durability: Durability) -> Change {
    Change {
        subject: Subject::Upload { upload: Box::new(upload.clone()), inline: None },
        audit: vec![entry(upload)],
        outbox: Vec::new(),
        durability,
    }
}

/// The same, visible but not durable.
#[must_use]
pub fn created(upload: &Upload) -> Change {
    change(upload, Durability::Visible)
}

/// An upload with something in every field.
#[must_use]
pub fn full_upload(of: &str, name: &str, version: u32) -> Upload {
    let now = Timestamp::now();
    let blob = BlobId::new();
    let mut upload = Upload {
        owner: Some(InstanceId::new()),
        received_at: Some(now),
        settled_at: Some(now),
        deleted_at: Some(now),
        attributes: Attributes {
            permissions: Some(0o644),
            uid: Some(u32::MAX),
            gid: Some(0),
            atime: Some(1),
            mtime: Some(u32::MAX),
        },
        declared_size: Some(u64::MAX),
        staged: Some(Staged {
            length: 4_096,
            sha256_state: Base64(vec![0, 1, 254, 255]),
            head: Base64(b"UNA:+.? 'UNB+".to_vec()),
            tail: Base64(b"UNZ+1+45126'".to_vec()),
            blob: Some(StagedBlob {
                blob,
                blocks: vec![StagedBlock { epoch: 2, seq: 1, length: 4_096 }],
                tag: Some("\"0x8DE28C1E4F0A2B3\"".to_owned()),
            }),
        }),
        blob: Some(BlobRef::Stored { blob }),
        size: Some(u64::MAX),
        sha256: Some(Sha256::of(b"x")),
        content_type: Some(ContentType {
            mime: "application/edifact".to_owned(),
            label: "edifact".to_owned(),
            found_by: "rule:edifact".to_owned(),
            score_permille: Some(1_000),
            model_missed: Some(ModelMissed::Late),
        }),
        evidence: Some(Grade::RenamedFromTemp),
        receipt_id: Some(ReceiptId::new()),
        answered: true,
        reason: Some(Reason::new(ReasonCode::DestDown, "\u{fc}nreachable \"for\" 24 h")),
        supersede_intent: Some(SupersedeIntent { target: path("/upload/target"), at: now }),
        supersedes: Some(UploadId::new()),
        superseded_by: Some(UploadId::new()),
        retry_of: Some(UploadId::new()),
        generation: 3,
        ..upload(of, name, version)
    };
    upload.deliveries = vec![
        delivery(&upload, "archive", DeliveryState::Delivered),
        delivery(&upload, "erp", DeliveryState::Claimed),
    ];
    upload
}

/// A delivery of an upload.
#[must_use]
pub fn delivery(upload: &Upload, destination: &str, state: DeliveryState) -> Delivery {
    Delivery {
        delivery_id: DeliveryId::derive(upload.upload_id, destination, upload.generation),
        destination: destination.parse().unwrap(),
        kind: DestinationKind::Directory,
        key: upload.path.below().to_owned(),
        on_collision: OnCollision::Fail,
        generation: upload.generation,
        state,
        epoch: 1,
        owner: None,
        attempts: 1,
        permanent_failures: 0,
        crashes: 0,
        first_attempt_at: None,
        next_attempt_at: None,
        reason: None,
        begun_as: None,
        finalizing: None,
        receipt: None,
    }
}

/// An event about an upload.
#[must_use]
pub fn event(upload: &Upload) -> Event {
    Event::about(upload, EventBody::UploadAborted(Other::about(upload)))
}

/// A directory that shows in every area.
#[must_use]
pub fn directory(of: &str, name: &str) -> Directory {
    let now = Timestamp::now();
    Directory {
        account: account(of),
        path: path(name),
        revision: 0,
        in_upload: true,
        in_sent: true,
        in_failed: true,
        created_at: now,
        updated_at: now,
    }
}

/// An account that may log in.
#[must_use]
pub fn login(name: &str) -> Account {
    serde_json::from_value(serde_json::json!({
        "name": name, "partner": name, "enabled": true, "revision": 0, "revocation_epoch": 0,
        "created_at": Timestamp::now(), "updated_at": Timestamp::now(),
    }))
    .unwrap()
}

/// An entry of `/inbox`.
#[must_use]
pub fn inbox_entry(of: &str, name: &str) -> InboxEntry {
    InboxEntry {
        account: account(of),
        path: path(name),
        revision: 0,
        size: 7,
        sha256: Some(Sha256::of(b"x")),
        registered_at: Timestamp::now(),
        removed_at: None,
    }
}

/// A token that reads the events of one partner.
#[must_use]
pub fn token(name: &str) -> Token {
    Token {
        id: TokenId::new(),
        name: name.parse().unwrap(),
        scopes: [Scope::EventsRead].into(),
        partner: Some(partner("acme")),
        secret_sha256: Sha256::of(name.as_bytes()),
        revision: 0,
        created_at: Timestamp::now(),
        expires_at: None,
        revoked_at: None,
    }
}
