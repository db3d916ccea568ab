//! Against a real store.

mod crashes;
mod trouble;

use super::*;
use crate::{
    config::{DestinationConfig, RouteConfig, Seconds},
    failpoint::Failpoints,
    harness::House,
    worker::Setup,
};
use aws_sdk_s3::{Client, primitives::ByteStream};
use dropgate_schemas::{
    content::ContentType, delivery::DeliveryState, digest::Sha256, id::DeliveryId, upload::UploadState,
};
use std::{collections::HashMap, time::Duration};

/// The least that a store takes as a part, but for the last.
const PART: u64 = 5 << 20;

/// A bucket of one test, and an operator of the store who looks at it with another client.
struct Bucket {
    name: String,
    endpoint: String,
    id: String,
    secret: String,
    operator: Client,
}

impl Bucket {
    async fn make() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: `make test-servers` starts the servers and sets it")
            })
        };
        let endpoint = variable("DROPGATE_TEST_S3_ENDPOINT");
        let (id, secret) = (variable("DROPGATE_TEST_S3_ACCESS_KEY"), variable("DROPGATE_TEST_S3_SECRET_KEY"));
        let config = aws_sdk_s3::config::Builder::new()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::new(variable("DROPGATE_TEST_S3_REGION")))
            .credentials_provider(aws_sdk_s3::config::Credentials::new(&id, &secret, None, None, "test"))
            .endpoint_url(&endpoint)
            .force_path_style(true)
            .build();
        let operator = Client::from_conf(config);
        let name = format!("dropgate-test-{}", DeliveryId::new());
        operator.create_bucket().bucket(&name).send().await.unwrap();
        Self { name, endpoint, id, secret, operator }
    }

    /// Empties and removes it.
    async fn gone(self) {
        for key in self.keys().await {
            self.operator.delete_object().bucket(&self.name).key(key).send().await.unwrap();
        }
        self.operator.delete_bucket().bucket(&self.name).send().await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let listed = self.operator.list_objects_v2().bucket(&self.name).send().await.unwrap();
        listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }

    async fn bytes(&self, key: &str) -> Vec<u8> {
        let got = self.operator.get_object().bucket(&self.name).key(key).send().await.unwrap();
        got.body.collect().await.unwrap().to_vec()
    }

    async fn metadata(&self, key: &str) -> HashMap<String, String> {
        let head = self.operator.head_object().bucket(&self.name).key(key).send().await.unwrap();
        head.metadata().cloned().unwrap_or_default()
    }

    async fn write(&self, key: &str, bytes: &[u8], metadata: HashMap<String, String>) {
        let put = self.operator.put_object().bucket(&self.name).key(key).set_metadata(Some(metadata));
        put.body(ByteStream::from(bytes.to_vec())).send().await.unwrap();
    }

    /// Uploads in parts under a key that were neither completed nor aborted.
    async fn unfinished(&self, key: &str) -> usize {
        self.unfinished_ids(key).await.len()
    }

    async fn unfinished_ids(&self, key: &str) -> Vec<String> {
        let listed = self.operator.list_multipart_uploads().bucket(&self.name).prefix(key).send().await;
        listed.unwrap().uploads().iter().filter_map(|upload| upload.upload_id().map(str::to_owned)).collect()
    }

    /// As a destination, with its secrets in the data directory of `house`.
    fn config(&self, house: &House) -> S3Config {
        let data = house.dir.path().join("data");
        std::fs::write(data.join("s3-id"), &self.id).unwrap();
        std::fs::write(data.join("s3-secret"), &self.secret).unwrap();
        let text = format!(
            "name = 'bucket'\nbucket = '{}'\nprefix = 'in'\nendpoint = '{}'\nregion = 'us-east-1'\npath_style = true\n\
             access_key_id = 'file:s3-id'\nsecret_access_key = 'file:s3-secret'\npart_bytes = {PART}",
            self.name, self.endpoint
        );
        toml::from_str(&text).unwrap()
    }

    fn adapter(&self, house: &House) -> S3 {
        S3::new(&self.config(house), house.backends.secrets.clone())
    }

    fn setup(&self, house: &House) -> Setup {
        let route = RouteConfig {
            key: "{dir}/{name}".to_owned(),
            ..RouteConfig::catch_all("bucket".parse().unwrap())
        };
        house.setup(vec![DestinationConfig::S3(self.config(house))], vec![route])
    }
}

/// Bytes that no part of them repeats soon.
fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

/// A target, and where its bytes come from.
struct Load {
    target: Target,
    upload: dropgate_schemas::upload::Upload,
}

impl Load {
    async fn new(house: &House, key: &str, bytes: &[u8]) -> Self {
        let upload = house.accept(&format!("/upload/{}", DeliveryId::new()), bytes).await;
        let target = Target {
            delivery: DeliveryId::new(),
            epoch: 1,
            key: key.to_owned(),
            size: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            replace: Replace::Nothing,
            upload: upload.upload_id,
            begun_as: None,
            content_type: Some(ContentType {
                mime: "application/edifact".to_owned(),
                label: "edifact".to_owned(),
                found_by: "rule:edifact".to_owned(),
                score_permille: None,
                model_missed: None,
            }),
        };
        Self { target, upload }
    }

    async fn stage(&self, house: &House, s3: &S3) -> Result<Staged, DeliverError> {
        let mut source = Source::open(&house.backends, &self.upload, Failpoints::default()).await?;
        let target = Target { begun_as: s3.begin(&self.target).await?, ..self.target.clone() };
        s3.stage(&target, &mut source).await
    }

    async fn deliver(&self, house: &House, s3: &S3) -> Result<Option<Proof>, DeliverError> {
        let staged = self.stage(house, s3).await?;
        s3.finish(&self.target, &staged).await?;
        s3.verify(&self.target, &staged).await
    }

    fn finalizing(&self, staged: &Staged) -> Finalizing {
        Finalizing {
            epoch: self.target.epoch,
            staged_as: Some(staged.name.clone()),
            at: dropgate_schemas::time::Timestamp::now(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_large_files_arrive_with_their_metadata_and_later_versions_replace_them() {
    let (bucket, house) = (Bucket::make().await, House::new().await);
    let crew = house.work_with(bucket.setup(&house)).await;
    for (name, size, verified_by) in [
        ("empty", 0, VerifiedBy::Sha256),
        ("small ä#1.xml", 1_000, VerifiedBy::Sha256),
        ("just one", 5 << 20, VerifiedBy::Sha256),
        ("large", (64 << 20) + 12_345, VerifiedBy::Crc64nvme),
        ("whole parts", 15 << 20, VerifiedBy::Crc64nvme),
    ] {
        let key = format!("in/{name}");
        for version in 1..=2 {
            let bytes = content(size, version);
            let upload = house.accept(&format!("/upload/{name}"), &bytes).await;
            let done = house.until_state(upload.upload_id, UploadState::Processed).await;
            let delivery = &done.deliveries[0];
            assert_eq!(delivery.state, DeliveryState::Delivered, "{name}: {delivery:#?}");
            let receipt = delivery.receipt.as_ref().unwrap();
            assert_eq!(receipt.verified_by, verified_by, "{name}");
            assert_eq!(receipt.container.as_deref(), Some(bucket.name.as_str()));
            assert!(receipt.uri.starts_with(&format!("s3://{}/in/", bucket.name)), "{}", receipt.uri);
            let head = bucket.operator.head_object().bucket(&bucket.name).key(&key).send().await.unwrap();
            assert_eq!(receipt.version_tag.as_deref(), head.e_tag().map(|tag| tag.trim_matches('"')));
            assert!(bucket.bytes(&key).await == bytes, "{name}: other bytes");
            let metadata = bucket.metadata(&key).await;
            assert_eq!(metadata["delivery-id"], delivery.delivery_id.to_string());
            assert_eq!(metadata["upload-id"], upload.upload_id.to_string());
            assert_eq!(metadata["sha256"], Sha256::of(&bytes).to_string());
            assert_eq!(bucket.unfinished(&key).await, 0);
        }
    }
    crew.stop().await;
    house.close().await;
    bucket.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_there_is_left_alone_unless_the_policy_says_otherwise() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let s3 = bucket.adapter(&house);
    for size in [10, 6 << 20] {
        let (foreign, ours) = (format!("foreign-{size}"), format!("ours-{size}"));
        // Same size: that never makes it ours.
        bucket.write(&format!("in/{foreign}"), &content(size, 7), HashMap::new()).await;
        let mut load = Load::new(&house, &foreign, &content(size, 1)).await;
        for replace in [Replace::Nothing, Replace::Ours] {
            load.target.replace = replace;
            let error = load.deliver(&house, &s3).await.unwrap_err();
            assert!(matches!(error, DeliverError::Collision(_)), "{error}");
            assert!(error.to_string().contains(&format!("s3://{}/in/{foreign}", bucket.name)), "{error}");
            s3.discard(&load.target, 1..2).await.unwrap();
        }
        assert!(bucket.bytes(&format!("in/{foreign}")).await == content(size, 7));
        load.target.replace = Replace::Anything;
        load.deliver(&house, &s3).await.unwrap().unwrap();
        assert!(bucket.bytes(&format!("in/{foreign}")).await == content(size, 1));

        let older = Load::new(&house, &ours, &content(size, 2)).await;
        older.deliver(&house, &s3).await.unwrap().unwrap();
        let mut newer = Load::new(&house, &ours, &content(size, 3)).await;
        let error = newer.deliver(&house, &s3).await.unwrap_err();
        assert!(matches!(error, DeliverError::Collision(_)), "{error}");
        newer.target.replace = Replace::Ours;
        newer.deliver(&house, &s3).await.unwrap().unwrap();
        assert!(bucket.bytes(&format!("in/{ours}")).await == content(size, 3));
        // What is there now is not what the older one put.
        assert_eq!(older.deliver(&house, &s3).await.unwrap_err(), {
            DeliverError::Collision(format!(
                "s3://{}/in/{ours} is there already and is not ours: move it away, or set on_collision of the route",
                bucket.name
            ))
        });
        for key in [&foreign, &ours] {
            s3.discard(&newer.target, 1..2).await.unwrap();
            s3.discard(&load.target, 1..2).await.unwrap();
            assert_eq!(bucket.unfinished(&format!("in/{key}")).await, 0);
        }
    }
    house.close().await;
    bucket.gone().await;
}

/// Of the whole process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_never_in_memory_as_a_whole() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let s3 = bucket.adapter(&house);
    let load = Load::new(&house, "large", &content(160 << 20, 1)).await;
    let before = resident();
    let watch = tokio::spawn(async move {
        let mut peak = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            peak = peak.max(resident());
            PEAK.store(peak, std::sync::atomic::Ordering::Relaxed);
        }
    });
    load.deliver(&house, &s3).await.unwrap().unwrap();
    watch.abort();
    let grown = PEAK.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(before);
    // Four parts of 5 MiB, and what other tests of this process do meanwhile.
    assert!(grown < 120 << 20, "{} MiB", grown >> 20);
    house.close().await;
    bucket.gone().await;
}

static PEAK: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
