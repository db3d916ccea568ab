use super::*;
use crate::state::conformance::samples::{self, created, entry};
use dropgate_schemas::{change::Subject, upload::UploadState};

fn fresh() -> (tempfile::TempDir, Arc<dyn StateStore>, Arc<dyn JobQueue>) {
    let dir = tempfile::tempdir().unwrap();
    let (state, queue) = open(&dir.path().join("dropgate.db")).unwrap();
    (dir, state, queue)
}

#[tokio::test]
async fn smoke() {
    let (dir, state, queue) = fresh();
    let upload = samples::upload("acme", "/upload/a/b.csv", 1);
    assert_eq!(state.apply(created(&upload)).await.unwrap(), 1);
    let mut stored = state.upload(upload.upload_id).await.unwrap().unwrap();
    assert_eq!(stored.revision, 1);
    stored.state = UploadState::Committed;
    let change = Change {
        subject: Subject::Upload { upload: Box::new(stored.clone()), inline: Some(Bytes::from_static(b"x")) },
        audit: vec![entry(&stored)],
        outbox: vec![OutboxEntry::job(stored.upload_id, dropgate_schemas::job::Work::Route)],
        durability: Durability::Durable,
    };
    assert_eq!(state.apply(change).await.unwrap(), 2);
    let due = state.outbox_due(OutboxKind::Job, Timestamp::now(), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(state.audit(AuditQuery { limit: 10, ..Default::default() }).await.unwrap().len(), 2);
    let job = dropgate_schemas::job::Job {
        entry: due[0].id,
        upload: upload.upload_id,
        work: dropgate_schemas::job::Work::Route,
    };
    queue.publish(&[job.clone(), job]).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1);
    let taken = queue.take(10, Duration::from_secs(1)).await.unwrap();
    queue.ack(&[taken[0].tag]).await.unwrap();
    queue.close().await;
    state.close().await;
    assert!(!dir.path().join("dropgate.db-wal").exists());
}
