//! A worker dies at each crash point; the next one finds out how far it came.

use super::{delivery, directory, route};
use crate::{
    config::Seconds,
    failpoint,
    harness::{House, files, millis, within},
    redeliver::redeliver,
};
use dropgate_schemas::{
    delivery::DeliveryState,
    id::OutboxId,
    job::{Job, Work},
    reason::ReasonCode,
    upload::UploadState,
};
use std::time::Duration;

pub(super) const POINTS: [&str; 9] = [
    failpoint::TAKEN,
    failpoint::CLAIMED,
    failpoint::WRITING,
    failpoint::WRITTEN,
    failpoint::FINALIZING,
    failpoint::FINISHED,
    failpoint::VERIFYING,
    failpoint::VERIFIED,
    failpoint::RECORDED,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_one_right_copy_and_one_story() {
    for point in POINTS {
        let house = House::new().await;
        let paused = house.failpoints.arm(point);
        let crew = house.work().await;
        let bytes = format!("crash at {point}").into_bytes();
        let upload = house.accept("/upload/in/a.csv", &bytes).await;
        let paused = within(paused).await.unwrap();
        crew.crash().await;
        drop(paused);
        let crew = house.work().await;
        house.until_state(upload.upload_id, UploadState::Processed).await;
        assert_eq!(files(&house.delivered()), ["acme/anna/in/a.csv"], "{point}");
        assert_eq!(std::fs::read(house.delivered().join("acme/anna/in/a.csv")).unwrap(), bytes, "{point}");
        let events = house.events(upload.upload_id, "upload.delivered").await;
        assert_eq!(events, ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"], "{point}");
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_takes_over_from_a_dead_one() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::FINALIZING);
    let crew = house.work_as("first", house.setup(vec![], vec![])).await;
    let upload = house.accept("/upload/a.csv", b"taken over").await;
    let _paused = within(paused).await.unwrap();
    crew.crash().await;
    let mut setup = house.setup(vec![], vec![]);
    setup.config.lease_seconds = Seconds::from(4);
    let crew = house.work_as("second", setup).await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!((delivery(&done, "local").epoch, delivery(&done, "local").crashes), (2, 1));
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_late_can_not_settle_any_more() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::WRITTEN);
    let mut setup = house.setup(vec![], vec![]);
    setup.config.sweep.every_seconds = Seconds::from(1000);
    let stalled = house.work_as("first", setup).await;
    let upload = house.accept("/upload/a.csv", b"late").await;
    let paused = within(paused).await.unwrap();
    // As a machine that sleeps: its heartbeat stands still, it sweeps nothing, and its work does not go on.
    stalled.hush();
    let mut setup = house.setup(vec![], vec![]);
    setup.config.lease_seconds = Seconds::from(4);
    let crew = house.work_as("second", setup).await;
    // The stalled one may hold the sweeper's lease for a while yet, so the bell is rung by hand.
    let delivery = house.upload(upload.upload_id).await.deliveries[0].delivery_id;
    let ringing = async {
        loop {
            let work = Work::Deliver { delivery };
            let job = Job { entry: OutboxId::new(), upload: upload.upload_id, work };
            house.backends.queue.publish(&[job]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let done = tokio::select! {
        done = house.until_state(upload.upload_id, UploadState::Processed) => done,
        () = ringing => unreachable!(),
    };
    paused.go_on();
    stalled.stop().await;
    assert_eq!(house.upload(upload.upload_id).await, done);
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    let events = house.events(upload.upload_id, "upload.delivered").await;
    assert_eq!(events, ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_its_receiver_took_away_before_it_was_recorded_is_unconfirmed_and_not_sent_again() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::FINISHED);
    let crew = house.work().await;
    let upload = house.accept("/upload/a.csv", b"taken").await;
    let _paused = within(paused).await.unwrap();
    crew.crash().await;
    std::fs::remove_file(house.delivered().join("acme/anna/a.csv")).unwrap();
    let crew = house.work().await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(delivery(&done, "local").state, DeliveryState::Unconfirmed);
    assert!(files(&house.delivered()).is_empty());
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_on_which_workers_die_is_kept_back_until_an_operator_asks() {
    let house = House::new().await;
    let mut setup = house.setup(vec![], vec![]);
    setup.config.retry.crashes = 2;
    let upload = house.accept("/upload/a.csv", b"poison").await;
    for _ in 0..2 {
        let paused = house.failpoints.arm(failpoint::WRITING);
        let crew = house.work_with(setup.clone()).await;
        let _paused = within(paused).await.unwrap();
        crew.crash().await;
    }
    let crew = house.work_with(setup).await;
    let kept = house.until_state(upload.upload_id, UploadState::Quarantined).await;
    assert_eq!(kept.reason.unwrap().code, ReasonCode::Crashes);
    assert!(
        house
            .events(upload.upload_id, "delivery.dead")
            .await
            .contains(&"delivery.dead_lettered.v1".to_owned())
    );
    redeliver(house.backends.state.clone(), upload.upload_id, "olga", "test").await.unwrap();
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert!(files(&house.delivered()).contains(&"acme/anna/a.csv".to_owned()));
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_back_what_it_can_not_end() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::WRITING);
    let mut setup = house.setup(vec![], vec![]);
    setup.config.drain_seconds = millis(100);
    let crew = house.work_with(setup).await;
    let upload = house.accept("/upload/a.csv", b"later").await;
    let _paused = within(paused).await.unwrap();
    crew.stop().await;
    let given_back = house.upload(upload.upload_id).await;
    assert_eq!(given_back.state, UploadState::Committed);
    let released = delivery(&given_back, "local");
    assert_eq!((released.state, released.attempts, released.crashes), (DeliveryState::Pending, 0, 0));
    let crew = house.work_as("other", house.setup(vec![], vec![])).await;
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(files(&house.delivered()), ["acme/anna/a.csv"]);
    assert!(house.acts(upload.upload_id).await.contains(&"delivery.release".to_owned()));
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_running_deliveries_end() {
    let house = House::new().await;
    let paused = house.failpoints.arm(failpoint::WRITING);
    let crew = house
        .work_with(house.setup(
            vec![directory("there", &house.dir.path().join("there"))],
            vec![route(&["there"], "{name}")],
        ))
        .await;
    let upload = house.accept("/upload/a.csv", b"now").await;
    let paused = within(paused).await.unwrap();
    let stopping = tokio::spawn(crew.stop());
    paused.go_on();
    within(stopping).await.unwrap();
    assert_eq!(house.upload(upload.upload_id).await.state, UploadState::Processed);
    house.close().await;
}
