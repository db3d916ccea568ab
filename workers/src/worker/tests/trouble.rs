//! Destinations that are down, refuse, or change bytes; bytes of ours that are wrong.

use super::{delivery, directory, route};
use crate::{
    config::DestinationConfig,
    failpoint,
    harness::{House, files, millis, within},
    redeliver::{RedeliverError, redeliver},
};
use dropgate_schemas::{
    delivery::DeliveryState, digest::Sha256, id::UploadId, reason::ReasonCode, upload::UploadState,
};
use std::path::Path;

/// A destination that is there only if somebody mounts it.
fn mounted(name: &str, path: &Path) -> DestinationConfig {
    let DestinationConfig::Directory(mut keys) = directory(name, path) else { unreachable!() };
    keys.create = false;
    DestinationConfig::Directory(keys)
}

/// Changes a byte of the one temporary file below a directory.
fn flip(root: &Path) {
    let parts: Vec<String> = files(root).into_iter().filter(|f| f.ends_with(".part")).collect();
    assert_eq!(parts.len(), 1, "{parts:?}");
    let path = root.join(&parts[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_changes_bytes_never_shows_them() {
    let house = House::new().await;
    let mut paused = house.failpoints.arm(failpoint::WRITTEN);
    let crew = house.work().await;
    let upload = house.accept("/upload/a.csv", b"as it was").await;
    for attempt in 1..=3 {
        let at_hand = within(&mut paused).await.unwrap();
        flip(&house.delivered());
        if attempt < 3 {
            paused = house.failpoints.arm(failpoint::WRITTEN);
        }
        at_hand.go_on();
    }
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::Digest);
    assert!(files(&house.delivered()).is_empty(), "nothing visible, nothing left behind");
    assert_eq!(
        house.events(upload.upload_id, "upload.failed").await,
        [
            "upload.received.v1",
            "delivery.deferred.v1",
            "delivery.deferred.v1",
            "delivery.dead_lettered.v1",
            "upload.failed.v1"
        ]
    );
    // It was the disk's mood: an operator sends it again.
    redeliver(house.backends.state.clone(), upload.upload_id, "olga", "test").await.unwrap();
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!((done.generation, done.reason), (2, None));
    assert_eq!(std::fs::read(house.delivered().join("acme/anna/a.csv")).unwrap(), b"as it was");
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_those_that_were_accepted_are_not_delivered() {
    let house = House::new().await;
    let crew = house.work().await;
    let upload =
        house.accept_with("/upload/a.csv", b"bytes", |u| u.sha256 = Some(Sha256::of(b"other"))).await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::Digest);
    assert_eq!(delivery(&house.upload(upload.upload_id).await, "local").attempts, 3);
    assert!(files(&house.delivered()).is_empty());
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_down_is_waited_for_and_keeps_nobody_else_waiting() {
    let house = House::new().await;
    let (down, up) = (house.dir.path().join("down"), house.dir.path().join("up"));
    let mut to_down = route(&["down"], "{name}");
    to_down.path = crate::config::OneOrMany(vec!["down-*".to_owned()]);
    let setup = house
        .setup(vec![mounted("down", &down), directory("up", &up)], vec![to_down, route(&["up"], "{name}")]);
    let crew = house.work_with(setup).await;
    let mut waiting = Vec::new();
    for n in 0..40 {
        waiting.push(house.accept(&format!("/upload/down-{n}"), b"patience").await);
    }
    for n in 0..10 {
        let upload = house.accept(&format!("/upload/up-{n}"), b"at once").await;
        house.until_state(upload.upload_id, UploadState::Processed).await;
    }
    let deferred = |u: &dropgate_schemas::upload::Upload| u.deliveries.iter().any(|d| d.attempts > 0);
    house.until(waiting[0].upload_id, deferred).await;
    assert!(!down.exists(), "nothing is written beside a mount point");
    std::fs::create_dir(&down).unwrap();
    for upload in &waiting {
        house.until_state(upload.upload_id, UploadState::Processed).await;
    }
    assert_eq!(files(&down).len(), 40);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_budget_is_used_up_the_upload_has_failed() {
    let house = House::new().await;
    let down = house.dir.path().join("down");
    let mut setup = house.setup(vec![mounted("down", &down)], vec![route(&["down"], "{name}")]);
    setup.config.retry.budget_seconds = millis(300);
    let crew = house.work_with(setup).await;
    let upload = house.accept("/upload/a.csv", b"never").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let reason = failed.reason.clone().unwrap();
    assert_eq!(reason.code, ReasonCode::DestDown);
    assert!(reason.sentence.contains("does not exist: mount or create it"), "{}", reason.sentence);
    assert!(delivery(&failed, "down").attempts > 1);
    let acts = house.acts(upload.upload_id).await;
    assert_eq!(&acts[acts.len() - 2..], ["delivery.dead_letter", "upload.fail"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_to_a_destination_that_left_the_config_is_given_up_when_its_time_is_over() {
    let house = House::new().await;
    let (old, new) = (house.dir.path().join("old"), house.dir.path().join("new"));
    let crew =
        house.work_with(house.setup(vec![mounted("old", &old)], vec![route(&["old"], "{name}")])).await;
    let upload = house.accept("/upload/a.csv", b"stranded").await;
    house.until(upload.upload_id, |u| u.deliveries.iter().any(|d| d.attempts > 0 && d.owner.is_none())).await;
    crew.stop().await;
    let mut setup = house.setup(vec![directory("new", &new)], vec![route(&["new"], "{name}")]);
    setup.config.retry.budget_seconds = millis(1);
    let crew = house.work_with(setup).await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert_eq!(delivery(&failed, "old").state, DeliveryState::Dead);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_destination_fails_the_upload_but_the_others_get_it() {
    let house = House::new().await;
    let (down, up) = (house.dir.path().join("down"), house.dir.path().join("up"));
    let mut setup = house
        .setup(vec![mounted("down", &down), directory("up", &up)], vec![route(&["down", "up"], "{name}")]);
    setup.config.retry.budget_seconds = millis(300);
    let crew = house.work_with(setup).await;
    let upload = house.accept("/upload/a.csv", b"half").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert!(delivery(&failed, "up").receipt.is_some());
    assert_eq!(std::fs::read(up.join("a.csv")).unwrap(), b"half");
    // Sent again, both get it: the second copy takes the place of the first.
    std::fs::create_dir(&down).unwrap();
    redeliver(house.backends.state.clone(), upload.upload_id, "olga", "test").await.unwrap();
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!((files(&up), files(&down)), (vec!["a.csv".to_owned()], vec!["a.csv".to_owned()]));
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_lead_nowhere() {
    let house = House::new().await;
    let outside = house.dir.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(house.delivered()).unwrap();
    std::os::unix::fs::symlink(&outside, house.delivered().join("acme")).unwrap();
    let crew = house.work().await;
    let upload = house.accept("/upload/a.csv", b"inside").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let reason = failed.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::Denied);
    assert!(reason.sentence.contains("symbolic link"), "{}", reason.sentence);
    assert!(files(&outside).is_empty());
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivery_says_why_not() {
    let house = House::new().await;
    let state = house.backends.state.clone();
    let unknown = UploadId::new();
    let error = redeliver(state.clone(), unknown, "olga", "test").await.unwrap_err();
    assert!(matches!(error, RedeliverError::NotFound(id) if id == unknown));
    let waiting = house.accept("/upload/a.csv", b"x").await;
    let error = redeliver(state.clone(), waiting.upload_id, "olga", "test").await.unwrap_err();
    assert!(error.to_string().contains("is committed: it is being delivered already"), "{error}");
    let removed = house
        .accept_with("/upload/b.csv", b"x", |u| {
            u.state = UploadState::Failed;
            u.deleted_at = Some(u.opened_at);
        })
        .await;
    let error = redeliver(state, removed.upload_id, "olga", "test").await.unwrap_err();
    assert!(error.to_string().contains("restore it first"), "{error}");
    house.close().await;
}
