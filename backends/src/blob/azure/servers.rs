//! Against a real server, as `scripts/services` starts it.

mod proxy;

use super::*;
use crate::{
    azure::sas::{Grant, Scope},
    blob::conformance,
    config::{AzureBlockSum, BlobConfig},
    secrets::{Secret, SecretError},
};
use dropgate_schemas::{time::Timestamp, upload::StagedBlock};
use futures::{StreamExt as _, TryStreamExt as _};
use proxy::Proxy;
use std::{
    io::Write,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use uuid::Uuid;

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the servers with scripts/services and take its env, or use make test-servers")
    })
}

/// Secrets by the last part of their references.
#[derive(Debug, Default)]
struct Secrets(HashMap<String, String>);

impl Secrets {
    fn of(pairs: &[(&str, String)]) -> Arc<dyn SecretStore> {
        Arc::new(Self(pairs.iter().map(|(name, value)| (format!("env:{name}"), value.clone())).collect()))
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        self.0.get(reference).map(|value| Secret::new(value.as_bytes())).ok_or_else(|| {
            SecretError::NotFound { reference: reference.to_owned(), remedy: "set it".to_owned() }
        })
    }
}

fn keys() -> Arc<dyn SecretStore> {
    Secrets::of(&[("KEY", given("DROPGATE_TEST_AZURE_KEY"))])
}

/// A container of its own, with the account key.
fn config() -> BlobAzureConfig {
    BlobAzureConfig {
        account: Some(given("DROPGATE_TEST_AZURE_ACCOUNT")),
        endpoint: Some(given("DROPGATE_TEST_AZURE_ENDPOINT")),
        container: format!("blob-{}", Uuid::new_v4().simple()),
        account_key: Some("env:KEY".to_owned()),
        allow_account_key: true,
        create_container: true,
        ..BlobAzureConfig::default()
    }
}

async fn open(config: &BlobAzureConfig) -> BlobAzure {
    BlobAzure::open(config, keys()).await.unwrap()
}

async fn clean(store: &BlobAzure) {
    let expires = Timestamp::now().plus(Duration::from_secs(3600)).to_jiff();
    let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let account = given("DROPGATE_TEST_AZURE_ACCOUNT");
    let grant =
        Grant { account: &account, scope: &Scope::Account, permissions: "d", expires: &expires, plain: true };
    let keys = BlobAzureConfig {
        account_key: None,
        sas: Some("env:SAS".to_owned()),
        container: store.container.name().to_owned(),
        ..config()
    };
    let secrets = Secrets::of(&[("SAS", grant.sign(&given("DROPGATE_TEST_AZURE_KEY")).unwrap())]);
    let limits = Limits::within(Duration::from_secs(20));
    let container = Container::new(&keys.keys().place().unwrap(), secrets, limits).unwrap();
    container.client().delete(None).await.unwrap();
}

/// Rights as letters, for an hour from now or back.
fn sas(config: &BlobAzureConfig, permissions: &str, good: bool) -> String {
    let hour = Duration::from_secs(3600);
    let expires = if good { Timestamp::now().plus(hour) } else { Timestamp::now().minus(hour) };
    let expires = expires.to_jiff().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let account = given("DROPGATE_TEST_AZURE_ACCOUNT");
    let scope = Scope::Container(config.container.clone());
    let grant = Grant { account: &account, scope: &scope, permissions, expires: &expires, plain: true };
    grant.sign(&given("DROPGATE_TEST_AZURE_KEY")).unwrap()
}

fn bytes(length: usize, seed: usize) -> Bytes {
    (0..length).map(|i| u8::try_from((i / 5 + i * seed) % 253).unwrap()).collect()
}

async fn read(store: &BlobAzure, blob: BlobId) -> Vec<u8> {
    let mut pieces = store.open(blob, 0).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

#[tokio::test]
async fn it_conforms() {
    let with_prefix = BlobAzureConfig { prefix: "up/loads".to_owned(), ..config() };
    for config in [config(), with_prefix] {
        let store = open(&config).await;
        conformance::suite(&store).await;
        clean(&store).await;
    }
}

#[tokio::test]
async fn after_many_blocks_larger_ones_are_sent() {
    let store = BlobAzure { single_blocks: 1, ..open(&config()).await };
    conformance::suite(&store).await;
    let (blob, block) = (BlobId::new(), bytes(BLOCK_SIZE, 7));
    let mut writer = store.begin(blob, 1).await.unwrap();
    for _ in 0..4 {
        writer.stage(block.clone()).await.unwrap();
    }
    // One, two together, and what was left when it was to be durable.
    let size = 4 * BLOCK_SIZE as u64;
    assert_eq!(writer.sync().await.unwrap().blocks, [StagedBlock { epoch: 1, seq: 2, length: size }]);
    writer.seal(size).await.unwrap();
    assert!(read(&store, blob).await == block.repeat(4));
    clean(&store).await;
}

#[tokio::test]
async fn it_conforms_as_the_roles_get_it() {
    let (config, dir) = (config(), tempfile::tempdir().unwrap());
    let key = dir.path().join("key");
    std::fs::File::create(&key).unwrap().write_all(given("DROPGATE_TEST_AZURE_KEY").as_bytes()).unwrap();
    let reference = format!("file:{}", key.display());
    let blob = BlobConfig::Azure(BlobAzureConfig { account_key: Some(reference), ..config.clone() });
    let all = crate::BackendsConfig { blob, ..crate::BackendsConfig::default() };
    let backends = crate::Backends::open(&all, dir.path()).await.unwrap();
    conformance::suite(backends.blob.as_ref()).await;
    backends.close().await;
    clean(&open(&config).await).await;
}

#[tokio::test]
async fn a_gateway_needs_no_right_but_to_write() {
    let config = config();
    let owner = open(&config).await;
    let write_only = BlobAzureConfig {
        account_key: None,
        allow_account_key: false,
        create_container: false,
        sas: Some("env:SAS".to_owned()),
        ..config.clone()
    };
    let secrets = Secrets::of(&[("SAS", sas(&config, "cw", true))]);
    let (one, other) = (
        BlobAzure::open(&write_only, Arc::clone(&secrets)).await.unwrap(),
        BlobAzure::open(&write_only, secrets).await.unwrap(),
    );
    one.check().await.unwrap();
    assert_eq!(one.space().await.unwrap(), None);
    let (blob, first, second) = (BlobId::new(), bytes(5 << 20, 3), bytes(300_000, 7));
    let mut writer = one.begin(blob, 1).await.unwrap();
    writer.stage(first.clone()).await.unwrap();
    let staged = writer.sync().await.unwrap();
    drop(writer);
    // Twice, on another gateway each time, with nothing but the record between them.
    let mut length = first.len() as u64;
    let mut record = serde_json::to_string(&staged).unwrap();
    for (store, epoch) in [(&other, 2), (&one, 5)] {
        let staged = serde_json::from_str(&record).unwrap();
        let mut writer = store.resume(&staged, length, epoch).await.unwrap();
        writer.stage(second.clone()).await.unwrap();
        length += second.len() as u64;
        record = serde_json::to_string(&writer.sync().await.unwrap()).unwrap();
        if epoch == 5 {
            writer.seal(length).await.unwrap();
        }
    }
    let expected = [first.as_ref(), second.as_ref(), second.as_ref()].concat();
    assert!(read(&owner, blob).await == expected);
    // The right to read really is not there.
    let refused = one.open(blob, 0).await.err().unwrap();
    assert!(matches!(refused, BlobError::Rejected(_)), "{refused}");
    assert!(refused.to_string().contains(&config.container), "{refused}");
    let refused = one.list(Duration::ZERO, None, 10).await.unwrap_err();
    assert!(matches!(refused, BlobError::Rejected(_)), "{refused}");
    clean(&owner).await;
}

#[tokio::test]
async fn the_service_checks_our_sums() {
    let store = open(&config()).await;
    let client = store.container.client().blob_client("sums").block_blob_client();
    let block = bytes(100_000, 3);
    let put = async |crc: Vec<u8>| {
        let options = azure_storage_blob::models::BlockBlobClientStageBlockOptions {
            transactional_content_crc64: Some(crc),
            ..Default::default()
        };
        let put = client.stage_block(&block_id(1, 0), 100_000, block.clone().into(), Some(options)).await;
        put.map(|_| ()).map_err(|e| Failure::of("here", &e).cause)
    };
    assert_eq!(put(crate::azure::crc64(&block)).await, Ok(()));
    assert_eq!(put(crate::azure::crc64(&block[1..])).await, Err(Cause::Damaged));
    clean(&store).await;

    // Blocks that go with MD5 instead come to the same blob.
    let store = open(&BlobAzureConfig { block_sum: AzureBlockSum::Md5, ..config() }).await;
    let blob = BlobId::new();
    let mut writer = store.begin(blob, 1).await.unwrap();
    writer.stage(block.clone()).await.unwrap();
    writer.stage(block.slice(..5)).await.unwrap();
    writer.seal(100_005).await.unwrap();
    let read: Vec<Bytes> = store.open(blob, 0).await.unwrap().try_collect().await.unwrap();
    assert!(read.concat() == [&block[..], &block[..5]].concat());
    clean(&store).await;
}

#[tokio::test]
async fn what_another_owner_sealed_is_a_conflict() {
    let store = open(&config()).await;
    let (blob, block) = (BlobId::new(), bytes(10_000, 3));
    let mut one = store.begin(blob, 1).await.unwrap();
    let mut other = store.begin(blob, 2).await.unwrap();
    one.stage(block.clone()).await.unwrap();
    other.stage(block.clone()).await.unwrap();
    other.seal(block.len() as u64).await.unwrap();
    let error = one.seal(block.len() as u64).await.unwrap_err();
    assert!(matches!(error, BlobError::Conflict { .. }), "{error}");
    assert!(read(&store, blob).await == block);
    clean(&store).await;
}

/// Behind a proxy, with a deadline of `seconds`.
async fn behind_proxy(config: &BlobAzureConfig, seconds: u64) -> (Proxy, BlobAzure) {
    let endpoint = given("DROPGATE_TEST_AZURE_ENDPOINT");
    let (host, path) = endpoint.trim_start_matches("http://").split_once('/').unwrap();
    let proxy = Proxy::start(host).await;
    let config = toml::Table::try_from(BlobAzureConfig {
        endpoint: Some(format!("http://{}/{path}", proxy.address)),
        ..config.clone()
    });
    let mut config = config.unwrap();
    config.insert("deadline_seconds".to_owned(), toml::Value::Integer(i64::try_from(seconds).unwrap()));
    let store = BlobAzure::open(&config.try_into().unwrap(), keys()).await.unwrap();
    (proxy, store)
}

#[tokio::test]
async fn a_lost_answer_to_sealing_is_not_a_conflict() {
    let (proxy, store) = behind_proxy(&config(), 20).await;
    for resumed in [false, true] {
        let (blob, block) = (BlobId::new(), bytes(10_000, 5));
        let mut writer = store.begin(blob, 1).await.unwrap();
        writer.stage(block.clone()).await.unwrap();
        let staged = writer.sync().await.unwrap();
        if resumed {
            writer = store.resume(&staged, block.len() as u64, 2).await.unwrap();
        }
        proxy.cut(1);
        writer.seal(block.len() as u64).await.unwrap();
        assert_eq!(proxy.cuts_left(), 0);
        assert!(read(&store, blob).await == block);
    }
    clean(&store).await;
}

#[tokio::test]
async fn broken_connections_are_made_good() {
    let (proxy, store) = behind_proxy(&config(), 20).await;
    let (blob, block) = (BlobId::new(), bytes(9 << 20, 5));
    let mut writer = store.begin(blob, 1).await.unwrap();
    for part in [block.slice(..4 << 20), block.slice(4 << 20..8 << 20), block.slice(8 << 20..)] {
        proxy.cut(1);
        writer.stage(part).await.unwrap();
    }
    writer.seal(block.len() as u64).await.unwrap();
    let mut pieces = store.open(blob, 0).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.unwrap());
        // In the middle of what is on its way, or before the next is asked for.
        proxy.cut(1);
    }
    assert!(all == block);
    proxy.cut(0);
    clean(&store).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_in_time() {
    let (proxy, store) = behind_proxy(&config(), 2).await;
    let sealed = BlobId::new();
    let mut writer = store.begin(sealed, 1).await.unwrap();
    writer.stage(bytes(1000, 3)).await.unwrap();
    writer.seal(1000).await.unwrap();
    let mut staging = store.begin(BlobId::new(), 1).await.unwrap();
    proxy.stall();
    let in_time = |begun: Instant, error: BlobError| {
        assert!(matches!(error, BlobError::Unavailable(_)), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    };
    let begun = Instant::now();
    in_time(begun, store.check().await.unwrap_err());
    let begun = Instant::now();
    in_time(begun, store.open(sealed, 0).await.err().unwrap());
    let begun = Instant::now();
    staging.stage(bytes(1000, 3)).await.unwrap();
    in_time(begun, staging.sync().await.unwrap_err());
    // The writer is spent, and says so at once.
    assert!(matches!(staging.stage(bytes(1, 1)).await.unwrap_err(), BlobError::Unavailable(_)));
    proxy.pass();
    store.check().await.unwrap();
    clean(&store).await;
}

/// A block that is counted while it is in memory.
struct Counted(Vec<u8>, Arc<(AtomicUsize, AtomicUsize)>);

impl Counted {
    fn new(block: Vec<u8>, counts: &Arc<(AtomicUsize, AtomicUsize)>) -> Self {
        let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
        counts.1.fetch_max(now, Ordering::SeqCst);
        Self(block, Arc::clone(counts))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn two_hundred_mebibytes_pass_through_little_memory() {
    let store = open(&config()).await;
    let (blob, counts) = (BlobId::new(), Arc::new((AtomicUsize::new(0), AtomicUsize::new(0))));
    let block = |n: usize| {
        (0..store.block_size() / 8).flat_map(|i| ((n << 32) + i).to_le_bytes()).collect::<Vec<u8>>()
    };
    let begun = Instant::now();
    let mut writer = store.begin(blob, 1).await.unwrap();
    for n in 0..100 {
        writer.stage(Bytes::from_owner(Counted::new(block(n), &counts))).await.unwrap();
    }
    let size = 100 * store.block_size() as u64;
    writer.seal(size).await.unwrap();
    let (written, most) = (begun.elapsed(), counts.1.load(Ordering::SeqCst));
    assert_eq!(counts.0.load(Ordering::SeqCst), 0, "blocks are kept after sealing");
    // Three on the way and the one that waits for room; each was sent without a copy.
    assert!(most <= 4, "{most} blocks at once");
    let (mut at, mut pieces) = (0_usize, store.open(blob, 0).await.unwrap());
    let begun = Instant::now();
    while let Some(piece) = pieces.next().await {
        let piece = piece.unwrap();
        assert!(piece.len() <= BLOCK_SIZE);
        assert!(piece == block(at / BLOCK_SIZE)[..piece.len()], "at {at}");
        at += piece.len();
    }
    assert_eq!(at as u64, size);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("peak unknown");
    println!("200 MiB: written in {written:?}, read in {:?}, at most {most} blocks; {peak}", begun.elapsed());
    clean(&store).await;
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let good = config();
    let store = open(&good).await;
    let closed = BlobAzureConfig { allow_account_key: false, ..good.clone() };
    let missing =
        BlobAzureConfig { container: "there-is-none".to_owned(), create_container: false, ..good.clone() };
    let nowhere =
        BlobAzureConfig { endpoint: Some("http://127.0.0.1:9/devstoreaccount1".to_owned()), ..good.clone() };
    let with_sas = BlobAzureConfig {
        account_key: None,
        create_container: false,
        sas: Some("env:SAS".to_owned()),
        ..good.clone()
    };
    let other_container = BlobAzureConfig { container: "another".to_owned(), ..good.clone() };
    let wrong_key = Secrets::of(&[("KEY", "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50".to_owned())]);
    for (config, secrets, what, remedy) in [
        (closed, keys(), "account_key", "allow_account_key = true"),
        (missing, keys(), "the container does not exist", "create_container = true"),
        (
            BlobAzureConfig { create_container: false, ..good.clone() },
            Arc::clone(&wrong_key),
            "the credential is refused",
            "the right to create and write",
        ),
        (good.clone(), wrong_key, "can't be made", "make the container yourself"),
        (nowhere, keys(), "can't be made", "make the container yourself"),
        (with_sas.clone(), Secrets::of(&[]), "env:SAS does not exist", "correct identity"),
        (with_sas.clone(), Secrets::of(&[("SAS", "hunter2".to_owned())]), "is not a SAS", "correct identity"),
        (
            with_sas.clone(),
            Secrets::of(&[("SAS", sas(&good, "cw", false))]),
            "is refused",
            "the right to create",
        ),
        (
            with_sas.clone(),
            Secrets::of(&[("SAS", sas(&good, "r", true))]),
            "is refused",
            "the right to create",
        ),
        (
            with_sas,
            Secrets::of(&[("SAS", sas(&other_container, "cw", true))]),
            "is refused",
            "the right to create",
        ),
    ] {
        let error = BlobAzure::open(&config, secrets).await.err().unwrap().to_string();
        assert!(error.contains(what) && error.contains(remedy) && error.contains(KEY), "{error}");
        assert!(!error.contains("sig=") && !error.contains("hunter2"), "{error}");
    }
    clean(&store).await;
}

/// Everything that is logged, to the last detail.
#[derive(Clone, Default)]
struct Log(Arc<StdMutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that what tasks log is caught too.
#[tokio::test(flavor = "current_thread")]
async fn no_signature_is_ever_logged() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let config = config();
    let owner = open(&config).await;
    let query = sas(&config, "cw", true);
    let signature = query.split("sig=").nth(1).unwrap().to_owned();
    let endpoint = config.endpoint.clone().unwrap();
    let with_sas = BlobAzureConfig {
        account_key: None,
        create_container: false,
        sas: Some("env:SAS".to_owned()),
        endpoint: Some(endpoint),
        ..config.clone()
    };
    let store = BlobAzure::open(&with_sas, Secrets::of(&[("SAS", query)])).await.unwrap();
    // A place that another test's thread logged from for the first time while this one set its subscriber up may have been
    // noted as one that nobody listens to.
    tracing::callsite::rebuild_interest_cache();
    let mut writer = store.begin(BlobId::new(), 1).await.unwrap();
    writer.stage(bytes(1000, 3)).await.unwrap();
    writer.seal(1000).await.unwrap();
    store.open(BlobId::new(), 0).await.err().unwrap();
    let nowhere = BlobAzureConfig {
        endpoint: Some("http://127.0.0.1:9/devstoreaccount1".to_owned()),
        ..config.clone()
    };
    let error = BlobAzure::open(&nowhere, keys()).await.err().unwrap();
    let said = format!("{error} {error:?}");
    let (proxy, behind) = behind_proxy(&config, 2).await;
    proxy.stall();
    let said = format!("{said} {}", behind.check().await.unwrap_err());
    clean(&owner).await;
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("comp=block") && log.contains("TRACE"), "nothing was caught");
    let key = given("DROPGATE_TEST_AZURE_KEY");
    for text in [&log, &said] {
        assert!(!text.contains(&signature) && !text.contains(&key));
        for (at, _) in text.match_indices("sig=") {
            let after = text.get(at..at + 12).unwrap_or_default();
            assert!(after.starts_with("sig=REDACTED"), "{after}");
        }
    }
}
