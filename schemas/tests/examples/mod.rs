//! One example of every event, with fixed ids and times.

use dropgate_schemas::{
    content::ContentType,
    delivery::{Delivery, DeliveryReceipt, DeliveryState, DestinationKind, VerifiedBy},
    digest::Sha256,
    event::{
        AttemptFailed, Delivered, DestinationOutcome, DestinationRef, Event, EventBody, Failed, Other,
        Received, Succeeded,
    },
    id::{BlobId, DeliveryId, EventId, ReceiptId, SessionId, UploadId},
    path::VirtualPath,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Attributes, BlobRef, ClientInfo, Grade, Upload, UploadState},
};
use uuid::Uuid;

const NOON: Timestamp = Timestamp::from_millis(1_772_366_400_120);

/// A UUID of version 7, made a second after noon, told apart by `n`.
fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x019c_a940_6a78_7000_8000_0000_0000_0000 + n)
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).unwrap()
}

fn delivery(upload: UploadId, name: &str, kind: DestinationKind) -> Delivery {
    Delivery {
        delivery_id: DeliveryId::derive(upload, name, 1),
        destination: name.parse().unwrap(),
        kind,
        key: "acme/acme-prod/orders/2026-03.edi".into(),
        generation: 1,
        state: DeliveryState::Pending,
        epoch: 1,
        owner: None,
        attempts: 1,
        permanent_failures: 0,
        crashes: 0,
        first_attempt_at: Some(NOON),
        next_attempt_at: None,
        reason: None,
        finalizing: None,
        receipt: None,
    }
}

fn upload() -> Upload {
    let id = UploadId::from_uuid(uuid(1));
    let sha256 = Sha256::of(b"UNA:+.? 'UNB+UNOC:3'");
    let mut done = delivery(id, "archive", DestinationKind::Directory);
    done.state = DeliveryState::Delivered;
    done.receipt = Some(DeliveryReceipt {
        receipt_id: ReceiptId::from_uuid(uuid(2)),
        uri: "file:///srv/archive/acme/acme-prod/orders/2026-03.edi".into(),
        container: None,
        version_tag: None,
        size: 20,
        sha256,
        verified_by: VerifiedBy::Sha256Readback,
        delivered_at: NOON.plus(std::time::Duration::from_millis(85)),
    });
    let mut down = delivery(id, "warehouse", DestinationKind::Sftp);
    down.state = DeliveryState::RetryWait;
    down.attempts = 3;
    down.reason =
        Some(Reason::new(ReasonCode::DestDown, "sftp.warehouse.example:22 did not answer within 10 s"));
    down.next_attempt_at = Some(NOON.plus(std::time::Duration::from_secs(17)));
    Upload {
        upload_id: id,
        account: "acme-prod".parse().unwrap(),
        partner: "acme".parse().unwrap(),
        path: path("/upload/orders/2026-03.edi"),
        opened_as: path("/upload/orders/2026-03.edi.filepart"),
        version: 2,
        state: UploadState::Committed,
        revision: 7,
        epoch: 1,
        owner: None,
        client: ClientInfo {
            session: SessionId::from_uuid(uuid(3)),
            source: "192.0.2.7:50122".into(),
            software: "SSH-2.0-WinSCP_release_6.3.5".into(),
            credential: "password".into(),
        },
        opened_at: NOON,
        updated_at: NOON,
        received_at: Some(NOON),
        settled_at: None,
        deleted_at: None,
        attributes: Attributes::default(),
        declared_size: Some(20),
        staged: None,
        blob: Some(BlobRef::Stored { blob: BlobId::from_uuid(uuid(4)) }),
        size: Some(20),
        sha256: Some(sha256),
        content_type: Some(ContentType {
            mime: "application/edifact".into(),
            label: "edifact".into(),
            found_by: "rule:edifact".into(),
            score_permille: None,
        }),
        evidence: Some(Grade::RenamedFromTemp),
        receipt_id: Some(ReceiptId::from_uuid(uuid(5))),
        answered: true,
        reason: None,
        supersede_intent: None,
        supersedes: Some(UploadId::from_uuid(uuid(6))),
        superseded_by: None,
        retry_of: None,
        generation: 1,
        deliveries: vec![done, down],
    }
}

/// One event of every type, all about the same upload.
pub(crate) fn events() -> Vec<Event> {
    let upload = upload();
    let [done, down] = &upload.deliveries[..] else { panic!("two deliveries") };
    let received = Received::from_upload(&upload).unwrap();
    let succeeded = Succeeded::from_delivery(&upload, done).unwrap();
    let attempt = AttemptFailed {
        upload_id: upload.upload_id,
        delivery_id: down.delivery_id,
        attempt: down.attempts,
        destination: DestinationRef::of(down),
        reason: down.reason.clone().unwrap(),
        next_attempt_at: down.next_attempt_at,
    };
    let outcome = |delivery: &Delivery| DestinationOutcome {
        delivery_id: delivery.delivery_id,
        destination: DestinationRef::of(delivery),
        state: delivery.state,
        reason: delivery.reason.clone(),
    };
    let plain = Other::about(&upload);
    let because = |code, sentence: &str| Other { reason: Some(Reason::new(code, sentence)), ..plain.clone() };
    let bodies = [
        EventBody::UploadReceived(received.clone()),
        EventBody::DeliverySucceeded(succeeded.clone()),
        EventBody::UploadDelivered(Delivered { received, deliveries: vec![succeeded] }),
        EventBody::DeliveryDeferred(attempt.clone()),
        EventBody::DeliveryDeadLettered(AttemptFailed { next_attempt_at: None, ..attempt }),
        EventBody::UploadFailed(Failed {
            upload_id: upload.upload_id,
            version: upload.version,
            path: upload.path.clone(),
            reason: Reason::new(ReasonCode::DestDown, "warehouse could not be reached within 24 h"),
            deliveries: upload.deliveries.iter().map(outcome).collect(),
        }),
        EventBody::UploadSuperseded(Other {
            other_version: Some(UploadId::from_uuid(uuid(7))),
            ..because(ReasonCode::Superseded, "version 3 of the same name was accepted")
        }),
        EventBody::UploadRenamed(Other {
            previous_path: Some(path("/upload/orders/2026-02.edi")),
            ..plain.clone()
        }),
        EventBody::UploadDeleted(plain.clone()),
        EventBody::UploadRestored(plain.clone()),
        EventBody::UploadDuplicate(Other {
            other_version: Some(UploadId::from_uuid(uuid(6))),
            ..plain.clone()
        }),
        EventBody::UploadAborted(because(ReasonCode::Abandoned, "nobody resumed it within 24 h")),
        EventBody::UploadRejected(because(
            ReasonCode::Refused,
            "completion evidence is weaker than required",
        )),
    ];
    let event = |(n, body): (u128, EventBody)| Event {
        id: EventId::from_uuid(uuid(16 + n)),
        time: NOON,
        sequence: format!("{:020}", n + 1),
        ..Event::about(&upload, body)
    };
    (0..).zip(bodies).map(event).collect()
}
