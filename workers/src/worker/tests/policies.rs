//! Keys that are taken, and uploads that nobody wants.

use super::{delivery, directory, route};
use crate::{
    harness::{House, files},
    redeliver::redeliver,
};
use dropgate_schemas::{
    delivery::{DeliveryState, OnCollision},
    reason::ReasonCode,
    upload::UploadState,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_is_left_alone_unless_the_policy_says_otherwise() {
    for policy in [OnCollision::Fail, OnCollision::Suffix, OnCollision::Replace] {
        let house = House::new().await;
        let there = house.dir.path().join("there");
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("a.csv"), b"foreign").unwrap();
        let mut to_there = route(&["there"], "{name}");
        to_there.on_collision = policy;
        let setup = house.setup(vec![directory("there", &there)], vec![to_there]);
        let crew = house.work_with(setup).await;
        // As long as the foreign one: size proves nothing.
        let upload = house.accept("/upload/a.csv", b"of ours").await;
        let own = format!("a~{}.csv", upload.upload_id.short());
        match policy {
            OnCollision::Fail => {
                let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
                assert_eq!(failed.reason.clone().unwrap().code, ReasonCode::Collision);
                assert_eq!(delivery(&failed, "there").attempts, 1, "asked once");
                assert_eq!(files(&there), ["a.csv"]);
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"foreign");
            }
            OnCollision::Suffix => {
                let done = house.until_state(upload.upload_id, UploadState::Processed).await;
                assert_eq!(delivery(&done, "there").key, own);
                assert_eq!(files(&there), ["a.csv".to_owned(), own.clone()]);
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"foreign");
                assert_eq!(std::fs::read(there.join(&own)).unwrap(), b"of ours");
            }
            OnCollision::Replace => {
                house.until_state(upload.upload_id, UploadState::Processed).await;
                assert_eq!(files(&there), ["a.csv"]);
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"of ours");
            }
        }
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_paths_do_not_share_a_key_unless_the_policy_says_so() {
    for policy in [OnCollision::Fail, OnCollision::Suffix, OnCollision::Replace] {
        let house = House::new().await;
        let there = house.dir.path().join("there");
        let mut to_there = route(&["there"], "{name}");
        to_there.on_collision = policy;
        let setup = house.setup(vec![directory("there", &there)], vec![to_there]);
        let crew = house.work_with(setup).await;
        let first = house.accept("/upload/one/a.csv", b"one").await;
        house.until_state(first.upload_id, UploadState::Processed).await;
        let second = house.accept("/upload/two/a.csv", b"two").await;
        let own = format!("a~{}.csv", second.upload_id.short());
        match policy {
            OnCollision::Fail => {
                let failed = house.until_state(second.upload_id, UploadState::Failed).await;
                assert_eq!(failed.reason.clone().unwrap().code, ReasonCode::Collision);
                assert_eq!(delivery(&failed, "there").state, DeliveryState::Dead);
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"one");
            }
            OnCollision::Suffix => {
                house.until_state(second.upload_id, UploadState::Processed).await;
                // Its next version goes to the same place.
                let next = house.accept("/upload/two/a.csv", b"two again").await;
                house.until_state(next.upload_id, UploadState::Processed).await;
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"one");
                assert_eq!(std::fs::read(there.join(&own)).unwrap(), b"two again");
                assert_eq!(files(&there), ["a.csv".to_owned(), own]);
            }
            OnCollision::Replace => {
                house.until_state(second.upload_id, UploadState::Processed).await;
                assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"two");
            }
        }
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_takes_fails_and_can_be_delivered_once_there_is_one() {
    let house = House::new().await;
    let there = house.dir.path().join("there");
    let mut only_xml = route(&["there"], "{name}");
    only_xml.path = crate::config::OneOrMany(vec!["**/*.xml".to_owned(), "*.xml".to_owned()]);
    let crew = house.work_with(house.setup(vec![directory("there", &there)], vec![only_xml])).await;
    let upload = house.accept("/upload/a.csv", b"nobody's").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::NoRoute);
    assert_eq!(
        house.events(upload.upload_id, "upload.failed").await,
        ["upload.received.v1", "upload.failed.v1"]
    );
    assert_eq!(house.acts(upload.upload_id).await, ["upload.accept", "upload.fail"]);
    crew.stop().await;
    // The operator asks while no worker runs.
    redeliver(house.backends.state.clone(), upload.upload_id, "olga", "test").await.unwrap();
    let setup = house.setup(vec![directory("there", &there)], vec![route(&["there"], "{name}")]);
    let crew = house.work_with(setup).await;
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(std::fs::read(there.join("a.csv")).unwrap(), b"nobody's");
    crew.stop().await;
    house.close().await;
}
