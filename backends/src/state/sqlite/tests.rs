mod crash;
mod measure;
mod opening;
mod plans;

use super::open;
use crate::state::{StateError, StateStore, conformance::Fixture, conformance::samples};
use dropgate_schemas::change::Durability;
use std::{path::Path, sync::Arc, time::Duration};

async fn two_handles() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let (one, two) = (state(&path), state(&path));
    Fixture { one, two, keep: Box::new(dir) }
}

fn state(path: &Path) -> Arc<dyn StateStore> {
    open(path).unwrap().0
}

crate::state_store_conformance!(two_handles);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_given_up_makes_changes_unavailable_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let store = state(&path);
    let first = samples::upload("acme", "/upload/x", 1);
    store.apply(samples::created(&first)).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let second = samples::upload("acme", "/upload/y", 1);
    let (refused, read) = tokio::join!(store.apply(samples::change(&second, Durability::Durable)), async {
        tokio::time::timeout(Duration::from_secs(2), store.upload(first.upload_id)).await
    });
    assert!(matches!(refused, Err(StateError::Unavailable(_))), "{refused:?}");
    assert!(read.unwrap().unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(store.upload(second.upload_id).await.unwrap().is_none());
    store.apply(samples::change(&second, Durability::Durable)).await.unwrap();
}

#[tokio::test]
async fn after_the_end_every_call_is_unavailable() {
    let fixture = two_handles().await;
    let upload = samples::upload("acme", "/upload/x", 1);
    fixture.one.close().await;
    fixture.one.close().await;
    let refused = fixture.one.apply(samples::created(&upload)).await;
    assert!(matches!(refused, Err(StateError::Unavailable(_))), "{refused:?}");
    let refused = fixture.one.upload(upload.upload_id).await;
    assert!(matches!(refused, Err(StateError::Unavailable(_))), "{refused:?}");
    fixture.two.apply(samples::created(&upload)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_process_does_not_keep_another_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let (busy, calm) = (state(&path), state(&path));
    let busy: Vec<_> = (0..8)
        .map(|n| {
            let busy = Arc::clone(&busy);
            tokio::spawn(async move {
                let mut record = samples::upload("busy", &format!("/upload/{n}"), 1);
                loop {
                    record.revision =
                        busy.apply(samples::change(&record, Durability::Durable)).await.unwrap();
                }
            })
        })
        .collect();
    let mut record = samples::upload("calm", "/upload/x", 1);
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let begun = std::time::Instant::now();
        record.revision = calm.apply(samples::change(&record, Durability::Durable)).await.unwrap();
        longest = longest.max(begun.elapsed());
    }
    for task in &busy {
        assert!(!task.is_finished());
        task.abort();
    }
    // SQLite alone would let it wait for seconds now and then.
    assert!(longest < Duration::from_secs(2), "kept out for {longest:?}");
}
