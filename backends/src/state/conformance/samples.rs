//! Records to test with.

use dropgate_schemas::{
    account::{Account, AccountName, PartnerName},
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    directory::Directory,
    id::{SessionId, UploadId},
    path::VirtualPath,
    time::Timestamp,
    upload::{Attributes, ClientInfo, Upload, UploadState},
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

/// The visible change that writes `upload` as it is, with one audit entry and nothing in the outbox.
#[must_use]
pub fn created(upload: &Upload) -> Change {
    Change {
        subject: Subject::Upload { upload: Box::new(upload.clone()), inline: None },
        audit: vec![entry(upload)],
        outbox: Vec::new(),
        durability: Durability::Visible,
    }
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
