//! The worker role on real embedded backends and directories.

mod crashes;
mod policies;
mod trouble;
mod versions;

use crate::{
    config::{DestinationConfig, DirectoryConfig, RouteConfig},
    harness::{House, files},
};
use dropgate_schemas::{
    delivery::{Delivery, DeliveryState, VerifiedBy},
    upload::{Upload, UploadState},
};
use std::{os::unix::fs::PermissionsExt as _, path::Path};

/// A destination that is made as needed.
pub(crate) fn directory(name: &str, path: &Path) -> DestinationConfig {
    let mut config = DirectoryConfig::embedded(name.parse().unwrap());
    config.path = path.to_owned();
    DestinationConfig::Directory(config)
}

pub(crate) fn route(destinations: &[&str], key: &str) -> RouteConfig {
    RouteConfig {
        destinations: destinations.iter().map(|d| d.parse().unwrap()).collect(),
        key: key.to_owned(),
        ..RouteConfig::default()
    }
}

pub(crate) fn delivery<'a>(upload: &'a Upload, destination: &str) -> &'a Delivery {
    upload.current_deliveries().find(|d| d.destination.as_str() == destination).unwrap()
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
    let delivery = delivery(&done, "local");
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

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_go_to_two_places_each() {
    let house = House::new().await;
    let (a, b) = (house.dir.path().join("a"), house.dir.path().join("b"));
    let setup =
        house.setup(vec![directory("a", &a), directory("b", &b)], vec![route(&["a", "b"], "{dir}/{name}")]);
    let crew = house.work_with(setup).await;
    let mut uploads = Vec::new();
    for n in 0..150 {
        uploads.push(house.accept(&format!("/upload/d{}/f{n}", n % 7), format!("file {n}").as_bytes()).await);
    }
    for (n, upload) in uploads.iter().enumerate() {
        house.until_state(upload.upload_id, UploadState::Processed).await;
        for root in [&a, &b] {
            let path = root.join(format!("d{}/f{n}", n % 7));
            assert_eq!(std::fs::read(path).unwrap(), format!("file {n}").as_bytes());
        }
    }
    assert_eq!((files(&a).len(), files(&b).len()), (150, 150));
    crew.stop().await;
    house.close().await;
}
