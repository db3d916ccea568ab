//! How fast it is: `cargo test ... servers::measure -- --ignored --nocapture`.

use super::setting::Place;
use crate::{
    StateStore, UploadQuery,
    state::conformance::samples::{self, account, path, upload},
};
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind},
    id::{OutboxId, UploadId},
    job::Work,
    path::Area,
    time::Timestamp,
    upload::UploadState,
};
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Makes an upload and commits it, `count` times: changes a second, and each one's time in order.
async fn commit_many(store: Arc<dyn StateStore>, writer: usize, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..count {
        let mut record = upload("acme", &format!("/upload/{writer}/{n}"), 1);
        let begun = Instant::now();
        record.revision = store.apply(samples::created(&record)).await.unwrap();
        took.push(begun.elapsed());
        record.state = UploadState::Committed;
        let outbox = vec![
            OutboxEntry::job(record.upload_id, Work::Route),
            OutboxEntry::event(samples::event(&record)),
        ];
        let begun = Instant::now();
        store.apply(Change { outbox, ..samples::change(&record, Durability::Durable) }).await.unwrap();
        took.push(begun.elapsed());
    }
    took
}

fn tell(what: &str, mut took: Vec<Duration>, whole: Duration) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    println!(
        "{what}: {:.0}/s, median {:?}, p99 {:?}",
        took.len() as f64 / whole.as_secs_f64(),
        at(50),
        at(99)
    );
}

/// So many copies of one committed upload and of its job, put there directly.
async fn fill(place: &Place, count: u32) {
    let store = place.open().await;
    commit_many(Arc::clone(&store), 99, 1).await;
    store.outbox_due(OutboxKind::Job, Timestamp::now(), 1).await.unwrap();
    let raw = place.raw().await;
    let uploads: Collection<Document> = raw.collection("dg_uploads");
    let outbox: Collection<Document> = raw.collection("dg_outbox");
    let upload = uploads.find_one(doc! { "area": "upload" }).sort(doc! { "_id": -1 }).await.unwrap().unwrap();
    let job = outbox.find_one(doc! { "kind": "job" }).sort(doc! { "_id": -1 }).await.unwrap().unwrap();
    let number = job.get_i64("_id").unwrap();
    for some in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let copy = |n: &u32| {
            let (mut upload, mut job) = (upload.clone(), job.clone());
            let (id, path) = (UploadId::new().to_string(), format!("/upload/{}/{n}", 100 + n % 8));
            upload.insert("_id", &id);
            upload.insert("write", &id);
            upload.remove("unplaced");
            let keys = doc! { "path": &path, "directory": format!("/upload/{}", 100 + n % 8), "name": n.to_string() };
            upload.insert("keys", keys);
            let record = upload.get_document_mut("record").unwrap();
            record.extend([("upload_id".to_owned(), id.into()), ("path".to_owned(), path.into())]);
            job.insert("_id", number + 1_000 + i64::from(*n));
            job.insert("entry", OutboxId::new().to_string());
            (upload, job)
        };
        let (some_uploads, some_jobs): (Vec<_>, Vec<_>) = some.iter().map(copy).unzip();
        uploads.insert_many(some_uploads).await.unwrap();
        outbox.insert_many(some_jobs).await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure() {
    let place = Place::new();
    let (store, other) = (place.open().await, place.open().await);
    let begun = Instant::now();
    let took = commit_many(Arc::clone(&store), 0, 200).await;
    tell("apply, 1 writer", took, begun.elapsed());
    let begun = Instant::now();
    let writers: Vec<_> = (1..=16).map(|n| tokio::spawn(commit_many(Arc::clone(&store), n, 40))).collect();
    let mut took = Vec::new();
    for writer in writers {
        took.extend(writer.await.unwrap());
    }
    tell("apply, 16 writers", took, begun.elapsed());

    let begun = Instant::now();
    fill(&place, 10_000).await;
    println!("filled up with 10,000 uploads in {:?}", begun.elapsed());
    let begun = Instant::now();
    let all = other.backlog().await.unwrap();
    println!("backlog, placing what waited: {:?} ({} follow-ups)", begun.elapsed(), all.outbox);
    let listing = UploadQuery {
        account: Some(account("acme")),
        directory: Some(path("/upload/103")),
        area: Some(Area::Upload),
        order: crate::state::UploadOrder::ByName,
        limit: 100,
        ..UploadQuery::default()
    };
    let newest = UploadQuery { limit: 100, ..UploadQuery::default() };
    let one_path = UploadQuery {
        account: Some(account("acme")),
        path: Some(path("/upload/103/7")),
        limit: 1,
        ..UploadQuery::default()
    };
    let of_state = UploadQuery {
        states: vec![UploadState::Receiving, UploadState::Delivering],
        limit: 100,
        ..UploadQuery::default()
    };
    for (what, query) in [
        ("one path", one_path),
        ("a directory, 100", listing),
        ("newest 100", newest),
        ("two states, none", of_state),
    ] {
        let begun = Instant::now();
        let mut took = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            other.find(query.clone()).await.unwrap();
            took.push(begun.elapsed());
        }
        tell(&format!("find, {what}"), took, begun.elapsed());
    }
    for limit in [1, 256] {
        let begun = Instant::now();
        let mut took = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            let due = other.outbox_due(OutboxKind::Job, Timestamp::now(), limit).await.unwrap();
            assert_eq!(due.len(), limit);
            took.push(begun.elapsed());
        }
        tell(&format!("outbox_due, {limit} of 10,000"), took, begun.elapsed());
    }
    let mut took = Vec::new();
    let whole = Instant::now();
    for n in 0..50 {
        let listener = Arc::clone(&other);
        listener.changed(Duration::from_millis(200)).await;
        let record = upload("acme", &format!("/upload/heard/{n}"), 1);
        let id = record.upload_id;
        let hearing = tokio::spawn(async move {
            while listener.upload(id).await.unwrap().is_none() {
                listener.changed(Duration::from_secs(5)).await;
            }
            Instant::now()
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        store.apply(samples::created(&record)).await.unwrap();
        let written = Instant::now();
        took.push(hearing.await.unwrap().saturating_duration_since(written));
    }
    tell("a change is heard of by another process", took, whole.elapsed());
}
