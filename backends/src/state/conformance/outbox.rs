//! What must follow.

use super::{
    Fixture,
    samples::{event, upload},
};
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind, OutboxMessage, Subject},
    id::{OutboxId, UploadId},
    job::Work,
    time::Timestamp,
};
use std::time::Duration;

async fn store_all(store: &Fixture, outbox: Vec<OutboxEntry>) {
    let change =
        Change { subject: Subject::None, audit: Vec::new(), outbox, durability: Durability::Durable };
    store.one.apply(change).await.unwrap();
}

fn supersede() -> OutboxEntry {
    OutboxEntry {
        id: OutboxId::new(),
        upload: Some(UploadId::new()),
        message: OutboxMessage::Supersede { older: UploadId::new() },
        not_before: None,
    }
}

/// Each kind on its own; entries come back as they were until they are marked.
pub async fn entries_are_due_by_kind_in_the_order_of_storing(store: &Fixture) {
    let upload = upload("acme", "/upload/x", 1);
    let jobs: Vec<OutboxEntry> = (0..10).map(|_| OutboxEntry::job(upload.upload_id, Work::Route)).collect();
    let events: Vec<OutboxEntry> = (0..3).map(|_| OutboxEntry::event(event(&upload))).collect();
    let supersedes = vec![supersede()];
    store_all(store, [&jobs[..4], &events[..], &jobs[4..], &supersedes[..]].concat()).await;
    let now = Timestamp::now();
    let due = async |kind, limit| store.two.outbox_due(kind, now, limit).await.unwrap();
    assert_eq!(due(OutboxKind::Job, 100).await, jobs);
    assert_eq!(due(OutboxKind::Event, 100).await, events);
    assert_eq!(due(OutboxKind::Supersede, 100).await, supersedes);
    assert_eq!(due(OutboxKind::Job, 3).await, jobs[..3]);
    let handled: Vec<OutboxId> = [0, 2, 3].map(|n: usize| jobs[n].id).to_vec();
    for _ in 0..2 {
        store.one.outbox_done(&handled).await.unwrap();
        store.one.outbox_done(&[OutboxId::new()]).await.unwrap();
    }
    let left: Vec<OutboxEntry> = jobs.iter().filter(|j| !handled.contains(&j.id)).cloned().collect();
    assert_eq!(due(OutboxKind::Job, 100).await, left);
    assert_eq!(due(OutboxKind::Event, 100).await.len(), 3);
    assert_eq!(store.two.outbox_next_due().await.unwrap(), None);
}

/// Entries for later, and entries that the relay could not handle.
pub async fn what_is_put_off_comes_back_in_its_time(store: &Fixture) {
    let now = Timestamp::now();
    let minute = |n: u64| now.plus(Duration::from_secs(60 * n));
    let job = || OutboxEntry::job(UploadId::new(), Work::Route);
    let (late, at_once, later) = (job().at(minute(5)), job(), job().at(minute(9)));
    store_all(store, vec![late.clone(), at_once.clone(), later.clone()]).await;
    let due = async |moment| {
        let due = store.two.outbox_due(OutboxKind::Job, moment, 100).await.unwrap();
        due.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(due(now).await, [at_once.id]);
    assert_eq!(store.two.outbox_next_due().await.unwrap(), Some(minute(5)));
    assert_eq!(due(minute(5)).await, [late.id, at_once.id], "in the order of storing");
    assert_eq!(due(minute(10)).await, [late.id, at_once.id, later.id]);

    store.one.outbox_defer(&[at_once.id, OutboxId::new()], minute(2)).await.unwrap();
    assert_eq!(due(now).await, [], "put off");
    assert_eq!(store.two.outbox_next_due().await.unwrap(), Some(minute(2)));
    assert_eq!(due(minute(2)).await, [at_once.id]);
    store.one.outbox_defer(&[late.id], now).await.unwrap();
    assert_eq!(due(now).await, [late.id], "put forward");
    store.one.outbox_done(&[at_once.id, late.id]).await.unwrap();
    store.one.outbox_defer(&[at_once.id], now).await.unwrap();
    assert_eq!(due(minute(60)).await, [later.id], "what was handled stays so");
    assert_eq!(store.two.outbox_next_due().await.unwrap(), Some(minute(9)));
}
