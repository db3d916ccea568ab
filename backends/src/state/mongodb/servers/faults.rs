//! A server of its own that dies or stands still.

use super::setting::{Own, Place, until};
use crate::state::{
    AuditQuery, StateError, StateStore,
    conformance::samples::{self, upload},
};
use dropgate_schemas::{change::Durability, upload::Upload};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Kills the server with writes under way, three times: what was acknowledged is there with all of its entries, what was
/// refused is not, and what is unknown is there whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let server = Own::start();
    let mut place = Place::on(server.uri());
    place.settings.deadline = Duration::from_secs(4);
    place.settings.selection = Duration::from_secs(1);
    let store = place.open().await;
    let mut acknowledged: HashMap<_, (u64, u64)> = HashMap::new();
    for round in 0..3 {
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let store = Arc::clone(&store);
                let record = upload("acme", &format!("/upload/{round}-{n}"), 1);
                tokio::spawn(write_until_refused(store, record))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.kill();
        for writer in writers {
            let (record, unknown) = writer.await.unwrap();
            assert!(record.revision > 0, "nothing was written before the server was killed");
            acknowledged.insert(record.upload_id, (record.revision, record.revision + u64::from(unknown)));
        }
        server.restart();
        until(Duration::from_secs(30), "the store answers again", async || store.check().await.is_ok()).await;
    }
    assert_eq!(acknowledged.len(), 12);
    for (id, (least, most)) in acknowledged {
        let found = store.upload(id).await.unwrap().unwrap();
        assert!((least..=most).contains(&found.revision), "{}: not in {least}..={most}", found.revision);
        let mut entries = 0;
        let mut after = None;
        loop {
            let query = AuditQuery { upload: Some(id), after, limit: 500, ..AuditQuery::default() };
            let page = store.audit(query).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.position);
            entries += page.len() as u64;
        }
        assert_eq!(entries, found.revision, "one entry for each revision");
    }
}

/// The record as it was acknowledged last, and whether the write after that may have been made.
async fn write_until_refused(store: Arc<dyn StateStore>, mut record: Upload) -> (Upload, bool) {
    loop {
        match store.apply(samples::change(&record, Durability::Durable)).await {
            Ok(revision) => record.revision = revision,
            Err(StateError::Unavailable(_)) => return (record, true),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every call is answered as unavailable in time, and all goes on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_unavailable_in_time() {
    let server = Own::start();
    let mut place = Place::on(server.uri());
    place.settings.deadline = Duration::from_secs(3);
    place.settings.selection = Duration::from_secs(1);
    let store = place.open().await;
    let mut record = upload("acme", "/upload/x", 1);
    record.revision = store.apply(samples::created(&record)).await.unwrap();
    server.pause();
    let begun = Instant::now();
    let (applied, read, trail, checked) = tokio::join!(
        store.apply(samples::change(&record, Durability::Durable)),
        store.upload(record.upload_id),
        store.audit(AuditQuery { limit: 1, ..AuditQuery::default() }),
        store.check(),
    );
    let took = begun.elapsed();
    server.resume();
    for refused in [applied.err(), read.err(), trail.err(), checked.err()] {
        assert!(matches!(refused, Some(StateError::Unavailable(_))), "{refused:?}");
    }
    assert!(took <= Duration::from_secs(3), "it took {took:?}");
    until(Duration::from_secs(20), "the store answers again", async || store.check().await.is_ok()).await;
    // The write that timed out may have been made since.
    record.revision = store.upload(record.upload_id).await.unwrap().unwrap().revision;
    assert!((1..=2).contains(&record.revision), "{}", record.revision);
    let revision = store.apply(samples::change(&record, Durability::Durable)).await.unwrap();
    let trail = store.audit(AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap();
    assert_eq!(trail.len() as u64, revision, "one entry for each revision");
    let waiting = Instant::now();
    store.changed(Duration::from_millis(100)).await;
    assert!(waiting.elapsed() < Duration::from_secs(2));
}
