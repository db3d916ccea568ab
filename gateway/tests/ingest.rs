//! Uploads into the real directory store: what is sealed is read back, what is interrupted is continued.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed; clippy knows that only inside of test functions"
)]

use bytes::Bytes;
use dropgate_backends::{Backends, BlobError, config::BackendsConfig};
use dropgate_gateway::ingest::{
    Budget, Budgets, CONNECTION_BYTES, Content, GatewayBudget, IngestError, OpenUpload, UploadContext,
    UploadOptions, delete_blobs,
};
use dropgate_schemas::{digest::Sha256, id::BlobId, upload::Staged};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{sync::Arc, time::Duration};

const MIB: usize = 1 << 20;

struct Gateway {
    backends: Backends,
    budgets: Budgets,
    data_dir: tempfile::TempDir,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(data_dir: tempfile::TempDir) -> Self {
        let backends = Backends::open(&BackendsConfig::default(), data_dir.path()).await.unwrap();
        let budgets =
            Budgets { connection: Budget::new(CONNECTION_BYTES), gateway: GatewayBudget::new(64 * MIB) };
        Self { backends, budgets, data_dir }
    }

    /// As after the end of the process: everything in memory is gone.
    async fn restart(self) -> Self {
        self.backends.close().await;
        let Self { data_dir, backends, .. } = self;
        drop(backends);
        Self::start_in(data_dir).await
    }

    fn context(&self, epoch: u64) -> UploadContext {
        let options =
            UploadOptions { progress_interval: Duration::from_millis(20), ..UploadOptions::default() };
        UploadContext {
            store: Arc::clone(&self.backends.blob),
            budgets: self.budgets.clone(),
            options: Arc::new(options),
            detector: Arc::default(),
            quota_left: None,
            epoch,
        }
    }

    async fn read(&self, blob: BlobId) -> Vec<u8> {
        let pieces: Vec<Bytes> = self.backends.blob.open(blob, 0).await.unwrap().try_collect().await.unwrap();
        pieces.concat()
    }

    fn resume(&self, staged: &Staged, epoch: u64) -> OpenUpload {
        OpenUpload::resume(self.context(epoch), staged.clone()).unwrap()
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

async fn send(upload: &OpenUpload, content: &[u8], from: usize, to: usize) -> Result<(), IngestError> {
    let mut at = from;
    while at < to {
        let end = (at + 32_768).min(to);
        upload.write(at as u64, &content[at..end]).await?;
        at = end;
    }
    Ok(())
}

async fn finish(upload: &OpenUpload, expected: &[u8]) -> BlobId {
    let finished = upload.finish().await.unwrap();
    assert_eq!(finished.size, expected.len() as u64);
    assert_eq!(finished.sha256, Sha256::of(expected));
    match finished.content {
        Content::Stored(blob) => blob,
        Content::Inline(_) => panic!("inline"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_reads_back_byte_for_byte() {
    let gateway = Gateway::start().await;
    for length in [65_537, MIB, 9 * MIB + 12_345] {
        let content = content(length);
        let upload = OpenUpload::fresh(gateway.context(1));
        send(&upload, &content, 0, length).await.unwrap();
        let blob = finish(&upload, &content).await;
        assert!(gateway.read(blob).await == content, "the blob of {length} bytes differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_uploads_of_one_connection_at_a_time() {
    let gateway = Gateway::start().await;
    let content = Arc::new(content(6 * MIB));
    let uploads = (0..8).map(|i| {
        let (upload, content) = (OpenUpload::fresh(gateway.context(1)), Arc::clone(&content));
        tokio::spawn(async move {
            let end = content.len() - i;
            send(&upload, &content, 0, end).await.unwrap();
            (end, finish(&upload, &content[..end]).await)
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        let (end, blob) = upload.await.unwrap();
        assert!(gateway.read(blob).await == content[..end]);
    }
    assert_eq!(gateway.budgets.connection.available(), CONNECTION_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_upload_is_continued_after_a_restart() {
    let gateway = Gateway::start().await;
    let content = content(3 * MIB);
    let upload = OpenUpload::fresh(gateway.context(1));
    send(&upload, &content, 0, 1_500_000).await.unwrap();
    let staged = upload.park().await.staged.unwrap();
    assert_eq!(staged.length, 1_500_000);
    drop(upload);

    let gateway = gateway.restart().await;
    let upload = gateway.resume(&staged, 2);
    send(&upload, &content, 1_500_000, content.len()).await.unwrap();
    let blob = finish(&upload, &content).await;
    assert!(gateway.read(blob).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_saved_before_a_crash_is_enough_to_continue() {
    let gateway = Gateway::start().await;
    let content = content(6 * MIB);
    let upload = OpenUpload::fresh(gateway.context(1));
    let mut progress = upload.progress();
    send(&upload, &content, 0, 4 * MIB).await.unwrap();
    let staged = progress.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    // More is staged, perhaps, than was saved: it is thrown away.
    drop(upload);

    let gateway = gateway.restart().await;
    let upload = gateway.resume(&staged, 2);
    send(&upload, &content, staged.length as usize, content.len()).await.unwrap();
    let blob = finish(&upload, &content).await;
    assert!(gateway.read(blob).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_cut_off_writes_nothing_more() {
    let gateway = Gateway::start().await;
    let content = content(4 * MIB);
    let old = OpenUpload::fresh(gateway.context(1));
    send(&old, &content, 0, 2 * MIB).await.unwrap();
    old.flush_durable().await.unwrap();
    let staged = old.progress().borrow().clone().unwrap();
    assert_eq!(staged.length, 2 * MIB as u64);

    let new = gateway.resume(&staged, 2);
    send(&new, &content, 2 * MIB, 3 * MIB).await.unwrap();
    new.flush_durable().await.unwrap();
    let wrong = vec![0xEE; 2 * MIB];
    let cut_off = async {
        send(&old, &[&content[..2 * MIB], &wrong].concat(), 2 * MIB, 4 * MIB).await?;
        old.flush_durable().await
    };
    assert!(matches!(cut_off.await, Err(IngestError::Store(BlobError::Conflict { .. }))));
    send(&new, &content, 3 * MIB, 4 * MIB).await.unwrap();
    let blob = finish(&new, &content).await;
    assert!(gateway.read(blob).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_again_leaves_the_old_bytes_to_be_deleted() {
    let gateway = Gateway::start().await;
    let content = content(2 * MIB);
    let upload = OpenUpload::fresh(gateway.context(1));
    send(&upload, &content, 0, MIB).await.unwrap();
    let staged = upload.park().await.staged.unwrap();

    let upload = gateway.resume(&staged, 2);
    send(&upload, &content, 0, content.len()).await.unwrap();
    let finished = upload.finish().await.unwrap();
    assert_eq!(finished.replaced, [staged.blob.unwrap().blob]);
    delete_blobs(&*gateway.backends.blob, &finished.replaced).await;
    let Content::Stored(blob) = finished.content else { panic!("inline") };
    assert!(gateway.read(blob).await == content);
    let left = gateway.backends.blob.list(Duration::ZERO, None, 10).await.unwrap();
    assert_eq!(left, [blob]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_given_up_leaves_nothing() {
    let gateway = Gateway::start().await;
    let content = content(2 * MIB);
    let upload = OpenUpload::fresh(gateway.context(1));
    send(&upload, &content, 0, content.len()).await.unwrap();
    upload.flush_durable().await.unwrap();
    let blobs = upload.abandon().await;
    assert_eq!(blobs.len(), 1);
    delete_blobs(&*gateway.backends.blob, &blobs).await;
    assert_eq!(gateway.backends.blob.list(Duration::ZERO, None, 10).await.unwrap(), []);
    let reader = gateway.backends.blob.open(blobs[0], 0).await;
    assert!(matches!(reader.map(|r| r.boxed()).err(), Some(BlobError::NotFound(_))));
}
