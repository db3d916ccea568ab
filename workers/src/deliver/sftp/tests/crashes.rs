//! A worker dies at each crash point of a delivery to OpenSSH.

use super::{openssh::setup, sshd::Sshd};
use crate::{
    failpoint,
    harness::{House, files, within},
};
use dropgate_schemas::{delivery::DeliveryState, upload::UploadState};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_one_right_copy() {
    for sshd in [Sshd::start(), Sshd::start_plain()] {
        for point in [
            failpoint::CLAIMED,
            failpoint::WRITING,
            failpoint::WRITTEN,
            failpoint::FINALIZING,
            failpoint::FINISHED,
            failpoint::VERIFYING,
            failpoint::VERIFIED,
            failpoint::RECORDED,
        ] {
            let house = House::new().await;
            // The second version: there is one of ours in the way.
            let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
            let older = house.accept(&format!("/upload/{point}"), b"older").await;
            house.until_state(older.upload_id, UploadState::Processed).await;
            // Whoever delivered it may not have passed its last point yet.
            crew.stop().await;
            let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
            let paused = house.failpoints.arm(point);
            let newer = house.accept(&format!("/upload/{point}"), b"newer").await;
            let paused = within(paused).await.unwrap();
            crew.crash().await;
            drop(paused);
            let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
            let done = house.until_state(newer.upload_id, UploadState::Processed).await;
            assert_eq!(done.deliveries[0].state, DeliveryState::Delivered, "{point}");
            assert_eq!(std::fs::read(sshd.root().join("in").join(point)).unwrap(), b"newer", "{point}");
            let parts: Vec<String> =
                files(&sshd.root()).into_iter().filter(|f| f.ends_with(".part")).collect();
            assert!(parts.is_empty(), "{point}: {parts:?}");
            let events = house.events(newer.upload_id, "upload.delivered").await;
            assert_eq!(
                events,
                ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"],
                "{point}"
            );
            crew.stop().await;
            house.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_its_receiver_took_away_is_unconfirmed() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::FINISHED);
    let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
    let upload = house.accept("/upload/a", b"taken").await;
    let _paused = within(paused).await.unwrap();
    crew.crash().await;
    std::fs::remove_file(sshd.root().join("in/a")).unwrap();
    let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(done.deliveries[0].state, DeliveryState::Unconfirmed);
    assert!(files(&sshd.root()).is_empty());
    crew.stop().await;
    house.close().await;
}
