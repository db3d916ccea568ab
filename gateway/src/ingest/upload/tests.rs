mod store;
mod walk;

use super::*;
use crate::ingest::budget::{Budget, Budgets, GatewayBudget};
use dropgate_backends::BlobError;
use dropgate_schemas::digest::Sha256;
use std::{sync::atomic::Ordering::SeqCst, time::Duration};
use store::Store;

const BLOCK: usize = 128 << 10;
const MIB: usize = 1 << 20;

/// What an upload needs, with everything to look at afterwards.
struct Fixture {
    store: Arc<Store>,
    context: UploadContext,
    connection: usize,
    gateway: usize,
}

impl Fixture {
    fn new(store: Arc<Store>) -> Self {
        Self::with(store, 24 * MIB, |_| {})
    }

    fn with(store: Arc<Store>, connection: usize, change: impl FnOnce(&mut UploadOptions)) -> Self {
        let mut options = UploadOptions { stall_limit: Duration::from_secs(5), ..UploadOptions::default() };
        change(&mut options);
        let budgets =
            Budgets { connection: Budget::new(connection), gateway: GatewayBudget::new(connection * 2) };
        let gateway = budgets.gateway.available();
        let context = UploadContext {
            store: Arc::clone(&store) as Arc<dyn BlobStore>,
            budgets,
            options: Arc::new(options),
            detector: Arc::default(),
            quota_left: None,
            epoch: 1,
        };
        Self { store, context, connection, gateway }
    }

    fn fresh(&self) -> OpenUpload {
        OpenUpload::fresh(self.context.clone())
    }

    /// Every byte of memory was given back. Blocks may be on their way to the store a moment longer than the answer.
    async fn assert_all_memory_is_back(&self) {
        let budgets = &self.context.budgets;
        eventually(|| {
            budgets.connection.available() == self.connection
                && budgets.gateway.available() == self.gateway
                && budgets.gateway.available_small() == self.connection / 2
        })
        .await;
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the condition holds within 10 s");
}

/// Content in which a block out of place can't go unnoticed.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

async fn send(upload: &OpenUpload, from: usize, content: &[u8]) -> Result<(), IngestError> {
    for (index, chunk) in content.chunks(32 << 10).enumerate() {
        upload.write((from + index * (32 << 10)) as u64, chunk).await?;
    }
    Ok(())
}

fn stored(finished: &Finished) -> BlobId {
    match finished.content {
        Content::Stored(blob) => blob,
        Content::Inline(_) => panic!("inline"),
    }
}

#[tokio::test]
async fn a_large_file_is_staged_sealed_and_hashed() {
    let fixture = Fixture::new(Store::open());
    let content = content(3 * MIB + 17);
    let upload = fixture.fresh();
    send(&upload, 0, &content).await.unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(finished.size, content.len() as u64);
    assert_eq!(finished.sha256, Sha256::of(&content));
    assert_eq!(fixture.store.sealed(stored(&finished)), content);
    assert!(finished.replaced.is_empty());
    assert!(matches!(upload.write(0, b"late").await, Err(IngestError::Closed)));
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn a_small_file_stays_inline_and_never_touches_the_store() {
    let fixture = Fixture::new(Store::open());
    for length in [0, 1, 4096, 64 << 10] {
        let content = content(length);
        let upload = fixture.fresh();
        send(&upload, 0, &content).await.unwrap();
        let finished = upload.finish().await.unwrap();
        let Content::Inline(bytes) = &finished.content else { panic!("stored") };
        assert_eq!(bytes, &content);
        assert_eq!((finished.size, finished.sha256), (length as u64, Sha256::of(&content)));
        assert_eq!(finished.content_type.label, if length == 0 { "empty" } else { "unknown" });
    }
    assert!(fixture.store.is_empty());
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn one_byte_more_than_fits_inline_goes_to_the_store() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    send(&upload, 0, &content(64 << 10)).await.unwrap();
    upload.write(64 << 10, b"x").await.unwrap();
    let finished = upload.finish().await.unwrap();
    // Nothing had to be staged before CLOSE, but the bound is a bound.
    assert_eq!(fixture.store.sealed(stored(&finished)).len(), (64 << 10) + 1);
}

#[tokio::test]
async fn writes_out_of_order_end_in_the_right_order() {
    let fixture = Fixture::new(Store::open());
    let content = content(2 * MIB);
    let upload = fixture.fresh();
    let mut chunks: Vec<_> = content.chunks(32 << 10).enumerate().collect();
    for group in chunks.chunks_mut(16) {
        group.reverse();
    }
    for (index, chunk) in chunks {
        upload.write((index * (32 << 10)) as u64, chunk).await.unwrap();
    }
    let finished = upload.finish().await.unwrap();
    assert_eq!(fixture.store.sealed(stored(&finished)), content);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn a_hole_and_a_short_file_are_refused_and_can_be_parked() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    upload.write(0, b"begin").await.unwrap();
    upload.write(10, b"end").await.unwrap();
    assert!(matches!(upload.finish().await, Err(IngestError::Hole { missing: 5 })));
    assert!(matches!(upload.flush_durable().await, Err(IngestError::Hole { missing: 5 })));
    upload.write(5, b"12345").await.unwrap();
    upload.declare_size(20);
    assert!(matches!(upload.finish().await, Err(IngestError::Short { declared: 20, received: 13 })));
    let parked = upload.park().await;
    let staged = parked.staged.unwrap();
    assert_eq!(staged.length, 13);
    assert_eq!(staged.head.0, b"begin12345end");

    let resumed = OpenUpload::resume(fixture.context.clone(), staged).unwrap();
    assert_eq!(resumed.received(), 13);
    resumed.write(13, b" of it.").await.unwrap();
    let finished = resumed.finish().await.unwrap();
    assert_eq!(fixture.store.sealed(stored(&finished)), b"begin12345end of it.");
    assert_eq!(finished.sha256, Sha256::of(b"begin12345end of it."));
    assert_eq!(finished.content_type.label, "txt");
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn an_interrupted_upload_goes_on_or_starts_again() {
    let fixture = Fixture::new(Store::open());
    let content = content(MIB);
    let upload = fixture.fresh();
    send(&upload, 0, &content[..700_000]).await.unwrap();
    // Bytes behind a gap are of no use later.
    upload.write(900_000, &content[900_000..900_100]).await.unwrap();
    let staged = upload.park().await.staged.unwrap();
    assert_eq!(staged.length, 700_000);
    drop(upload);

    let again = OpenUpload::resume(fixture.context.clone(), staged.clone()).unwrap();
    assert!(again.is_untouched());
    let parked_untouched = again.park().await;
    assert_eq!(parked_untouched.staged.as_ref(), Some(&staged));

    let resumed = OpenUpload::resume(fixture.context.clone(), staged.clone()).unwrap();
    send(&resumed, 700_000, &content[700_000..]).await.unwrap();
    let resumed = resumed.park().await.staged.unwrap();
    let resumed = OpenUpload::resume(fixture.context.clone(), resumed).unwrap();
    // Nothing more to send.
    let finished = resumed.finish().await.unwrap();
    assert_eq!((finished.sha256, finished.size), (Sha256::of(&content), MIB as u64));
    assert_eq!(fixture.store.sealed(stored(&finished)), content);

    let over = OpenUpload::resume(fixture.context.clone(), staged.clone()).unwrap();
    let mut progress = over.progress();
    assert!(progress.borrow_and_update().is_some());
    over.write(0, b"new").await.unwrap();
    assert!(progress.has_changed().unwrap() && progress.borrow().is_none());
    let finished = over.finish().await.unwrap();
    assert!(matches!(&finished.content, Content::Inline(bytes) if bytes == "new"));
    assert_eq!(finished.replaced, [staged.blob.unwrap().blob]);
    // Inline content counts until the record has it.
    assert_eq!(fixture.context.budgets.gateway.available_small(), 12 * MIB - 3);
    drop(finished);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn what_cannot_be_resumed_is_said_and_forgotten() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    send(&upload, 0, &content(200_000)).await.unwrap();
    let staged = upload.park().await.staged.unwrap();
    delete_blobs(&*fixture.store, &[staged.blob.as_ref().unwrap().blob]).await;
    let resumed = OpenUpload::resume(fixture.context.clone(), staged).unwrap();
    resumed.write(200_000, &content(100)).await.unwrap();
    assert!(matches!(resumed.finish().await, Err(IngestError::NotResumable)));
    assert!(matches!(resumed.write(200_100, b"x").await, Err(IngestError::NotResumable)));
    assert!(resumed.park().await.staged.is_none());
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn starting_again_in_the_middle_leaves_only_the_new_content() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    send(&upload, 0, &content(MIB)).await.unwrap();
    upload.flush_durable().await.unwrap();
    upload.truncate(0).unwrap();
    assert!(upload.progress().borrow().is_none());
    let new = content(500_000).into_iter().rev().collect::<Vec<u8>>();
    send(&upload, 0, &new).await.unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(fixture.store.sealed(stored(&finished)), new);
    assert_eq!(finished.sha256, Sha256::of(&new));
    assert_eq!(finished.replaced.len(), 1);
    assert_ne!(finished.replaced[0], stored(&finished));
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn sizes_are_declared_and_tails_cut() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    send(&upload, 0, &content(BLOCK + 1000)).await.unwrap();
    upload.truncate((BLOCK + 1000) as u64).unwrap();
    upload.truncate((BLOCK + 10) as u64).unwrap();
    assert!(matches!(upload.truncate(10), Err(IngestError::Rewrite { .. })));
    assert_eq!(upload.received(), (BLOCK + 10) as u64);
    upload.truncate((BLOCK + 20) as u64).unwrap();
    assert_eq!(upload.declared_size(), Some((BLOCK + 20) as u64));
    assert!(matches!(upload.finish().await, Err(IngestError::Short { .. })));
    upload.write((BLOCK + 10) as u64, &[1; 10]).await.unwrap();
    let finished = upload.finish().await.unwrap();
    let mut expected = content(BLOCK + 10);
    expected.extend([1; 10]);
    assert_eq!(finished.sha256, Sha256::of(&expected));
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn fsync_means_durable_also_for_a_small_file() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    upload.flush_durable().await.unwrap();
    upload.write(0, b"hello").await.unwrap();
    upload.flush_durable().await.unwrap();
    assert!(fixture.store.blobs.lock().unwrap().values().all(|stored| stored.durable == 5));
    upload.write(5, b" world").await.unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(fixture.store.sealed(stored(&finished)), b"hello world");
    assert_eq!(finished.sha256, Sha256::of(b"hello world"));
}

#[tokio::test]
async fn fsync_is_not_left_waiting_for_bytes_that_were_cut() {
    let store = Store::with_gate(0);
    let fixture = Fixture::new(Arc::clone(&store));
    let upload = fixture.fresh();
    send(&upload, 0, &content(BLOCK + 500)).await.unwrap();
    let flushed = tokio::spawn(upload.flush_durable());
    eventually(|| store.staging.load(SeqCst) == 1).await;
    upload.truncate((BLOCK + 100) as u64).unwrap();
    store.gate.add_permits(100);
    flushed.await.unwrap().unwrap();
    let before = store.blobs.lock().unwrap().values().map(|stored| stored.syncs).sum::<usize>();
    upload.finish().await.unwrap();
    assert!(before <= 2, "synced {before} times");
}

#[tokio::test]
async fn progress_is_published_and_is_durable() {
    let store = Store::open();
    let fixture = Fixture::with(Arc::clone(&store), 24 * MIB, |options| {
        options.progress_bytes = MIB as u64;
        options.progress_interval = Duration::from_millis(40);
    });
    let upload = fixture.fresh();
    let mut progress = upload.progress();
    let content = content(4 * MIB);
    send(&upload, 0, &content[..3 * MIB]).await.unwrap();
    let staged =
        progress.wait_for(|p| p.as_ref().is_some_and(|p| p.length >= 2 * MIB as u64)).await.unwrap().clone();
    let staged = staged.unwrap();
    let durable = store.blobs.lock().unwrap()[&staged.blob.as_ref().unwrap().blob].durable as u64;
    assert!(durable >= staged.length);
    // As after a crash: the process that wrote it is gone.
    drop(upload);
    let resumed = OpenUpload::resume(fixture.context.clone(), staged.clone()).unwrap();
    send(&resumed, staged.length as usize, &content[staged.length as usize..]).await.unwrap();
    let finished = resumed.finish().await.unwrap();
    assert_eq!(finished.sha256, Sha256::of(&content));
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn the_channel_of_progress_closes_however_the_upload_ends() {
    let store = Store::open();
    let fixture = Fixture::new(Arc::clone(&store));
    let closes = async |upload: &OpenUpload, mut progress: watch::Receiver<Option<Staged>>| {
        let closed = async { while progress.changed().await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the channel closes");
        assert!(upload.progress().has_changed().is_err());
    };
    for length in [100, 3 * BLOCK] {
        let content = content(length);
        let open = async || {
            let upload = fixture.fresh();
            let progress = upload.progress();
            send(&upload, 0, &content).await.unwrap();
            (upload, progress)
        };
        let (upload, progress) = open().await;
        upload.finish().await.unwrap();
        closes(&upload, progress).await;
        let (upload, progress) = open().await;
        upload.park().await;
        closes(&upload, progress).await;
        let (upload, progress) = open().await;
        upload.abandon().await;
        closes(&upload, progress).await;
        let (upload, progress) = open().await;
        upload.write(u64::MAX - 1, b"xx").await.unwrap_err();
        closes(&upload, progress).await;
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_saved_when_a_client_pauses() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    let mut progress = upload.progress();
    send(&upload, 0, &content(BLOCK * 2 + 5)).await.unwrap();
    assert!(progress.borrow().is_none());
    let staged = progress.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(staged.length, 2 * BLOCK as u64);
}

#[tokio::test]
async fn a_storage_failure_is_told_on_the_next_write_and_frees_everything() {
    let store = Store::open();
    let fixture = Fixture::new(Arc::clone(&store));
    let upload = fixture.fresh();
    send(&upload, 0, &content(BLOCK)).await.unwrap();
    upload.flush_durable().await.unwrap();
    store.fail.store(true, SeqCst);
    send(&upload, BLOCK, &content(BLOCK)).await.unwrap();
    eventually(|| upload.failure().is_some()).await;
    let told = upload.write(2 * BLOCK as u64, b"x").await.unwrap_err();
    assert!(matches!(&told, IngestError::Store(BlobError::Unavailable(_))));
    assert_eq!(told.to_string(), "the storage is not available: try again later");
    assert!(matches!(upload.finish().await, Err(IngestError::Store(_))));
    fixture.assert_all_memory_is_back().await;
    // What was durable before the failure can be resumed.
    assert_eq!(upload.park().await.staged.unwrap().length, BLOCK as u64);
}

#[tokio::test]
async fn a_failure_while_finishing_or_parking_is_an_answer() {
    let store = Store::open();
    let fixture = Fixture::new(Arc::clone(&store));
    store.fail.store(true, SeqCst);
    let upload = fixture.fresh();
    send(&upload, 0, &content(100_000)).await.unwrap();
    assert!(matches!(upload.finish().await, Err(IngestError::Store(_))));
    let upload = fixture.fresh();
    send(&upload, 0, &content(100_000)).await.unwrap();
    let parked = upload.park().await;
    assert!(parked.staged.is_none());
    assert_eq!(parked.replaced.len(), 1);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_stalls_the_writer_for_a_bounded_time() {
    let store = Store::with_gate(0);
    let fixture = Fixture::with(Arc::clone(&store), MIB, |_| {});
    let upload = fixture.fresh();
    let began = tokio::time::Instant::now();
    let stalled = send(&upload, 0, &content(2 * MIB)).await.unwrap_err();
    assert!(matches!(stalled, IngestError::Stalled(_)), "{stalled:?}");
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(matches!(upload.write(0, b"x").await, Err(IngestError::Stalled(_))));
    drop(upload);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn a_slow_store_bounds_what_is_in_memory_and_nothing_is_lost() {
    let store = Store::with_gate(0);
    let fixture = Fixture::with(Arc::clone(&store), MIB, |_| {});
    let content = content(8 * MIB);
    let upload = Arc::new(fixture.fresh());
    let sender = tokio::spawn({
        let (upload, content) = (Arc::clone(&upload), content.clone());
        async move { send(&upload, 0, &content).await }
    });
    let available = || fixture.context.budgets.connection.available();
    eventually(|| available() == 0).await;
    for _ in 0..content.len() / BLOCK {
        store.gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    sender.await.unwrap().unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(fixture.store.sealed(stored(&finished)), content);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn uploads_that_pause_with_half_a_block_give_way_to_others() {
    let fixture = Fixture::with(Store::open(), MIB, |_| {});
    let paused: Vec<_> = (0..8).map(|_| fixture.fresh()).collect();
    for upload in &paused {
        // Less than a block each, all of the connection's memory together.
        send(upload, 0, &content(120_000)).await.unwrap();
    }
    let other = fixture.fresh();
    send(&other, 0, &content(MIB)).await.unwrap();
    assert_eq!(other.finish().await.unwrap().sha256, Sha256::of(&content(MIB)));
    for upload in paused {
        upload.write(120_000, b"more").await.unwrap();
        let mut expected = content(120_000);
        expected.extend(b"more");
        assert_eq!(upload.finish().await.unwrap().sha256, Sha256::of(&expected));
    }
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn small_uploads_overflow_into_the_store_when_their_memory_is_used_up() {
    // 512 KiB for small uploads.
    let fixture = Fixture::with(Store::open(), MIB, |_| {});
    let content = content(60_000);
    let open: Vec<_> = (0..30).map(|_| fixture.fresh()).collect();
    for upload in &open {
        send(upload, 0, &content).await.unwrap();
    }
    assert!(fixture.context.budgets.gateway.available_small() < 60_000);
    for upload in open {
        assert_eq!(upload.finish().await.unwrap().sha256, Sha256::of(&content));
    }
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn limits_on_size_and_quota() {
    let fixture = Fixture::with(Store::open(), MIB, |options| options.max_size = 1000);
    let upload = fixture.fresh();
    upload.write(0, &[0; 1000]).await.unwrap();
    assert!(upload.truncate(1001).is_err());
    assert!(matches!(upload.write(1000, b"x").await, Err(IngestError::TooLarge { limit: 1000 })));
    assert!(
        matches!(upload.finish().await, Err(IngestError::TooLarge { .. })),
        "a refused write spoils the file"
    );
    let tight = OpenUpload::fresh(UploadContext { quota_left: Some(10), ..fixture.context.clone() });
    assert!(matches!(tight.write(8, b"123").await, Err(IngestError::OverQuota { left: 10 })));
    let far = fixture.fresh();
    assert!(matches!(far.write(u64::MAX - 1, b"123").await, Err(IngestError::TooLarge { .. })));
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test]
async fn what_is_given_up_is_named_for_deletion() {
    let fixture = Fixture::new(Store::open());
    let upload = fixture.fresh();
    send(&upload, 0, &content(MIB)).await.unwrap();
    upload.flush_durable().await.unwrap();
    let blobs = upload.abandon().await;
    assert_eq!(blobs.len(), 1);
    delete_blobs(&*fixture.store, &blobs).await;
    assert!(fixture.store.is_empty());
    assert!(matches!(upload.write(0, b"x").await, Err(IngestError::Closed)));
    assert!(matches!(upload.flush_durable().await, Err(IngestError::Closed)));
    fixture.assert_all_memory_is_back().await;
    assert!(fixture.fresh().abandon().await.is_empty());
}

#[tokio::test]
async fn dropped_at_any_moment_it_gives_everything_back() {
    for blocks in 0..12 {
        let store = Store::with_gate(blocks);
        let fixture = Fixture::with(Arc::clone(&store), MIB, |_| {});
        let upload = Arc::new(fixture.fresh());
        let running = tokio::spawn({
            let upload = Arc::clone(&upload);
            async move {
                upload.write(20 * BLOCK as u64, &[0; 1000]).await.ok();
                send(&upload, 0, &content(11 * BLOCK + 7)).await.ok();
                drop(upload.finish().await);
            }
        });
        eventually(|| store.staging.load(SeqCst) > blocks || running.is_finished()).await;
        running.abort();
        running.await.ok();
        drop(upload);
        store.gate.add_permits(1000);
        fixture.assert_all_memory_is_back().await;
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_has_taken_nothing() {
    let store = Store::with_gate(0);
    let fixture = Fixture::with(Arc::clone(&store), MIB, |_| {});
    let upload = fixture.fresh();
    let content = content(MIB);
    send(&upload, 0, &content).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(20), upload.write(MIB as u64, b"never")).await;
    assert!(given_up.is_err());
    assert_eq!(upload.received(), MIB as u64);
    store.gate.add_permits(1000);
    upload.write(MIB as u64, b"again").await.unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(finished.size, MIB as u64 + 5);
    fixture.assert_all_memory_is_back().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_nobody_fills_is_given_up_when_others_need_the_memory() {
    let store = Store::open();
    let fixture =
        Fixture::with(Arc::clone(&store), MIB, |options| options.stall_limit = Duration::from_secs(30));
    let gap = fixture.fresh();
    // So much that the other one can't fill a block beside it.
    for at in 1..9 {
        gap.write(at * 125_000, &[0; 125_000]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    let other = fixture.fresh();
    send(&other, 0, &content(MIB)).await.unwrap();
    other.finish().await.unwrap();
    assert!(matches!(gap.failure(), Some(IngestError::Hole { missing: 0 })));
    fixture.assert_all_memory_is_back().await;
}
