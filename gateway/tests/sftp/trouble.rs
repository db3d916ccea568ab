//! What happens when sessions get into each other's way, or the state store fails at the wrong moment: nothing that was
//! accepted is lost, and nothing stays behind that nobody moves.

use crate::{
    client::{CREAT, Client, Gate, Got, TRUNC, WRITE, string},
    shaky::Mood,
    tree::delivery,
};
use dropgate_gateway::ingest::sweep;
use dropgate_schemas::{
    change::{OutboxKind, OutboxMessage},
    delivery::{Delivery, DeliveryState},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::{Duration, Instant};

const SMALL: &[u8] = b"a few bytes that ride with their record";

fn large() -> Vec<u8> {
    (0..600_000_u32).map(|i| (i % 251) as u8).collect()
}

impl Client {
    async fn write_all(&mut self, handle: &[u8], content: &[u8]) {
        for (i, piece) in content.chunks(32_000).enumerate() {
            self.write(handle, i as u64 * 32_000, piece).await.ok();
        }
    }

    async fn set_mtime(&mut self, path: &str, mtime: u32) -> Got {
        let times = [8_u32, mtime, mtime].map(u32::to_be_bytes).concat();
        self.ask(9, &[string(path.as_bytes()), times].concat()).await
    }
}

/// Sweeps until something was found.
async fn swept(gate: &Gate, upload: &Upload) -> u64 {
    let owner = upload.owner.unwrap();
    let sweeping = async {
        loop {
            let state = gate.backends.state.as_ref();
            match sweep(state, &gate.ingest.live, owner, "test/gateway", Duration::ZERO).await.unwrap() {
                0 => tokio::time::sleep(Duration::from_millis(2)).await,
                found => return found,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sweeping).await.unwrap()
}

#[tokio::test]
async fn what_is_accepted_last_is_current_although_it_was_begun_before() {
    let gate = Gate::start().await;
    // An interrupted upload has the lowest number of the name.
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, SMALL).await.ok();
    client.disconnect().await;
    gate.upload_at("/upload/a", UploadState::Partial).await;
    // Another client replaces the name by a rename, and then the first one sends its file again.
    let mut client = gate.client().await;
    client.put("/upload/a.filepart", b"renamed").await.ok();
    client.rename("/upload/a.filepart", "/upload/a").await.ok();
    let renamed = gate.upload_at("/upload/a", UploadState::Committed).await;
    client.put("/upload/a", b"the last").await.ok();
    let last =
        gate.uploads().await.into_iter().filter(|u| u.state.is_accepted()).max_by_key(|u| u.version).unwrap();
    assert_eq!(gate.content(&last).await, b"the last");
    assert_eq!(last.supersedes, Some(renamed.upload_id));
    assert_eq!(client.stat("/upload/a").await.size(), 8);
    // Exactly one version is told to go, and it is the older one.
    let due = gate.backends.state.outbox_due(OutboxKind::Supersede, Timestamp::now(), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].upload, Some(last.upload_id));
    assert_eq!(due[0].message, OutboxMessage::Supersede { older: renamed.upload_id });
}

#[tokio::test]
async fn times_set_by_another_session_do_not_cut_off_the_one_that_uploads() {
    for content in [SMALL.to_vec(), large()] {
        let gate = Gate::start().await;
        let mut first = gate.client().await;
        let mut second = gate.client().await;
        let handle = first.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
        first.write_all(&handle, &content).await;
        second.set_mtime("/upload/a", 1_000_000_000).await.ok();
        first.close(&handle).await.ok();
        let accepted = gate.upload_at("/upload/a", UploadState::Committed).await;
        assert_eq!(accepted.attributes.mtime, Some(1_000_000_000));
        assert_eq!(gate.content(&accepted).await, content);
    }
}

#[tokio::test]
async fn an_acceptance_whose_write_was_not_answered_is_looked_up() {
    let mut gate = Gate::start().await;
    let store = gate.shake();
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, SMALL).await.ok();
    store.is(Mood::ForgetsAnAnswer);
    let text = client.close(&handle).await.ok();
    let accepted = gate.upload_at("/upload/a", UploadState::Committed).await;
    assert!(text.contains(&accepted.receipt_id.unwrap().to_string()), "{text}");
    // Under a temp name, too.
    let handle = client.open("/upload/b.filepart", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, SMALL).await.ok();
    store.is(Mood::ForgetsAnAnswer);
    client.close(&handle).await.ok();
    gate.upload_at("/upload/b.filepart", UploadState::Held).await;
}

#[tokio::test]
async fn a_close_while_the_state_store_is_down_is_refused_and_leaves_nothing_behind() {
    for content in [SMALL.to_vec(), large()] {
        let mut gate = Gate::start().await;
        let store = gate.shake();
        let mut client = gate.client().await;
        let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
        client.write_all(&handle, &content).await;
        let upload = gate.upload_at("/upload/a", UploadState::Receiving).await;
        store.is(Mood::Down);
        let text = client.close(&handle).await.refused(4);
        assert!(text.contains("try again"), "{text}");
        assert!(gate.ingest.live.get(upload.upload_id).is_none());
        store.is(Mood::Well);
        assert_eq!(swept(&gate, &upload).await, 1);
        let left = gate.backends.state.upload(upload.upload_id).await.unwrap().unwrap();
        assert!(matches!(left.state, UploadState::Aborted | UploadState::Partial), "{}", left.state);
        client.put("/upload/a", &content).await.ok();
        gate.upload_at("/upload/a", UploadState::Committed).await;
    }
}

#[tokio::test]
async fn the_sweep_leaves_alone_what_is_open() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let left = client.open("/upload/left", WRITE | CREAT | TRUNC).await.handle();
    client.write(&left, 0, SMALL).await.ok();
    let left = gate.upload_at("/upload/left", UploadState::Receiving).await;
    let file = gate.ingest.live.get(left.upload_id).unwrap();
    gate.ingest.live.remove(left.upload_id, &file);
    let open = client.open("/upload/open", WRITE | CREAT | TRUNC).await.handle();
    client.write(&open, 0, SMALL).await.ok();
    assert_eq!(swept(&gate, &left).await, 1);
    gate.upload_at("/upload/left", UploadState::Aborted).await;
    client.close(&open).await.ok();
    gate.upload_at("/upload/open", UploadState::Committed).await;
}

#[tokio::test]
async fn a_remove_that_can_not_be_recorded_is_refused() {
    let mut gate = Gate::start().await;
    let store = gate.shake();
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, SMALL).await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Receiving).await;
    store.is(Mood::Down);
    let text = client.remove("/upload/a").await.refused(4);
    assert!(text.contains("try again"), "{text}");
    store.is(Mood::Well);
    client.close(&handle).await.refused(4);
    swept(&gate, &upload).await;
    gate.upload_at("/upload/a", UploadState::Aborted).await;
}

#[tokio::test]
async fn closing_one_of_two_handles_of_a_held_file_keeps_the_other_known() {
    let gate = Gate::start().await;
    let mut first = gate.client().await;
    let mut second = gate.client().await;
    first.put("/upload/a.filepart", SMALL).await.ok();
    let one = first.open("/upload/a.filepart", WRITE | CREAT).await.handle();
    let two = second.open("/upload/a.filepart", WRITE | CREAT).await.handle();
    let held = gate.upload_at("/upload/a.filepart", UploadState::Held).await;
    first.close(&one).await.ok();
    assert!(gate.ingest.live.get(held.upload_id).is_some());
    second.close(&two).await.ok();
    assert!(gate.ingest.live.get(held.upload_id).is_none());
}

#[tokio::test]
async fn a_rename_onto_a_name_that_is_being_delivered_waits_until_that_has_settled() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"older").await.ok();
    let older = gate.upload_at("/upload/a", UploadState::Committed).await;
    let claimed = claimed(&older);
    let delivering = gate
        .settle(Upload { deliveries: vec![claimed.clone()], generation: 1, ..older }, UploadState::Delivering)
        .await;
    client.put("/upload/a.filepart", b"newer").await.ok();
    let fields =
        [string(b"posix-rename@openssh.com"), string(b"/upload/a.filepart"), string(b"/upload/a")].concat();
    let asked = client.send(200, &fields).await;
    // Other requests go on meanwhile.
    client.stat("/upload/other").await.refused(2);
    gate.upload_at("/upload/a.filepart", UploadState::Held).await;
    let done = Delivery { state: DeliveryState::Delivered, owner: None, ..claimed };
    gate.settle(Upload { deliveries: vec![done], ..delivering }, UploadState::Processed).await;
    client.reply(asked).await.ok();
    let newer = gate.upload_at("/upload/a", UploadState::Committed).await;
    assert_eq!(gate.content(&newer).await, b"newer");
}

#[tokio::test]
async fn a_gateway_that_stops_does_not_wait_for_a_delivery() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"older").await.ok();
    client.put("/upload/a.filepart", b"newer").await.ok();
    let older = gate.upload_at("/upload/a", UploadState::Committed).await;
    let deliveries = vec![claimed(&older)];
    gate.settle(Upload { deliveries, generation: 1, ..older }, UploadState::Delivering).await;
    gate.ingest.draining.cancel();
    let begun = Instant::now();
    assert!(client.open("/upload/a", WRITE | CREAT | TRUNC).await.refused(4).contains("being delivered"));
    let fields =
        [string(b"posix-rename@openssh.com"), string(b"/upload/a.filepart"), string(b"/upload/a")].concat();
    assert!(client.ask(200, &fields).await.refused(4).contains("being delivered"));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// A delivery of an accepted upload that a worker has in hand.
fn claimed(of: &Upload) -> Delivery {
    Delivery { owner: of.owner, ..delivery(of, DeliveryState::Claimed, 1) }
}

#[tokio::test]
async fn only_a_few_directories_are_listed_at_a_time() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(client.ask(11, &string(b"/upload")).await.handle());
    }
    let text = client.ask(11, &string(b"/upload")).await.refused(4);
    assert!(text.contains("close some first"), "{text}");
    client.close(&open.pop().unwrap()).await.ok();
    client.ask(11, &string(b"/upload")).await.handle();
}

#[tokio::test]
async fn an_open_is_refused_at_once_while_the_blob_store_takes_nothing() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let (storage, blob) = (&gate.ingest.storage, gate.backends.blob.as_ref());
    let (blobs, away) = (gate.dir.path().join("blobs"), gate.dir.path().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    // It may be late once.
    storage.ask(blob).await;
    client.put("/upload/before", SMALL).await.ok();
    storage.ask(blob).await;
    let refused = client.open("/upload/a", WRITE | CREAT | TRUNC).await;
    let text = refused.refused(4);
    assert!(text.contains("upload the file again in a few minutes"), "{text}");
    assert!(!gate.uploads().await.iter().any(|u| u.path.to_string() == "/upload/a"));
    // What is not allowed anyway is refused for its own reason.
    client.open("/sent/a", WRITE | CREAT | TRUNC).await.refused(3);

    std::fs::rename(&away, &blobs).unwrap();
    storage.ask(blob).await;
    client.put("/upload/a", &large()).await.ok();
}
