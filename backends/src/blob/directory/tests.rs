use super::*;
use crate::blob::conformance;
use bytes::Bytes;
use futures::TryStreamExt as _;
use std::os::unix::fs::PermissionsExt as _;

async fn open(dir: &Path) -> BlobDirectory {
    BlobDirectory::open(dir.join("blobs"), Some(0)).await.unwrap()
}

async fn read(store: &BlobDirectory, blob: BlobId) -> Vec<u8> {
    let pieces: Vec<Bytes> = store.open(blob, 0).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::suite(&open(dir.path()).await).await;
}

#[tokio::test]
async fn no_file_stays_open_and_no_gate_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    conformance::suite(&store).await;
    assert_eq!(store.gates.len(), 0);
}

#[tokio::test]
async fn everything_is_private_to_this_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let blob = BlobId::new();
    store.begin(blob, 1).await.unwrap().seal(0).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(store.layout.root()), 0o700);
    assert_eq!(mode(&store.layout.sealed(blob)), 0o600);
}

#[tokio::test]
async fn a_blob_outlives_the_store_that_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (sealed, unsealed) = (BlobId::new(), BlobId::new());
    let mut writer = store.begin(sealed, 1).await.unwrap();
    writer.stage(Bytes::from_static(b"sealed")).await.unwrap();
    writer.seal(6).await.unwrap();
    let mut writer = store.begin(unsealed, 1).await.unwrap();
    writer.stage(Bytes::from_static(b"half")).await.unwrap();
    let staged = writer.sync().await.unwrap();
    drop((writer, store));

    let store = open(dir.path()).await;
    assert_eq!(read(&store, sealed).await, b"sealed");
    // Epoch 2 takes over and dies before it records anything; epoch 3 still finds the file.
    drop(store.resume(&staged, 4, 2).await.unwrap());
    let store = open(dir.path()).await;
    let late = store.resume(&staged, 4, 1).await.map(drop).unwrap_err();
    assert!(matches!(late, BlobError::Conflict { .. }), "{late}");
    let mut writer = store.resume(&staged, 4, 3).await.unwrap();
    writer.stage(Bytes::from_static(b" and half")).await.unwrap();
    writer.seal(13).await.unwrap();
    assert_eq!(read(&store, unsealed).await, b"half and half");
}

#[tokio::test]
async fn a_blob_is_not_taken_from_a_process_that_lives() {
    let dir = tempfile::tempdir().unwrap();
    // Two stores on one directory stand for two processes: each has files of its own open.
    let (here, there) = (open(dir.path()).await, open(dir.path()).await);
    let mut writer = there.begin(BlobId::new(), 1).await.unwrap();
    writer.stage(Bytes::from_static(b"abc")).await.unwrap();
    let staged = writer.sync().await.unwrap();
    let refused = here.resume(&staged, 3, 2).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("another process that lives"), "{refused}");
    drop(writer);
    let writer = here.resume(&staged, 3, 2).await.unwrap();
    writer.seal(3).await.unwrap();
    assert_eq!(read(&there, staged.blob).await, b"abc");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_predecessor_in_the_middle_of_its_writes_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for round in 0..20_u8 {
        let blob = BlobId::new();
        let mut older = store.begin(blob, 1).await.unwrap();
        older.stage(Bytes::from(vec![1; 10_000])).await.unwrap();
        let staged = older.sync().await.unwrap();
        let (begun, running) = tokio::sync::oneshot::channel();
        let writes = tokio::spawn(async move {
            let mut begun = Some(begun);
            // Until it is thrown out.
            while older.stage(Bytes::from(vec![2; 200_000])).await.is_ok() {
                begun.take().map(|b| b.send(()));
            }
        });
        running.await.unwrap();
        let mut newer = store.resume(&staged, 10_000, 2).await.unwrap();
        newer.stage(Bytes::from(vec![3; 10_000 + usize::from(round)])).await.unwrap();
        writes.await.unwrap();
        newer.seal(20_000 + u64::from(round)).await.unwrap();
        let content = read(&store, blob).await;
        assert_eq!(content.len(), 20_000 + usize::from(round));
        assert!(content[..10_000].iter().all(|b| *b == 1) && content[10_000..].iter().all(|b| *b == 3));
    }
}

#[tokio::test]
async fn a_writer_whose_blob_was_deleted_can_not_seal_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()).await, open(dir.path()).await);
    for deleted_by in [&store, &other] {
        let blob = BlobId::new();
        let mut writer = store.begin(blob, 1).await.unwrap();
        writer.stage(Bytes::from_static(b"abc")).await.unwrap();
        deleted_by.delete(blob).await.unwrap();
        let error = writer.seal(3).await.unwrap_err();
        assert!(matches!(error, BlobError::Conflict { .. }), "{error}");
        assert!(matches!(store.open(blob, 0).await.map(drop), Err(BlobError::NotFound(_))));
    }
}

#[tokio::test]
async fn a_file_shorter_than_its_record_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let staged = StagedBlob { blob: BlobId::new(), blocks: Vec::new(), tag: None };
    drop(store.begin(staged.blob, 1).await.unwrap());
    let error = store.resume(&staged, 1, 2).await.map(drop).unwrap_err();
    assert!(matches!(error, BlobError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn new_uploads_leave_room_for_those_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = open(dir.path()).await;
    let mut under_way = roomy.begin(BlobId::new(), 1).await.unwrap();
    let full = BlobDirectory::open(dir.path().join("blobs"), Some(u64::MAX)).await.unwrap();
    for refused in [full.begin(BlobId::new(), 1).await.map(drop), full.check().await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, BlobError::Full(_)), "{error}");
        assert!(error.to_string().contains("reserve_bytes"), "{error}");
    }
    let (room, none) = (roomy.space().await.unwrap().unwrap(), full.space().await.unwrap().unwrap());
    assert!(room.total >= room.free && room.free > 0 && none.free == 0 && none.total == room.total);
    under_way.stage(Bytes::from_static(b"abc")).await.unwrap();
    under_way.seal(3).await.unwrap();
}

#[tokio::test]
async fn what_is_in_the_way_is_named_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = BlobDirectory::open(file.join("blobs"), None).await.unwrap_err().to_string();
    assert!(error.contains("[backends.blob] path") && error.contains("file/blobs"), "{error}");
}

#[tokio::test]
async fn strange_files_in_the_directory_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for name in ["README", "x.0000000000000001", "00/lost+found.txt"] {
        std::fs::write(store.layout.root().join(name), "x").unwrap();
    }
    let stranger = BlobId::new();
    let elsewhere = if store.layout.branch(stranger).ends_with("00") { "01" } else { "00" };
    std::fs::write(store.layout.root().join(elsewhere).join(stranger.to_string()), "x").unwrap();
    assert_eq!(store.list(Duration::ZERO, None, 10).await.unwrap(), []);
}
