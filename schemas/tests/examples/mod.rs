//! One example of every event, with fixed ids and times.

use dropgate_schemas::{
    delivery::Delivery,
    digest::Sha256,
    event::{
        AttemptFailed, Delivered, DestinationOutcome, DestinationRef, Event, EventBody, Failed, Other,
        Received, Succeeded,
    },
    id::{DeliveryId, EventId, UploadId},
    path::VirtualPath,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::Upload,
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const KEY: &str = "acme/acme-prod/orders/2026-03.edi";
const NOON: Timestamp = Timestamp::from_millis(1_772_366_400_120);

/// A UUID of version 7, made a second after noon, told apart by `n`.
fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x019c_a940_6a78_7000_8000_0000_0000_0000 + n)
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(text.as_bytes()).unwrap()
}

/// As it is stored, so that a record may get new fields without a change here.
fn upload() -> Upload {
    let id = UploadId::from_uuid(uuid(1));
    let sha256 = Sha256::of(b"UNA:+.? 'UNB+UNOC:3'");
    serde_json::from_value(json!({
        "upload_id": id,
        "account": "acme-prod",
        "partner": "acme",
        "path": "/upload/orders/2026-03.edi",
        "opened_as": "/upload/orders/2026-03.edi.filepart",
        "version": 2,
        "state": "committed",
        "revision": 7,
        "epoch": 1,
        "client": {
            "session": uuid(3),
            "source": "192.0.2.7:50122",
            "software": "SSH-2.0-WinSCP_release_6.3.5",
            "credential": "password",
        },
        "opened_at": NOON,
        "updated_at": NOON,
        "received_at": NOON,
        "declared_size": 20,
        "blob": {"kind": "stored", "blob": uuid(4)},
        "size": 20,
        "sha256": sha256,
        "content_type": {"mime": "application/edifact", "label": "edifact", "found_by": "rule:edifact"},
        "evidence": "renamed-from-temp",
        "receipt_id": uuid(5),
        "supersedes": uuid(6),
        "generation": 1,
        "deliveries": [
            {
                "delivery_id": DeliveryId::derive(id, "archive", 1),
                "destination": "archive",
                "kind": "directory",
                "key": KEY,
                "generation": 1,
                "state": "delivered",
                "epoch": 1,
                "attempts": 1,
                "receipt": {
                    "receipt_id": uuid(2),
                    "uri": format!("file:///srv/archive/{KEY}"),
                    "size": 20,
                    "sha256": sha256,
                    "verified_by": "sha256-readback",
                    "delivered_at": NOON.plus(Duration::from_millis(85)),
                },
            },
            {
                "delivery_id": DeliveryId::derive(id, "warehouse", 1),
                "destination": "warehouse",
                "kind": "sftp",
                "key": KEY,
                "generation": 1,
                "state": "retry_wait",
                "epoch": 3,
                "attempts": 3,
                "reason": Reason::new(ReasonCode::DestDown, "sftp.warehouse.example:22 did not answer within 10 s"),
                "next_attempt_at": NOON.plus(Duration::from_secs(17)),
            },
        ],
    }))
    .unwrap()
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
