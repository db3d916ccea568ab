//! What every blob store does, whatever it is made of.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite that fails panics, like the tests that call it"
)]

use super::{BlobError, BlobStore, BlobWriter};
use bytes::Bytes;
use dropgate_schemas::id::BlobId;
use futures::StreamExt as _;
use std::time::Duration;

/// The largest piece a reader may be given.
const LARGEST_PIECE: usize = 8 << 20;

/// Runs the whole suite on an open store. Other blobs may be in it.
///
/// # Panics
/// If the store does anything else than the port promises.
pub async fn suite(store: &dyn BlobStore) {
    store.check().await.expect("an open store answers");
    assert!(store.block_size() > 0);
    what_was_staged_comes_back(store).await;
    an_empty_blob_is_a_blob(store).await;
    nothing_is_read_before_it_is_sealed(store).await;
    a_wrong_size_is_refused(store).await;
    a_sealed_blob_never_changes(store).await;
    a_blob_is_continued_where_it_was_synced(store).await;
    an_older_owner_is_out(store).await;
    what_is_not_there_is_not_found(store).await;
    deleting_is_final_and_may_be_repeated(store).await;
    blobs_are_listed_page_by_page(store).await;
}

/// Bytes in which no block looks like another.
fn bytes(length: usize, seed: usize) -> Bytes {
    (0..length).map(|i| u8::try_from((i / 7 + i * seed) % 251).unwrap_or_default()).collect()
}

async fn read(store: &dyn BlobStore, blob: BlobId, offset: u64) -> Result<Vec<u8>, BlobError> {
    let mut pieces = store.open(blob, offset).await?;
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        assert!(!piece.is_empty() && piece.len() <= LARGEST_PIECE, "a piece of {} bytes", piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

async fn written(store: &dyn BlobStore, blocks: &[&Bytes]) -> BlobId {
    let blob = BlobId::new();
    let mut writer = store.begin(blob, 1).await.expect("begin");
    let mut size = 0;
    for block in blocks {
        writer.stage((*block).clone()).await.expect("stage");
        size += block.len() as u64;
    }
    writer.seal(size).await.expect("seal");
    blob
}

async fn what_was_staged_comes_back(store: &dyn BlobStore) {
    let (full, tail) = (bytes(store.block_size(), 3), bytes(1_234_567 % store.block_size() + 1, 5));
    let blob = written(store, &[&full, &full, &tail]).await;
    let expected = [full.as_ref(), full.as_ref(), tail.as_ref()].concat();
    assert!(read(store, blob, 0).await.expect("read") == expected);
    let middle = full.len() + 17;
    assert!(read(store, blob, middle as u64).await.expect("read") == expected[middle..]);
    assert_eq!(read(store, blob, expected.len() as u64).await.expect("read at the end"), b"");
    let behind = read(store, blob, expected.len() as u64 + 1).await;
    assert!(matches!(behind, Err(BlobError::Corrupt { .. })), "{behind:?}");
    // A reader that is given up disturbs nobody.
    let mut given_up = store.open(blob, 0).await.expect("open");
    assert!(given_up.next().await.is_some());
    drop(given_up);
    assert!(read(store, blob, 0).await.expect("read again") == expected);
}

async fn an_empty_blob_is_a_blob(store: &dyn BlobStore) {
    let blob = written(store, &[]).await;
    assert_eq!(read(store, blob, 0).await.expect("read"), b"");
}

async fn nothing_is_read_before_it_is_sealed(store: &dyn BlobStore) {
    let (blob, block) = (BlobId::new(), bytes(100_000, 7));
    let mut writer = store.begin(blob, 1).await.expect("begin");
    writer.stage(block.clone()).await.expect("stage");
    assert_not_there(store, blob).await;
    writer.sync().await.expect("sync");
    assert_not_there(store, blob).await;
    drop(writer);
    assert_not_there(store, blob).await;
}

async fn assert_not_there(store: &dyn BlobStore, blob: BlobId) {
    let read = read(store, blob, 0).await;
    assert!(matches!(read, Err(BlobError::NotFound(_))), "{read:?}");
}

async fn a_wrong_size_is_refused(store: &dyn BlobStore) {
    for wrong in [0, 9_999, 10_001] {
        let blob = BlobId::new();
        let mut writer = store.begin(blob, 1).await.expect("begin");
        writer.stage(bytes(10_000, 11)).await.expect("stage");
        let sealed = writer.seal(wrong).await;
        assert!(matches!(sealed, Err(BlobError::Corrupt { .. })), "{sealed:?}");
        assert_not_there(store, blob).await;
    }
}

/// Writes and seals with a writer that has no right to; some store has to say no, at the latest when sealing.
async fn assert_refused(writer: Result<Box<dyn BlobWriter>, BlobError>, staged: u64) {
    let Ok(mut writer) = writer else { return };
    let block = bytes(50_000, 13);
    let size = staged + block.len() as u64;
    if writer.stage(block).await.is_ok() {
        let sealed = writer.seal(size).await;
        assert!(sealed.is_err(), "a writer without the right to it sealed a blob");
    }
}

async fn a_sealed_blob_never_changes(store: &dyn BlobStore) {
    let block = bytes(70_000, 17);
    let blob = BlobId::new();
    let mut writer = store.begin(blob, 1).await.expect("begin");
    writer.stage(block.clone()).await.expect("stage");
    let staged = writer.sync().await.expect("sync");
    writer.seal(block.len() as u64).await.expect("seal");
    assert_refused(store.begin(blob, 1).await, 0).await;
    assert_refused(store.begin(blob, 2).await, 0).await;
    assert_refused(store.resume(&staged, block.len() as u64, 1).await, block.len() as u64).await;
    assert_refused(store.resume(&staged, block.len() as u64, 2).await, block.len() as u64).await;
    assert!(read(store, blob, 0).await.expect("read") == block);
}

async fn a_blob_is_continued_where_it_was_synced(store: &dyn BlobStore) {
    let (blob, first, lost, second) =
        (BlobId::new(), bytes(600_000, 19), bytes(300_000, 23), bytes(500_001, 29));
    let mut writer = store.begin(blob, 1).await.expect("begin");
    writer.stage(first.clone()).await.expect("stage");
    let staged = writer.sync().await.expect("sync");
    assert_eq!(staged.blob, blob);
    writer.stage(lost).await.expect("stage");
    drop(writer);
    let mut writer = store.resume(&staged, first.len() as u64, 2).await.expect("resume");
    writer.stage(second.clone()).await.expect("stage");
    let staged = writer.sync().await.expect("sync");
    drop(writer);
    // Once more, and with nothing to add.
    let length = (first.len() + second.len()) as u64;
    let writer = store.resume(&staged, length, 3).await.expect("resume");
    writer.seal(length).await.expect("seal");
    assert!(read(store, blob, 0).await.expect("read") == [first.as_ref(), second.as_ref()].concat());
}

async fn an_older_owner_is_out(store: &dyn BlobStore) {
    let (blob, first, second) = (BlobId::new(), bytes(200_000, 31), bytes(100_000, 37));
    let length = (first.len() + second.len()) as u64;
    let mut older = store.begin(blob, 1).await.expect("begin");
    older.stage(first.clone()).await.expect("stage");
    let staged = older.sync().await.expect("sync");
    // The older one goes on as if nothing had happened.
    let mut newer = store.resume(&staged, first.len() as u64, 2).await.expect("resume");
    let stray = older.stage(bytes(300_000, 41)).await;
    newer.stage(second.clone()).await.expect("stage");
    if stray.is_ok() {
        let sealed = older.seal(first.len() as u64 + 300_000).await;
        assert!(sealed.is_err(), "an older owner sealed a blob");
    }
    assert_refused(store.resume(&staged, first.len() as u64, 1).await, first.len() as u64).await;
    newer.seal(length).await.expect("seal");
    assert!(read(store, blob, 0).await.expect("read") == [first.as_ref(), second.as_ref()].concat());
}

async fn what_is_not_there_is_not_found(store: &dyn BlobStore) {
    let blob = BlobId::new();
    assert_not_there(store, blob).await;
    let staged = dropgate_schemas::upload::StagedBlob { blob, blocks: Vec::new(), tag: None };
    assert_refused(store.resume(&staged, 1000, 2).await, 1000).await;
}

async fn deleting_is_final_and_may_be_repeated(store: &dyn BlobStore) {
    let sealed = written(store, &[&bytes(1000, 43)]).await;
    for _ in 0..2 {
        store.delete(sealed).await.expect("delete");
        assert_not_there(store, sealed).await;
    }
    let unsealed = BlobId::new();
    let mut writer = store.begin(unsealed, 1).await.expect("begin");
    writer.stage(bytes(1000, 47)).await.expect("stage");
    drop(writer);
    store.delete(unsealed).await.expect("delete");
    store.delete(BlobId::new()).await.expect("delete what is not there");
    let listed = list_all(store, Duration::ZERO).await;
    assert!(!listed.contains(&sealed) && !listed.contains(&unsealed));
}

async fn list_all(store: &dyn BlobStore, older_than: Duration) -> Vec<BlobId> {
    let mut all = Vec::new();
    loop {
        let page = store.list(older_than, all.last().copied(), 3).await.expect("list");
        assert!(page.len() <= 3);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn blobs_are_listed_page_by_page(store: &dyn BlobStore) {
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.push(written(store, &[&bytes(10, 53)]).await);
    }
    let unsealed = BlobId::new();
    let mut writer = store.begin(unsealed, 1).await.expect("begin");
    writer.stage(bytes(10, 59)).await.expect("stage");
    writer.sync().await.expect("sync");
    expected.push(unsealed);
    let mut listed = list_all(store, Duration::ZERO).await;
    for blob in &expected {
        assert_eq!(listed.iter().filter(|l| *l == blob).count(), 1, "{blob}");
    }
    let all = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), all, "a blob was listed twice");
    let old = list_all(store, Duration::from_secs(3600)).await;
    assert!(expected.iter().all(|blob| !old.contains(blob)), "a new blob is not an old one");
}
