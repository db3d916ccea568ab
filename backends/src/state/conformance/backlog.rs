//! Counts.

use super::{
    Fixture,
    samples::{change, created, upload},
};
use crate::state::Backlog;
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry},
    job::Work,
    time::Timestamp,
    upload::UploadState,
};
use std::time::Duration;

/// States of uploads that are not deleted, and follow-ups that wait.
pub async fn it_counts_what_is_there(store: &Fixture) {
    assert_eq!(store.one.backlog().await.unwrap(), Backlog::default());
    let mut uploads = Vec::new();
    for n in 0..5 {
        let mut upload = upload("acme", &format!("/upload/{n}"), 1);
        upload.revision = store.one.apply(created(&upload)).await.unwrap();
        uploads.push(upload);
    }
    for upload in uploads.iter_mut().take(3) {
        upload.state = UploadState::Committed;
        upload.revision = store.one.apply(change(upload, Durability::Durable)).await.unwrap();
    }
    let count = |backlog: &Backlog, state| {
        backlog.uploads.iter().find(|(s, _)| *s == state).map_or(0, |(_, count)| *count)
    };
    let backlog = store.two.backlog().await.unwrap();
    assert_eq!(count(&backlog, UploadState::Receiving), 2);
    assert_eq!(count(&backlog, UploadState::Committed), 3);
    let deleted = uploads.last_mut().unwrap();
    deleted.deleted_at = Some(Timestamp::now());
    store.one.apply(created(deleted)).await.unwrap();
    assert_eq!(count(&store.two.backlog().await.unwrap(), UploadState::Receiving), 1);

    let begun = Timestamp::now();
    let first = uploads.first().unwrap();
    let (job, later) = (
        OutboxEntry::job(first.upload_id, Work::Route),
        OutboxEntry::job(first.upload_id, Work::Route).at(begun.plus(Duration::from_secs(600))),
    );
    let outbox = vec![job.clone(), later.clone()];
    store.one.apply(Change { outbox, ..change(first, Durability::Durable) }).await.unwrap();
    let backlog = store.two.backlog().await.unwrap();
    assert_eq!(backlog.outbox, 2);
    let oldest = backlog.oldest_outbox.unwrap();
    assert!(oldest >= begun && oldest <= Timestamp::now(), "{oldest}");
    store.one.outbox_done(&[job.id]).await.unwrap();
    let backlog = store.two.backlog().await.unwrap();
    assert_eq!((backlog.outbox, backlog.oldest_outbox), (1, None), "what is for later was not due yet");
    store.one.outbox_done(&[later.id]).await.unwrap();
    assert_eq!(store.two.backlog().await.unwrap().outbox, 0);
    store.one.check().await.unwrap();
}
