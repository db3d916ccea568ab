//! A worker dies at each point of a delivery, and the next one finds out.

use super::*;
use crate::{failpoint, harness::within};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_one_right_copy() {
    let bucket = Bucket::make().await;
    for (kind, size) in [("small", 2_000), ("large", 11 << 20)] {
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
            let (name, key) = (format!("/upload/{kind}-{point}"), format!("in/{kind}-{point}"));
            let crew = house.work_with(bucket.setup(&house)).await;
            let older = house.accept(&name, b"older").await;
            house.until_state(older.upload_id, UploadState::Processed).await;
            // Whoever delivered it may not have passed its last point yet.
            crew.stop().await;
            let crew = house.work_with(bucket.setup(&house)).await;
            let paused = house.failpoints.arm(point);
            let bytes = content(size, 5);
            let newer = house.accept(&name, &bytes).await;
            let paused = within(paused).await.unwrap();
            let held = house.upload(newer.upload_id).await;
            let (state, begun_as) = (held.deliveries[0].state, &held.deliveries[0].begun_as);
            if kind == "large" && point == failpoint::WRITING {
                let unfinished = bucket.unfinished_ids(&key).await;
                assert_eq!((state, begun_as.iter().cloned().collect()), (DeliveryState::Staging, unfinished));
            }
            crew.crash().await;
            drop(paused);
            let crew = house.work_with(bucket.setup(&house)).await;
            let done = house.until_state(newer.upload_id, UploadState::Processed).await;
            assert_eq!(done.deliveries[0].state, DeliveryState::Delivered, "{kind} {point}");
            assert!(bucket.bytes(&key).await == bytes, "{kind} {point}");
            assert_eq!(bucket.unfinished(&key).await, 0, "{kind} {point}");
            assert_eq!(done.deliveries[0].begun_as, None, "{kind} {point}");
            let events = house.events(newer.upload_id, "upload.delivered").await;
            let expected = ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"];
            assert_eq!(events, expected, "{kind} {point}");
            crew.stop().await;
            house.close().await;
        }
    }
    bucket.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_worker_finds_out_how_far_it_went() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let (bytes, other) = (content(11 << 20, 1), bucket.adapter(&house));
    let s3 = bucket.adapter(&house);

    // Parts are there: they are completed, and nothing is sent twice.
    let load = Load::new(&house, "parts", &bytes).await;
    let staged = load.stage(&house, &s3).await.unwrap();
    let finalizing = load.finalizing(&staged);
    assert_eq!(bucket.keys().await, Vec::<String>::new(), "nothing is visible");
    assert_eq!(other.recover(&load.target, &finalizing).await.unwrap(), Recovered::Staged(staged.clone()));
    other.finish(&load.target, &staged).await.unwrap();
    // The answer to it was lost, so it is made again, by whoever.
    s3.finish(&load.target, &staged).await.unwrap();
    let Recovered::Done(proof) = s3.recover(&load.target, &finalizing).await.unwrap() else { panic!() };
    assert_eq!(proof.verified_by, VerifiedBy::Crc64nvme);
    assert!(bucket.bytes("in/parts").await == bytes);
    // Taken away after that.
    bucket.operator.delete_object().bucket(&bucket.name).key("in/parts").send().await.unwrap();
    let Recovered::Gone(found) = other.recover(&load.target, &finalizing).await.unwrap() else { panic!() };
    assert!(found.contains("in/parts is not there"), "{found}");

    // What a dead worker left is aborted; an upload under another key that begins the same is not.
    let (left, longer) =
        (Load::new(&house, "left", &bytes).await, Load::new(&house, "left.bak", &bytes).await);
    left.stage(&house, &s3).await.unwrap();
    let kept = longer.stage(&house, &s3).await.unwrap();
    let named = Target { begun_as: s3.begin(&left.target).await.unwrap(), ..left.target.clone() };
    assert_eq!(bucket.unfinished("in/left").await, 2);
    other.discard_later(&named, 1..2).await.unwrap();
    assert_eq!(
        bucket.unfinished("in/left").await,
        1,
        "the one the record names; the other may be a later delivery's"
    );
    other.discard(&left.target, 1..2).await.unwrap();
    assert_eq!(bucket.unfinished("in/left").await, 0);
    other.finish(&longer.target, &kept).await.unwrap();

    // A put leaves no trace before it is made.
    let small = Load::new(&house, "small", b"small").await;
    let staged = small.stage(&house, &s3).await.unwrap();
    let finalizing = small.finalizing(&staged);
    assert_eq!(other.recover(&small.target, &finalizing).await.unwrap(), Recovered::Again);
    s3.finish(&small.target, &staged).await.unwrap();
    let Recovered::Done(proof) = other.recover(&small.target, &finalizing).await.unwrap() else { panic!() };
    assert_eq!(proof.verified_by, VerifiedBy::Sha256);
    house.close().await;
    bucket.gone().await;
}
