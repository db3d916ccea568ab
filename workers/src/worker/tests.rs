use crate::{
    config::{DestinationConfig, DirectoryConfig, RouteConfig},
    failpoint,
    harness::{Crew, House, files, millis, quick, within},
    redeliver::{RedeliverError, redeliver},
};
use dropgate_backends::UploadQuery;
use dropgate_schemas::{
    delivery::{DeliveryState, OnCollision, VerifiedBy},
    reason::ReasonCode,
    upload::{Upload, UploadState},
};
use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

fn directory(name: &str, path: &Path) -> DestinationConfig {
    let mut config = DirectoryConfig::embedded(name.parse().unwrap());
    config.path = path.to_owned();
    DestinationConfig::Directory(config)
}

fn route(destinations: &[&str], key: &str) -> RouteConfig {
    RouteConfig {
        destinations: destinations.iter().map(|d| d.parse().unwrap()).collect(),
        key: key.to_owned(),
        ..RouteConfig::default()
    }
}

fn delivery_state(upload: &Upload, destination: &str) -> DeliveryState {
    upload.current_deliveries().find(|d| d.destination.as_str() == destination).unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_upload_is_delivered_verified_and_told() {
    let house = House::new().await;
    let crew = house.work().await;
    let upload = house.accept("/upload/in/order 1.csv", b"a;b\n1;2\n").await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    let path = house.delivered().join("acme/anna/in/order 1.csv");
    assert_eq!(std::fs::read(&path).unwrap(), b"a;b\n1;2\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let delivery = &done.deliveries[0];
    let receipt = delivery.receipt.as_ref().unwrap();
    assert_eq!(receipt.verified_by, VerifiedBy::Sha256Readback);
    assert!(receipt.uri.starts_with("file:///") && receipt.uri.ends_with("/acme/anna/in/order%201.csv"));
    assert_eq!((delivery.state, delivery.attempts, delivery.owner), (DeliveryState::Delivered, 1, None));
    assert_eq!(
        house.acts(upload.upload_id).await,
        [
            "upload.accept",
            "upload.route",
            "delivery.claim",
            "delivery.finalize",
            "delivery.succeed",
            "upload.process"
        ]
    );
    assert_eq!(
        house.events(upload.upload_id, "upload.delivered").await,
        ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"]
    );
    assert_eq!(files(&house.delivered()), ["acme/anna/in/order 1.csv"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_empty_files_arrive_whole() {
    let house = House::new().await;
    let crew = house.work().await;
    let large: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 251) as u8).collect();
    for (name, bytes) in [("large", &large[..]), ("empty", &[])] {
        let upload = house.accept(&format!("/upload/{name}"), bytes).await;
        house.until_state(upload.upload_id, UploadState::Processed).await;
        assert!(std::fs::read(house.delivered().join("acme/anna").join(name)).unwrap() == bytes, "{name}");
    }
    crew.stop().await;
    house.close().await;
}
