//! Against a real server, as `scripts/services` starts it.

mod proxy;

use super::*;
use crate::{
    config::{DestinationConfig, RouteConfig},
    failpoint,
    harness::{House, within},
    worker::Setup,
};
use dropgate_backends::{
    Backends, BackendsConfig, Secret, SecretError,
    config::{AzureBlockSum, BlobAzureConfig, BlobConfig},
};
use dropgate_schemas::{
    content::ContentType,
    delivery::{DeliveryState, OnCollision},
    reason::ReasonCode,
    upload::{Upload, UploadState},
};
use proxy::{MARK, Mode, Proxy};
use std::time::Duration;
use tokio::sync::OnceCell;

const CONTAINER: &str = "dropgate-deliveries";

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the servers with scripts/services and take its env, or use make test-servers")
    })
}

struct Environment;

#[async_trait]
impl SecretStore for Environment {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        Ok(Secret::new(given(reference.trim_start_matches("env:")).into_bytes()))
    }
}

/// A place of its own in a container that all these tests share, and a view of it that is not the adapter's.
struct Shore {
    config: AzureConfig,
    view: Container,
}

static MADE: OnceCell<()> = OnceCell::const_new();

impl Shore {
    async fn new() -> Self {
        MADE.get_or_init(|| async {
            let dir = tempfile::tempdir().unwrap();
            let blob = BlobConfig::Azure(BlobAzureConfig {
                account: Some(given("DROPGATE_TEST_AZURE_ACCOUNT")),
                endpoint: Some(given("DROPGATE_TEST_AZURE_ENDPOINT")),
                container: CONTAINER.to_owned(),
                account_key: Some("env:DROPGATE_TEST_AZURE_KEY".to_owned()),
                allow_account_key: true,
                create_container: true,
                ..BlobAzureConfig::default()
            });
            let config = BackendsConfig { blob, ..BackendsConfig::default() };
            Backends::open(&config, dir.path()).await.unwrap().close().await;
        })
        .await;
        let config = AzureConfig {
            name: "lake".parse().unwrap(),
            account: Some(given("DROPGATE_TEST_AZURE_ACCOUNT")),
            endpoint: Some(given("DROPGATE_TEST_AZURE_ENDPOINT")),
            container: CONTAINER.to_owned(),
            prefix: DeliveryId::new().to_string(),
            identity: None,
            client_id: None,
            sas: None,
            block_sum: AzureBlockSum::default(),
            account_key: Some("env:DROPGATE_TEST_AZURE_KEY".to_owned()),
            read_back_bytes: 256 << 20,
            parallel: None,
            deadline_seconds: Duration::from_secs(20).into(),
        };
        let limits = Limits::within(Duration::from_secs(20));
        let view = Container::new(&config.keys().place().unwrap(), Arc::new(Environment), limits).unwrap();
        Self { config, view }
    }

    /// The same place, reached through a relay.
    async fn behind(&self, mode: Mode) -> (Proxy, AzureConfig) {
        let endpoint = self.config.endpoint.clone().unwrap();
        let (host, path) = endpoint.trim_start_matches("http://").split_once('/').unwrap();
        let proxy = Proxy::start(host, mode).await;
        let endpoint = Some(format!("http://{}/{path}", proxy.address));
        (proxy, AzureConfig { endpoint, ..self.config.clone() })
    }

    fn setup(&self, house: &House) -> Setup {
        setup(house, self.config.clone(), OnCollision::Fail)
    }

    fn name(&self, key: &str) -> String {
        format!("{}/in/{key}", self.config.prefix)
    }

    async fn read(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.view.look(&self.name(key)).await.unwrap()?;
        let mut all = Vec::new();
        while (all.len() as u64) < found.size {
            let at = all.len() as u64;
            let part = self.view.part(&self.name(key), at, found.size.min(at + BLOCK), None).await.unwrap();
            all.extend_from_slice(&part.bytes);
        }
        Some(all)
    }

    async fn look(&self, key: &str) -> Option<Properties> {
        self.view.look(&self.name(key)).await.unwrap()
    }

    /// Puts there what others put, or ours with other bytes.
    async fn put(&self, key: &str, bytes: &[u8], metadata: HashMap<String, String>) {
        let name = self.name(key);
        self.view.delete(&name, None).await.unwrap();
        let id = block_id(DeliveryId::new(), 0, 0);
        self.view.put_block(&name, &id, Bytes::copy_from_slice(bytes)).await.unwrap();
        let finished = Finished { metadata, content_type: None };
        self.view.commit(&name, vec![id], &Condition::NothingThere, &finished).await.unwrap();
    }

    async fn remove(&self, keys: &[&str]) {
        for key in keys {
            self.view.delete(&self.name(key), None).await.unwrap();
        }
    }
}

fn setup(house: &House, config: AzureConfig, on_collision: OnCollision) -> Setup {
    let route = RouteConfig {
        destinations: vec![config.name.clone()],
        key: "in/{dir}/{name}".to_owned(),
        on_collision,
        ..RouteConfig::default()
    };
    house.setup(vec![DestinationConfig::Azure(config)], vec![route])
}

fn verified_by(upload: &Upload) -> VerifiedBy {
    upload.current_deliveries().next().unwrap().receipt.as_ref().unwrap().verified_by
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_and_names_arrive() {
    let (shore, house) = (Shore::new().await, House::new().await);
    let crew = house.work_with(shore.setup(&house)).await;
    let large: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 251) as u8).collect();
    let files = [("deep/er/ä b#1%2F.csv", &b"small"[..]), ("empty", b""), ("large", &large)];
    for (key, bytes) in files {
        let adjust = |upload: &mut Upload| {
            upload.content_type = Some(ContentType {
                mime: "text/csv".to_owned(),
                label: "csv".to_owned(),
                found_by: "test".to_owned(),
                score_permille: None,
                model_missed: None,
            });
        };
        let upload = house.accept_with(&format!("/upload/{key}"), bytes, adjust).await;
        let done = house.until_state(upload.upload_id, UploadState::Processed).await;
        assert!(shore.read(key).await.unwrap() == bytes, "{key}");
        assert_eq!(verified_by(&done), VerifiedBy::Sha256Readback);
        let receipt = done.deliveries[0].receipt.clone().unwrap();
        let begin = format!("{}/{}/in/", shore.view.address(), shore.config.prefix);
        assert!(receipt.uri.starts_with(&begin), "{}", receipt.uri);
        let found = shore.look(key).await.unwrap();
        assert_eq!(receipt.container.as_deref(), Some(CONTAINER));
        assert_eq!(receipt.version_tag.as_ref(), Some(&found.tag));
        assert_eq!(found.metadata[DELIVERY], done.deliveries[0].delivery_id.to_string());
        assert_eq!(found.metadata[UPLOAD], done.upload_id.to_string());
        assert_eq!(found.metadata[SHA256], done.sha256.unwrap().to_string());
    }
    // A new version takes the place of the old one.
    let newer = house.accept("/upload/deep/er/ä b#1%2F.csv", b"newer").await;
    house.until_state(newer.upload_id, UploadState::Processed).await;
    assert_eq!(shore.read("deep/er/ä b#1%2F.csv").await.unwrap(), b"newer");
    shore.remove(&files.map(|(key, _)| key)).await;
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_leaves_one_right_copy() {
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
        for (first, second) in [(Some(&b"older"[..]), &b"newer"[..]), (None, b"only"), (None, b"")] {
            let (shore, house) = (Shore::new().await, House::new().await);
            if let Some(first) = first {
                let crew = house.work_with(shore.setup(&house)).await;
                let older = house.accept("/upload/a", first).await;
                house.until_state(older.upload_id, UploadState::Processed).await;
                // Whoever delivered it may not have passed its last point yet.
                crew.stop().await;
            }
            let crew = house.work_with(shore.setup(&house)).await;
            let paused = house.failpoints.arm(point);
            let newer = house.accept("/upload/a", second).await;
            let paused = within(paused).await.unwrap();
            crew.crash().await;
            drop(paused);
            let crew = house.work_with(shore.setup(&house)).await;
            let done = house.until_state(newer.upload_id, UploadState::Processed).await;
            assert_eq!(done.deliveries[0].state, DeliveryState::Delivered, "{point}");
            assert_eq!(shore.read("a").await.unwrap(), second, "{point}");
            assert_eq!(
                house.events(newer.upload_id, "upload.delivered").await,
                ["upload.received.v1", "delivery.succeeded.v1", "upload.delivered.v1"],
                "{point}"
            );
            shore.remove(&["a"]).await;
            crew.stop().await;
            house.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_its_receiver_took_away_is_unconfirmed() {
    for crash in [true, false] {
        let (shore, house) = (Shore::new().await, House::new().await);
        let paused = house.failpoints.arm(failpoint::FINISHED);
        let crew = house.work_with(shore.setup(&house)).await;
        let upload = house.accept("/upload/a", b"taken").await;
        let paused = within(paused).await.unwrap();
        assert_eq!(shore.read("a").await.unwrap(), b"taken");
        shore.remove(&["a"]).await;
        let crew = if crash {
            crew.crash().await;
            house.work_with(shore.setup(&house)).await
        } else {
            paused.go_on();
            crew
        };
        let done = house.until_state(upload.upload_id, UploadState::Processed).await;
        assert_eq!(done.deliveries[0].state, DeliveryState::Unconfirmed, "{crash}");
        assert_eq!(shore.read("a").await, None);
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_there_is_treated_by_policy() {
    for (policy, state) in [
        (OnCollision::Fail, UploadState::Failed),
        (OnCollision::Suffix, UploadState::Processed),
        (OnCollision::Replace, UploadState::Processed),
    ] {
        let (shore, house) = (Shore::new().await, House::new().await);
        // Of the same size as ours: that does not make it ours.
        shore.put("a.csv", b"foreign", HashMap::new()).await;
        let crew = house.work_with(setup(&house, shore.config.clone(), policy)).await;
        let upload = house.accept("/upload/a.csv", b"of ours").await;
        let done = house.until_state(upload.upload_id, state).await;
        let other = format!("a~{}.csv", upload.upload_id.short());
        let (there, aside) = (shore.read("a.csv").await.unwrap(), shore.read(&other).await);
        match policy {
            OnCollision::Fail => {
                assert_eq!((there, aside), (b"foreign".to_vec(), None));
                let reason = done.reason.unwrap();
                assert_eq!(reason.code, ReasonCode::Collision);
                assert!(reason.sentence.contains("on_collision"), "{}", reason.sentence);
            }
            OnCollision::Suffix => {
                assert_eq!((there, aside), (b"foreign".to_vec(), Some(b"of ours".to_vec())));
                assert!(done.deliveries[0].receipt.as_ref().unwrap().uri.contains("/in/a~"));
            }
            OnCollision::Replace => assert_eq!((there, aside), (b"of ours".to_vec(), None)),
        }
        shore.remove(&["a.csv", &other]).await;
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_is_replaced_by_a_newer_version() {
    let (shore, house) = (Shore::new().await, House::new().await);
    let crew = house.work_with(shore.setup(&house)).await;
    let older = house.accept("/upload/a", b"older").await;
    house.until_state(older.upload_id, UploadState::Processed).await;
    shore.put("a", b"of somebody else by now", HashMap::new()).await;
    let newer = house.accept("/upload/a", b"newer").await;
    let failed = house.until_state(newer.upload_id, UploadState::Failed).await;
    assert_eq!(failed.reason.unwrap().code, ReasonCode::Collision);
    assert_eq!(shore.read("a").await.unwrap(), b"of somebody else by now");
    shore.remove(&["a"]).await;
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_caught_and_does_not_stay() {
    let content = [b"before ", MARK, b" behind"].concat();
    for mode in [Mode::DamageSent, Mode::DamageAnswered] {
        let (shore, house) = (Shore::new().await, House::new().await);
        let (proxy, config) = shore.behind(mode).await;
        let crew = house.work_with(setup(&house, config, OnCollision::Fail)).await;
        let upload = house.accept("/upload/a", &content).await;
        let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
        assert_eq!(failed.reason.clone().unwrap().code, ReasonCode::Digest);
        assert_eq!(failed.deliveries[0].attempts, 3);
        assert_eq!(shore.read("a").await, None);
        // What passes undamaged arrives.
        proxy.set(Mode::Pass);
        let again = house.accept("/upload/a", &content).await;
        house.until_state(again.upload_id, UploadState::Processed).await;
        assert_eq!(shore.read("a").await.unwrap(), content);
        shore.remove(&["a"]).await;
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_after_the_commit_are_caught() {
    for point in [failpoint::FINISHED, failpoint::VERIFYING] {
        for crash in [false, true] {
            let (shore, house) = (Shore::new().await, House::new().await);
            let paused = house.failpoints.arm(point);
            let crew = house.work_with(shore.setup(&house)).await;
            let upload = house.accept("/upload/a", b"right").await;
            let paused = within(paused).await.unwrap();
            let metadata = shore.look("a").await.unwrap().metadata;
            shore.put("a", b"wrong", metadata).await;
            let crew = if crash {
                crew.crash().await;
                house.work_with(shore.setup(&house)).await
            } else {
                paused.go_on();
                crew
            };
            // The next try does it right.
            let done = house.until_state(upload.upload_id, UploadState::Processed).await;
            assert_eq!(done.deliveries[0].state, DeliveryState::Delivered);
            assert_eq!(shore.read("a").await.unwrap(), b"right");
            shore.remove(&["a"]).await;
            crew.stop().await;
            house.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_compared_by_size() {
    let (shore, house) = (Shore::new().await, House::new().await);
    let config = AzureConfig { read_back_bytes: 4, ..shore.config.clone() };
    let crew = house.work_with(setup(&house, config, OnCollision::Fail)).await;
    let upload = house.accept("/upload/a", b"large").await;
    let done = house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(verified_by(&done), VerifiedBy::Size);
    shore.remove(&["a"]).await;
    crew.stop().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_what_to_do() {
    let shore = Shore::new().await;
    let missing = AzureConfig { container: "there-is-none".to_owned(), ..shore.config.clone() };
    let wrong = AzureConfig {
        account_key: Some("env:DROPGATE_TEST_AZURE_ACCOUNT".to_owned()),
        ..shore.config.clone()
    };
    for (config, sentence) in
        [(missing, "there-is-none: the container does not exist"), (wrong, "the credential is refused")]
    {
        let house = House::new().await;
        let crew = house.work_with(setup(&house, config, OnCollision::Fail)).await;
        let upload = house.accept("/upload/a", b"x").await;
        let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
        let reason = failed.reason.unwrap();
        assert_eq!(reason.code, ReasonCode::Denied, "{}", reason.sentence);
        assert!(reason.sentence.contains(sentence), "{}", reason.sentence);
        assert_eq!(failed.deliveries[0].attempts, 3);
        crew.stop().await;
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_waited_for() {
    let (shore, house) = (Shore::new().await, House::new().await);
    let (proxy, mut config) = shore.behind(Mode::Stall).await;
    config.deadline_seconds = Duration::from_secs(1).into();
    let crew = house.work_with(setup(&house, config, OnCollision::Fail)).await;
    let upload = house.accept("/upload/a", b"patience").await;
    let waiting = house.until(upload.upload_id, |u| u.deliveries.iter().any(|d| d.attempts > 1)).await;
    assert_eq!(waiting.deliveries[0].reason.as_ref().unwrap().code, ReasonCode::DestDown);
    proxy.set(Mode::Pass);
    house.until_state(upload.upload_id, UploadState::Processed).await;
    assert_eq!(shore.read("a").await.unwrap(), b"patience");
    shore.remove(&["a"]).await;
    crew.stop().await;
    house.close().await;
}
