//! Versions of one path go to a destination in order.

use super::delivery;
use crate::{
    failpoint,
    harness::{House, files, record, within},
};
use bytes::Bytes;
use dropgate_schemas::{
    audit::Action,
    change::OutboxEntry,
    delivery::DeliveryState,
    digest::Sha256,
    job::Work,
    upload::{BlobRef, UploadState},
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_the_place_of_the_one_before_it() {
    let house = House::new().await;
    let crew = house.work().await;
    for n in 1..=3 {
        let upload = house.accept("/upload/a.csv", format!("version {n}").as_bytes()).await;
        let done = house.until_state(upload.upload_id, UploadState::Processed).await;
        assert_eq!((done.version, delivery(&done, "local").attempts), (n, 1));
        assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
        let there = std::fs::read(house.delivered().join("acme/anna/a.csv")).unwrap();
        assert_eq!(there, format!("version {n}").as_bytes());
        if let Some(older) = upload.supersedes {
            house.until_state(older, UploadState::Superseded).await;
        }
    }
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_overtaken_before_it_is_finished_is_cancelled() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::WRITTEN);
    let crew = house.work().await;
    let older = house.accept("/upload/a.csv", b"older").await;
    let paused = within(paused).await.unwrap();
    let newer = house.accept("/upload/a.csv", b"newer").await;
    let overtaken = house.until_state(older.upload_id, UploadState::Superseded).await;
    assert_eq!(overtaken.deliveries[0].state, DeliveryState::Cancelled);
    house.until_state(newer.upload_id, UploadState::Processed).await;
    paused.go_on();
    let path = house.delivered().join("acme/anna/a.csv");
    let quiet = async {
        while files(&house.delivered()).len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(quiet).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"newer");
    crew.stop().await;
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_may_be_visible_settles_before_the_next_one_goes() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::FINALIZING);
    let crew = house.work().await;
    let older = house.accept("/upload/a.csv", b"older").await;
    let paused = within(paused).await.unwrap();
    let newer = house.accept("/upload/a.csv", b"newer").await;
    house.until(newer.upload_id, |u| !u.deliveries.is_empty()).await;
    // It has its turn to look, and has to wait.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(delivery(&house.upload(newer.upload_id).await, "local").state, DeliveryState::Pending);
    paused.go_on();
    house.until_state(older.upload_id, UploadState::Superseded).await;
    house.until_state(newer.upload_id, UploadState::Processed).await;
    assert_eq!(std::fs::read(house.delivered().join("acme/anna/a.csv")).unwrap(), b"newer");
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_quick_versions_the_last_one_is_there_in_the_end() {
    let house = House::new().await;
    let crew = house.work().await;
    let mut uploads = Vec::new();
    for n in 0..20 {
        uploads.push(house.accept("/upload/a.csv", format!("version {n}").as_bytes()).await);
    }
    let last = uploads.pop().unwrap();
    house.until_state(last.upload_id, UploadState::Processed).await;
    for older in uploads {
        house.until_state(older.upload_id, UploadState::Superseded).await;
    }
    assert_eq!(std::fs::read(house.delivered().join("acme/anna/a.csv")).unwrap(), b"version 19");
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_that_were_accepted_without_seeing_each_other_do_not_wait_for_each_other() {
    let house = House::new().await;
    let older = house.accept("/upload/a.csv", b"older").await;
    // As `accept` does, but without the wish to supersede the older one.
    let content = Bytes::from_static(b"newer");
    let mut newer = record("/upload/a.csv");
    newer.version = older.version + 1;
    newer.blob = Some(BlobRef::Inline);
    newer.size = Some(5);
    newer.sha256 = Some(Sha256::of(&content));
    let route = OutboxEntry::job(newer.upload_id, Work::Route);
    let newer = house.write(newer, Some(content), Action::UploadAccept, vec![route]).await;
    let crew = house.work().await;
    house.until_state(newer.upload_id, UploadState::Processed).await;
    let overtaken = house.until_state(older.upload_id, UploadState::Superseded).await;
    assert_eq!(overtaken.superseded_by, Some(newer.upload_id));
    assert!(overtaken.deliveries.is_empty());
    assert_eq!(std::fs::read(house.delivered().join("acme/anna/a.csv")).unwrap(), b"newer");
    crew.stop().await;
    house.close().await;
}
