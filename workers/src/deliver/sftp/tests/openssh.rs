//! What works and what is refused against OpenSSH.

use super::sshd::Sshd;
use crate::{
    config::{DestinationConfig, RouteConfig, Seconds, SftpConfig},
    failpoint,
    harness::{House, files, millis, within},
    worker::Setup,
};
use dropgate_schemas::{
    delivery::{OnCollision, VerifiedBy},
    reason::ReasonCode,
    upload::{Upload, UploadState},
};
use std::path::Path;

pub(super) fn setup(house: &House, destination: SftpConfig) -> Setup {
    let route = RouteConfig {
        destinations: vec![destination.name.clone()],
        key: "in/{dir}/{name}".to_owned(),
        ..RouteConfig::default()
    };
    house.setup(vec![DestinationConfig::Sftp(destination)], vec![route])
}

fn verified_by(upload: &Upload) -> VerifiedBy {
    upload.current_deliveries().next().unwrap().receipt.as_ref().unwrap().verified_by
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_and_names_arrive_with_and_without_extensions() {
    for sshd in [Sshd::start(), Sshd::start_plain()] {
        let house = House::new().await;
        let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
        let large: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 251) as u8).collect();
        for (path, bytes) in [
            ("/upload/deep/er/ä b#1.csv", &b"small"[..]),
            ("/upload/empty", b""),
            ("/upload/large", &large),
            // Over what a name may have with the additions of a temporary one.
            (&format!("/upload/{}", "x".repeat(255)), b"long name"),
        ] {
            let upload = house.accept(path, bytes).await;
            let done = house.until_state(upload.upload_id, UploadState::Processed).await;
            let there = sshd.root().join("in").join(path.trim_start_matches("/upload/"));
            assert!(std::fs::read(there).unwrap() == bytes, "{path}");
            assert_eq!(verified_by(&done), VerifiedBy::Sha256Readback);
            let uri = done.deliveries[0].receipt.as_ref().unwrap().uri.clone();
            let begin = format!("sftp://127.0.0.1:{}/", sshd.port());
            assert!(uri.starts_with(&begin) && uri.contains("/files/in/"), "{uri}");
        }
        // A new version takes the place of the old one.
        let newer = house.accept("/upload/deep/er/ä b#1.csv", b"newer").await;
        house.until_state(newer.upload_id, UploadState::Processed).await;
        assert_eq!(std::fs::read(sshd.root().join("in/deep/er/ä b#1.csv")).unwrap(), b"newer");
        assert_eq!(files(&sshd.root()).len(), 4, "{:?}", files(&sshd.root()));
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_small_files_share_a_few_connections() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
    let mut uploads = Vec::new();
    for n in 0..100 {
        uploads.push(house.accept(&format!("/upload/f{n}"), format!("file {n}").as_bytes()).await);
    }
    for upload in &uploads {
        house.until_state(upload.upload_id, UploadState::Processed).await;
    }
    assert_eq!(files(&sshd.root()).len(), 100);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_host_key_is_refused_by_name_and_nothing_is_sent() {
    let sshd = Sshd::start();
    let other = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let house = House::new().await;
    let mut destination = sshd.destination("bank");
    destination.host_keys = vec![other.to_owned()];
    let crew = house.work_with(setup(&house, destination)).await;
    let upload = house.accept("/upload/a", b"secret").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let reason = failed.reason.clone().unwrap();
    assert_eq!(reason.code, ReasonCode::Denied);
    for fingerprint in [other, &sshd.fingerprint("ed25519"), &sshd.fingerprint("rsa")] {
        assert!(reason.sentence.contains(fingerprint), "{fingerprint}: {}", reason.sentence);
    }
    assert_eq!(failed.deliveries[0].attempts, 3);
    assert!(files(&sshd.root()).is_empty());
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_key_that_the_server_has_may_be_pinned() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let mut destination = sshd.destination("bank");
    destination.host_keys = vec![sshd.fingerprint("rsa")];
    let crew = house.work_with(setup(&house, destination)).await;
    let upload = house.accept("/upload/a", b"by rsa").await;
    house.until_state(upload.upload_id, UploadState::Processed).await;
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_of_ours_is_refused() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let mut destination = sshd.destination("bank");
    destination.private_key = Some(sshd.stranger());
    let crew = house.work_with(setup(&house, destination)).await;
    let upload = house.accept("/upload/a", b"x").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let reason = failed.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::Denied);
    assert!(reason.sentence.contains("refused the private key of user"), "{}", reason.sentence);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_waited_for() {
    let mut sshd = Sshd::start();
    sshd.stop();
    let house = House::new().await;
    let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
    let upload = house.accept("/upload/a", b"patience").await;
    let waiting = house.until(upload.upload_id, |u| u.deliveries.iter().any(|d| d.attempts > 1)).await;
    assert_eq!(waiting.deliveries[0].reason.as_ref().unwrap().code, ReasonCode::DestDown);
    sshd.restart();
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(files(&sshd.root()), ["in/a"]);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_in_the_middle_gets_the_file_once() {
    let mut sshd = Sshd::start();
    let house = House::new().await;
    for point in [failpoint::WRITING, failpoint::WRITTEN, failpoint::FINALIZING, failpoint::VERIFYING] {
        let paused = house.failpoints.arm(point);
        let mut setup = setup(&house, sshd.destination("bank"));
        setup.config.finish_within_seconds = Seconds::from(30);
        let crew = house.work_with(setup).await;
        let path = format!("/upload/{point}");
        let upload = house.accept(&path, point.as_bytes()).await;
        let paused = within(paused).await.unwrap();
        sshd.stop();
        paused.go_on();
        house.until(upload.upload_id, |u| u.deliveries[0].reason.is_some()).await;
        sshd.restart();
        house.until_state(upload.upload_id, UploadState::Processed).await;
        assert_eq!(std::fs::read(sshd.root().join("in").join(point)).unwrap(), point.as_bytes());
        crew.stop().await;
    }
    let parts: Vec<String> = files(&sshd.root()).into_iter().filter(|f| f.ends_with(".part")).collect();
    assert!(parts.is_empty(), "{parts:?}");
    house.close().await;
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
async fn a_server_that_changes_a_byte_never_shows_it() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let mut paused = house.failpoints.arm(failpoint::WRITTEN);
    let crew = house.work_with(setup(&house, sshd.destination("bank"))).await;
    let upload = house.accept("/upload/a", b"as it was").await;
    for attempt in 1..=3 {
        let at_hand = within(&mut paused).await.unwrap();
        flip(&sshd.root());
        if attempt < 3 {
            paused = house.failpoints.arm(failpoint::WRITTEN);
        }
        at_hand.go_on();
    }
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::Digest);
    assert!(files(&sshd.root()).is_empty());
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_is_left_alone_unless_the_policy_says_otherwise() {
    for (sshd, policy) in [
        (Sshd::start(), OnCollision::Fail),
        (Sshd::start_plain(), OnCollision::Fail),
        (Sshd::start(), OnCollision::Suffix),
        (Sshd::start(), OnCollision::Replace),
        (Sshd::start_plain(), OnCollision::Replace),
    ] {
        let house = House::new().await;
        std::fs::create_dir(sshd.root().join("in")).unwrap();
        std::fs::write(sshd.root().join("in/a.csv"), b"foreign").unwrap();
        let mut setup = setup(&house, sshd.destination("bank"));
        setup.routes[0].on_collision = policy;
        let crew = house.work_with(setup).await;
        let upload = house.accept("/upload/a.csv", b"of ours").await;
        let ended = house.until(upload.upload_id, |u| u.settled_at.is_some()).await;
        let there = std::fs::read(sshd.root().join("in/a.csv")).unwrap();
        let own = format!("in/a~{}.csv", upload.upload_id.short());
        match policy {
            OnCollision::Fail => {
                assert_eq!(ended.reason.unwrap().code, ReasonCode::Collision);
                assert_eq!((files(&sshd.root()), &there[..]), (vec!["in/a.csv".to_owned()], &b"foreign"[..]));
            }
            OnCollision::Suffix => {
                assert_eq!(ended.state, UploadState::Processed);
                assert_eq!(
                    (files(&sshd.root()), &there[..]),
                    (vec!["in/a.csv".to_owned(), own], &b"foreign"[..])
                );
            }
            OnCollision::Replace => {
                assert_eq!(ended.state, UploadState::Processed);
                assert_eq!((files(&sshd.root()), &there[..]), (vec!["in/a.csv".to_owned()], &b"of ours"[..]));
            }
        }
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_be_read_back_is_compared_by_size() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let mut destination = sshd.destination("bank");
    destination.read_back_bytes = 3;
    destination.file_mode = Some(crate::config::Mode(0o604));
    let crew = house.work_with(setup(&house, destination)).await;
    let upload = house.accept("/upload/a", b"four").await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(verified_by(&done), VerifiedBy::Size);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(sshd.root().join("in/a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o604);
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_directory_that_must_not_be_made_is_named() {
    let sshd = Sshd::start();
    let house = House::new().await;
    let mut destination = sshd.destination("bank");
    destination.make_directories = false;
    let mut setup = setup(&house, destination);
    setup.config.retry.budget_seconds = millis(500);
    let crew = house.work_with(setup).await;
    let upload = house.accept("/upload/a", b"x").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let sentence = failed.reason.unwrap().sentence;
    assert!(sentence.contains("no such file") && sentence.contains("make_directories"), "{sentence}");
    crew.stop().await;
    house.close().await;
}
