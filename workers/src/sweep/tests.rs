//! What is lost on the way is found again.

use crate::{
    config::Seconds,
    failpoint,
    harness::{House, files, millis, record, within},
    redeliver::redeliver,
};
use bytes::Bytes;
use dropgate_schemas::{
    audit::Action,
    digest::{Base64, Sha256},
    id::{BlobId, InstanceId},
    reason::ReasonCode,
    upload::{BlobRef, Staged, StagedBlob, Upload, UploadState},
};
use std::time::Duration;

fn unfinished(path: &str, state: UploadState) -> Upload {
    let mut upload = record(path);
    upload.state = state;
    upload.received_at = None;
    upload.receipt_id = None;
    upload.evidence = None;
    upload
}

fn staged(length: u64, blob: Option<BlobId>) -> Option<Staged> {
    Some(Staged {
        length,
        sha256_state: Base64(vec![]),
        head: Base64(vec![]),
        tail: Base64(vec![]),
        blob: blob.map(|blob| StagedBlob { blob, blocks: vec![], tag: None }),
    })
}

async fn blob(house: &House, bytes: &[u8]) -> BlobId {
    let blob = BlobId::new();
    let mut writer = house.backends.blob.begin(blob, 1).await.unwrap();
    writer.stage(Bytes::copy_from_slice(bytes)).await.unwrap();
    writer.seal(bytes.len() as u64).await.unwrap();
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_bell_was_lost_is_rung_for_again() {
    let house = House::new().await;
    // Accepted, but the queue forgot it.
    let mut upload = record("/upload/a.csv");
    upload.blob = Some(BlobRef::Inline);
    upload.size = Some(4);
    upload.sha256 = Some(Sha256::of(b"lost"));
    let lost = house.write(upload, Some(Bytes::from_static(b"lost")), Action::UploadAccept, vec![]).await;
    let crew = house.work().await;
    house.until_state(lost.upload_id, UploadState::Processed).await;
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_gateway_was_receiving_is_interrupted_or_given_up() {
    let house = House::new().await;
    let gone = InstanceId::new();
    let write = async |path: &str, state, length| {
        let mut upload = unfinished(path, state);
        upload.owner = Some(gone);
        upload.staged = (length > 0).then(|| staged(length, None)).flatten();
        house.write(upload, None, Action::UploadOpen, vec![]).await.upload_id
    };
    let resumable = write("/upload/resumable", UploadState::Receiving, 5).await;
    let nothing = write("/upload/nothing", UploadState::Receiving, 0).await;
    let closing = write("/upload/closing", UploadState::Closing, 5).await;
    let mut setup = house.setup(vec![], vec![]);
    setup.config.sweep.gateway_lease_seconds = Seconds::from(4);
    let crew = house.work_with(setup).await;
    let partial = house.until_state(resumable, UploadState::Partial).await;
    assert_eq!((partial.owner, partial.epoch, partial.staged.unwrap().length), (None, 2, 5));
    assert_eq!(house.acts(resumable).await, ["upload.open", "upload.interrupt"]);
    for given_up in [nothing, closing] {
        let aborted = house.until_state(given_up, UploadState::Aborted).await;
        assert_eq!(aborted.reason.unwrap().code, ReasonCode::Abandoned);
        assert_eq!(house.events(given_up, "upload.aborted").await, ["upload.aborted.v1"]);
        assert_eq!(house.acts(given_up).await, ["upload.open", "upload.abort"]);
    }
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_gateway_receives_is_left_alone() {
    let house = House::new().await;
    let living = InstanceId::new();
    let mut upload = unfinished("/upload/a", UploadState::Receiving);
    upload.owner = Some(living);
    let upload = house.write(upload, None, Action::UploadOpen, vec![]).await;
    let mut setup = house.setup(vec![], vec![]);
    setup.config.sweep.gateway_lease_seconds = Seconds::from(4);
    let crew = house.work_with(setup).await;
    for _ in 0..70 {
        house.backends.state.heartbeat(living, "gateway", "there").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(house.upload(upload.upload_id).await, upload);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_too_long_is_given_up_or_failed_and_can_be_delivered() {
    let house = House::new().await;
    let mut partial = unfinished("/upload/partial", UploadState::Partial);
    partial.staged = staged(5, None);
    let partial = house.write(partial, None, Action::UploadOpen, vec![]).await.upload_id;
    let mut held = unfinished("/upload/a.csv.filepart", UploadState::Held);
    held.blob = Some(BlobRef::Inline);
    held.size = Some(4);
    held.sha256 = Some(Sha256::of(b"held"));
    let held =
        house.write(held, Some(Bytes::from_static(b"held")), Action::UploadHold, vec![]).await.upload_id;
    let mut setup = house.setup(vec![], vec![]);
    let crew = house.work_with(setup.clone()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(house.upload(held).await.state, UploadState::Held, "a day is not over");
    crew.stop().await;
    setup.config.sweep.partial_seconds = millis(100);
    setup.config.sweep.held_seconds = millis(100);
    let crew = house.work_with(setup).await;
    let aborted = house.until_state(partial, UploadState::Aborted).await;
    assert_eq!(aborted.reason.unwrap().code, ReasonCode::Abandoned);
    let failed = house.until_state(held, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::NeverRenamed);
    assert_eq!(house.events(held, "upload.failed").await, ["upload.failed.v1"]);
    redeliver(house.backends.state.clone(), held, "olga", "test").await.unwrap();
    let done = house.until_state(held, UploadState::Processed).await;
    assert!(done.received_at.is_some() && done.receipt_id.is_some());
    assert_eq!(std::fs::read(house.delivered().join("acme/anna/a.csv.filepart")).unwrap(), b"held");
    let events = house.events(held, "upload.delivered").await;
    assert_eq!(
        events,
        ["upload.failed.v1", "upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"]
    );
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_belong_to_nothing_are_removed_and_the_others_are_not() {
    let house = House::new().await;
    let orphan = blob(&house, b"orphan").await;
    let of_aborted = blob(&house, b"aborted").await;
    let of_partial = blob(&house, b"partial").await;
    let delivered = house.accept("/upload/large", &vec![7; 100_000]).await;
    let mut aborted = unfinished("/upload/aborted", UploadState::Aborted);
    aborted.staged = staged(7, Some(of_aborted));
    house.write(aborted, None, Action::UploadAbort, vec![]).await;
    let mut partial = unfinished("/upload/partial", UploadState::Partial);
    partial.staged = staged(7, Some(of_partial));
    house.write(partial, None, Action::UploadOpen, vec![]).await;
    let mut setup = house.setup(vec![], vec![]);
    setup.config.sweep.orphan_seconds = millis(50);
    setup.config.sweep.aborted_seconds = millis(50);
    setup.config.sweep.collect_every_seconds = millis(100);
    let crew = house.work_with(setup).await;
    let list = async || house.backends.blob.list(Duration::ZERO, None, 100).await.unwrap();
    let collected = async {
        while list().await.iter().any(|b| *b == orphan || *b == of_aborted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(collected).await;
    house.until_state(delivered.upload_id, UploadState::Processed).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let left = list().await;
    assert!(left.contains(&of_partial), "it may be resumed");
    assert_eq!(left.len(), 2, "{left:?}");
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_of_deliveries_that_nobody_claims_again_are_removed() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::WRITTEN);
    let crew = house.work().await;
    let older = house.accept("/upload/a.csv", b"older").await;
    let _paused = within(paused).await.unwrap();
    crew.crash().await;
    assert_eq!(files(&house.delivered()).len(), 1, "the temporary file");
    // While no worker runs, the relay cancels what is overtaken.
    let newer = house.accept("/upload/a.csv", b"newer").await;
    house.until_state(older.upload_id, UploadState::Superseded).await;
    let crew = house.work().await;
    house.until_state(newer.upload_id, UploadState::Processed).await;
    let removed = async {
        while files(&house.delivered()).len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(removed).await;
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    crew.stop().await;
    house.close().await;
}
