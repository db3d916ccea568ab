//! Entries on their way out of their records.

use super::setting::{Place, until};
use crate::state::{AuditQuery, StateStore, conformance::samples};
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind},
    job::Work,
    time::Timestamp,
    upload::Upload,
};
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// `rounds` changes of an upload, each with an audit entry.
async fn change_often(store: Arc<dyn StateStore>, mut upload: Upload, rounds: u64) {
    for _ in 0..rounds {
        upload.revision = store.apply(samples::change(&upload, Durability::Visible)).await.unwrap();
    }
}

/// A reader that goes on from the last position it saw, while others write and place, misses nothing and sees the entries of
/// one record in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_follows_the_trail_misses_nothing() {
    let place = Place::new();
    let (one, two, reader) = (place.open().await, place.open().await, place.open().await);
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            let upload = samples::upload("acme", &format!("/upload/{n}"), 1);
            tokio::spawn(change_often(store, upload, 15))
        })
        .collect();
    let read_by_others = {
        let two = Arc::clone(&two);
        tokio::spawn(async move {
            for _ in 0..30 {
                two.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap();
            }
        })
    };
    let (mut seen, mut last, mut over) = (Vec::new(), 0, false);
    loop {
        let page =
            reader.audit(AuditQuery { after: Some(last), limit: 20, ..AuditQuery::default() }).await.unwrap();
        let Some(end) = page.last() else {
            if over {
                break;
            }
            over = writers.iter().all(tokio::task::JoinHandle::is_finished);
            tokio::task::yield_now().await;
            continue;
        };
        last = end.position;
        seen.extend(page);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    read_by_others.await.unwrap();
    assert!(seen.is_sorted_by(|a, b| a.position < b.position));
    let mut of: HashMap<_, Vec<_>> = HashMap::new();
    for stored in &seen {
        let entry = stored.entry().unwrap();
        of.entry(entry.upload).or_default().push(entry.id);
    }
    assert_eq!(of.len(), 6);
    for ids in of.values() {
        assert_eq!(ids.len(), 15);
        assert!(ids.is_sorted_by(|a, b| a < b), "out of order or twice: {ids:?}");
    }
}

/// A process that knows where the trail ended goes on behind all that another has appended since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_on_behind_what_another_has_placed() {
    let place = Place::new();
    let (one, two) = (place.open().await, place.open().await);
    for (number, (store, rounds)) in [(&one, 1), (&two, 150), (&one, 2), (&two, 1)].into_iter().enumerate() {
        let upload = samples::upload("acme", &format!("/upload/{number}"), 1);
        change_often(Arc::clone(store), upload, rounds).await;
        store.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap();
    }
    let trail = one.audit(AuditQuery { limit: 500, ..AuditQuery::default() }).await.unwrap();
    let positions: Vec<u64> = trail.iter().map(|stored| stored.position).collect();
    assert_eq!(positions, (1..=154).collect::<Vec<u64>>());
    let ids: HashSet<_> = trail.iter().map(|stored| stored.entry().unwrap().id).collect();
    assert_eq!(ids.len(), 154);
}

/// Handled by one process while another has just read it in the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handled_never_comes_back() {
    let place = Place::new();
    let (one, two) = (place.open().await, place.open().await);
    for n in 0..25 {
        let upload = samples::upload("acme", &format!("/upload/{n}"), 1);
        let job = OutboxEntry::job(upload.upload_id, Work::Route);
        let change = Change { outbox: vec![job.clone()], ..samples::created(&upload) };
        one.apply(change).await.unwrap();
        let ids = [job.id];
        let (done, due) =
            tokio::join!(one.outbox_done(&ids), two.outbox_due(OutboxKind::Job, Timestamp::now(), 10));
        done.unwrap();
        assert!(due.unwrap().len() <= 1);
        for store in [&one, &two] {
            assert_eq!(store.outbox_due(OutboxKind::Job, Timestamp::now(), 10).await.unwrap(), []);
            store.outbox_defer(&ids, Timestamp::now()).await.unwrap();
            assert_eq!(store.outbox_due(OutboxKind::Job, Timestamp::now(), 10).await.unwrap(), []);
        }
    }
    assert_eq!(one.backlog().await.unwrap().outbox, 0);
}

/// Though nobody reads the trail or the outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_do_not_grow_by_what_was_done_to_them() {
    let place = Place::new();
    let store = place.open().await;
    let upload = samples::upload("acme", "/upload/x", 1);
    let id = upload.upload_id.to_string();
    change_often(Arc::clone(&store), upload.clone(), 30).await;
    let entries_only = Change {
        subject: dropgate_schemas::change::Subject::None,
        audit: vec![samples::entry(&upload)],
        outbox: vec![OutboxEntry::job(upload.upload_id, Work::Route)],
        durability: Durability::Durable,
    };
    store.apply(entries_only).await.unwrap();
    let raw = place.raw().await;
    let uploads: Collection<Document> = raw.collection("dg_uploads");
    let pending: Collection<Document> = raw.collection("dg_pending");
    let audit: Collection<Document> = raw.collection("dg_audit");
    until(Duration::from_secs(20), "everything is placed", async || {
        audit.count_documents(doc! {}).await.unwrap() == 31
            && pending.count_documents(doc! {}).await.unwrap() == 0
    })
    .await;
    until(Duration::from_secs(20), "the record is empty", async || {
        let found = uploads.find_one(doc! { "_id": &id }).await.unwrap().unwrap();
        ["audit", "outbox", "unplaced"].iter().all(|field| !found.contains_key(field))
    })
    .await;
    assert_eq!(store.upload(upload.upload_id).await.unwrap().unwrap().revision, 30);
    assert_eq!(store.outbox_due(OutboxKind::Job, Timestamp::now(), 10).await.unwrap().len(), 1);
}
