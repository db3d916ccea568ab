//! What every event publisher does, whatever listens.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite that fails panics, like the tests that call it"
)]

use super::EventPublisher;
use crate::state::LoggedEvent;
use dropgate_schemas::{
    event::{Event, EventBody, Other},
    id::{EventId, UploadId},
    path::VirtualPath,
    time::Timestamp,
};

/// Runs the suite on two openings of one publisher, which stand for the relays of two processes. `heard` returns every
/// event that came out at the other end so far, as JSON, in order.
///
/// # Panics
/// If the publisher does anything else than the port promises.
pub async fn suite(
    publisher: &dyn EventPublisher,
    other: &dyn EventPublisher,
    heard: impl AsyncFn() -> Vec<serde_json::Value>,
) {
    publisher.check().await.expect("an open publisher answers");
    let before = heard().await.len();
    publisher.publish(&[]).await.expect("nothing is fine");
    assert_eq!(heard().await.len(), before);

    let events: Vec<LoggedEvent> = (1..=40).map(event).collect();
    for batch in events[..20].chunks(7) {
        publisher.publish(batch).await.expect("publish");
    }
    // The other one takes over, repeats what it can't know to be out, and goes on.
    other.publish(&events[15..30]).await.expect("publish");
    publisher.publish(&events[30..]).await.expect("publish");

    let mut seen = Vec::new();
    for json in heard().await.drain(before..) {
        let id: EventId = json["id"].as_str().expect("an id").parse().expect("a UUID");
        let original = events.iter().find(|e| e.event.id == id).expect("one of ours");
        let expected = serde_json::to_value(&original.event).expect("JSON");
        assert_eq!(json, expected, "an event comes out as it went in");
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    let expected: Vec<EventId> = events.iter().map(|e| e.event.id).collect();
    assert_eq!(seen, expected, "each at least once, first times in order");
}

/// An event with a path that needs escaping.
#[must_use]
pub fn event(position: u64) -> LoggedEvent {
    let path = VirtualPath::parse(format!("/upload/ä \"{position}\"").as_bytes()).expect("a path");
    let upload = UploadId::new();
    let event = Event {
        specversion: "1.0".to_owned(),
        id: EventId::new(),
        source: "dropgate".to_owned(),
        time: Timestamp::now(),
        subject: path.clone(),
        datacontenttype: "application/json".to_owned(),
        account: "demo".parse().expect("a name"),
        partner: "acme".parse().expect("a name"),
        uploadid: upload,
        sequence: format!("{position:020}"),
        body: EventBody::UploadAborted(Other {
            upload_id: upload,
            version: 1,
            path,
            previous_path: None,
            reason: None,
            other_version: None,
        }),
    };
    LoggedEvent { position, event }
}
