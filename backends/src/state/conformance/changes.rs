//! Conditional writes.

use super::{
    Fixture,
    samples::{self, change, created, directory, entry, full_upload, inbox_entry, login, path, upload},
};
use crate::state::{AuditQuery, StateError};
use bytes::Bytes;
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind, Subject},
    id::UploadId,
    job::Work,
    time::Timestamp,
    upload::UploadState,
};
use std::sync::Arc;

fn is_conflict(result: &Result<u64, StateError>) -> bool {
    matches!(result, Err(StateError::Conflict { .. }))
}

/// Every field comes back, through both handles.
pub async fn a_new_record_is_at_revision_one_and_reads_back_as_it_was_written(store: &Fixture) {
    let mut written = full_upload("acme", "/upload/a/b.csv", 1);
    assert!(store.one.upload(written.upload_id).await.unwrap().is_none());
    for durability in [Durability::Visible, Durability::Durable] {
        let based_on = written.revision;
        let revision = store.one.apply(Change { durability, ..created(&written) }).await.unwrap();
        assert_eq!(revision, based_on + 1);
        written.revision = revision;
        assert_eq!(store.one.upload(written.upload_id).await.unwrap().as_ref(), Some(&written));
        assert_eq!(store.two.upload(written.upload_id).await.unwrap().as_ref(), Some(&written));
        written.attributes.mtime = Some(7);
    }
}

/// Uploads, directories, accounts, entries of `/inbox` and tokens alike.
pub async fn every_kind_of_subject_is_conditional_on_its_revision(store: &Fixture) {
    let upload = upload("acme", "/upload/x", 1);
    let token = samples::token("erp");
    let subjects = |revision| {
        let mut upload = upload.clone();
        upload.revision = revision;
        let mut directory = directory("acme", "/upload/dir");
        directory.revision = revision;
        let mut account = login("acme");
        account.revision = revision;
        let mut entry = inbox_entry("acme", "/inbox/x");
        entry.revision = revision;
        let mut token = token.clone();
        token.revision = revision;
        [
            Subject::Upload { upload: Box::new(upload), inline: None },
            Subject::Directory(directory),
            Subject::Account(account),
            Subject::Inbox(entry),
            Subject::Token(token),
        ]
    };
    let audit = vec![entry(&upload)];
    let write = |handle: &Arc<dyn crate::StateStore>, subject| {
        let change =
            Change { subject, audit: audit.clone(), outbox: Vec::new(), durability: Durability::Visible };
        let handle = Arc::clone(handle);
        async move { handle.apply(change).await }
    };
    for subject in subjects(3) {
        let refused = write(&store.one, subject).await;
        assert!(matches!(refused, Err(StateError::NotFound(_))), "{refused:?}");
    }
    for subject in subjects(0) {
        assert_eq!(write(&store.one, subject).await.unwrap(), 1);
    }
    for subject in subjects(0) {
        assert!(is_conflict(&write(&store.two, subject).await), "made twice");
    }
    for subject in subjects(1) {
        assert_eq!(write(&store.two, subject).await.unwrap(), 2);
    }
    for old in [1, 3, 0] {
        for subject in subjects(old) {
            let refused = write(&store.one, subject).await;
            assert!(is_conflict(&refused), "based on {old}: {refused:?}");
        }
    }
    assert_eq!(write(&store.one, Subject::None).await.unwrap(), 0);
}

/// Among all uploads of a path, in whatever state and under whatever spelling.
pub async fn a_number_is_given_to_one_version_of_a_path(store: &Fixture) {
    let first = upload("acme", "/upload/M\u{fc}ller", 1);
    store.one.apply(created(&first)).await.unwrap();
    for taken in [upload("acme", "/upload/M\u{fc}ller", 1), upload("acme", "/upload/Mu\u{308}ller", 1)] {
        assert!(is_conflict(&store.two.apply(created(&taken)).await));
        assert!(store.one.upload(taken.upload_id).await.unwrap().is_none());
    }
    for free in [
        upload("acme", "/upload/M\u{fc}ller", 2),
        upload("other", "/upload/M\u{fc}ller", 1),
        upload("acme", "/upload/muller", 1),
    ] {
        store.two.apply(created(&free)).await.unwrap();
    }
    let mut renamed = upload("acme", "/upload/temp", 1);
    store.one.apply(created(&renamed)).await.unwrap();
    renamed.revision = 1;
    renamed.path = path("/upload/M\u{fc}ller");
    renamed.version = 2;
    assert!(is_conflict(&store.one.apply(created(&renamed)).await));
    renamed.version = 3;
    assert_eq!(store.one.apply(created(&renamed)).await.unwrap(), 2);
    let name = samples::account("acme");
    assert_eq!(store.two.highest_version(&name, &path("/upload/M\u{fc}ller")).await.unwrap(), 3);
    assert_eq!(store.two.highest_version(&name, &path("/upload/Mu\u{308}ller")).await.unwrap(), 3);
    assert_eq!(store.two.highest_version(&name, &path("/upload/nothing")).await.unwrap(), 0);
}

/// A refused change leaves no trace; a made one leaves all of it.
pub async fn audit_and_outbox_come_with_the_record_or_not_at_all(store: &Fixture) {
    let mut upload = upload("acme", "/upload/x", 1);
    let counts = async || {
        let audit = AuditQuery { limit: 1_000, ..AuditQuery::default() };
        let audit = store.two.audit(audit).await.unwrap().len();
        let due = Timestamp::now();
        (audit, store.two.outbox_due(OutboxKind::Job, due, 1_000).await.unwrap().len())
    };
    let with_job = |upload: &_| Change {
        outbox: vec![OutboxEntry::job(UploadId::new(), Work::Route)],
        ..change(upload, Durability::Durable)
    };
    store.one.apply(with_job(&upload)).await.unwrap();
    assert_eq!(counts().await, (1, 1));
    assert!(is_conflict(&store.one.apply(with_job(&upload)).await));
    assert_eq!(counts().await, (1, 1));
    upload.revision = 1;
    let twice = OutboxEntry::job(upload.upload_id, Work::Route);
    let broken = Change { outbox: vec![twice.clone(), twice], ..change(&upload, Durability::Durable) };
    assert!(store.one.apply(broken).await.is_err(), "an outbox entry was taken twice");
    assert_eq!(counts().await, (1, 1));
    assert_eq!(store.one.upload(upload.upload_id).await.unwrap().unwrap().revision, 1);
    store.one.apply(with_job(&upload)).await.unwrap();
    assert_eq!(counts().await, (2, 2));
    let only_audit = Change {
        subject: Subject::None,
        audit: vec![entry(&upload), entry(&upload)],
        outbox: Vec::new(),
        durability: Durability::Visible,
    };
    store.one.apply(only_audit).await.unwrap();
    assert_eq!(counts().await, (4, 2));
}

/// From both handles at once.
pub async fn one_of_many_racing_changes_wins(store: &Fixture) {
    let mut record = upload("acme", "/upload/x", 1);
    store.one.apply(created(&record)).await.unwrap();
    for revision in 1..=20 {
        record.revision = revision;
        let results = race(store, |_| created(&record)).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "revision {revision}: {results:?}");
        assert!(results.iter().all(|r| r.is_ok() || is_conflict(r)), "{results:?}");
    }
    assert_eq!(store.one.upload(record.upload_id).await.unwrap().unwrap().revision, 21);
    for version in 2..=10 {
        let results = race(store, |_| created(&upload("acme", "/upload/x", version))).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "version {version}: {results:?}");
    }
}

/// However many wait together.
pub async fn a_refused_change_takes_no_other_with_it(store: &Fixture) {
    let taken = upload("acme", "/upload/taken", 1);
    store.one.apply(created(&taken)).await.unwrap();
    let results = race(store, |n| {
        if n % 3 == 0 {
            created(&upload("acme", "/upload/taken", 1))
        } else {
            change(&upload("acme", &format!("/upload/free-{n}"), 1), Durability::Durable)
        }
    })
    .await;
    for (n, result) in results.iter().enumerate() {
        assert_eq!(is_conflict(result), n % 3 == 0, "{n}: {result:?}");
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
    }
}

async fn race(store: &Fixture, make: impl Fn(usize) -> Change) -> Vec<Result<u64, StateError>> {
    let running: Vec<_> = (0..12)
        .map(|n| {
            let handle = Arc::clone(if n % 2 == 0 { &store.one } else { &store.two });
            let change = make(n);
            tokio::spawn(async move { handle.apply(change).await })
        })
        .collect();
    let mut results = Vec::new();
    for task in running {
        results.push(task.await.unwrap());
    }
    results
}

/// Written with it, left alone by later changes without any, replaced by those with some.
pub async fn inline_content_comes_with_the_record(store: &Fixture) {
    let mut upload = upload("acme", "/upload/x", 1);
    let with = |upload: &dropgate_schemas::upload::Upload, inline: Option<&[u8]>| {
        let inline = inline.map(Bytes::copy_from_slice);
        Change {
            subject: Subject::Upload { upload: Box::new(upload.clone()), inline },
            ..change(upload, Durability::Durable)
        }
    };
    assert_eq!(store.one.inline(upload.upload_id).await.unwrap(), None);
    store.one.apply(with(&upload, None)).await.unwrap();
    assert_eq!(store.one.inline(upload.upload_id).await.unwrap(), None);
    let large = vec![0xa5; 64 << 10];
    for (revision, given, kept) in [
        (1, Some(&b""[..]), &b""[..]),
        (2, Some(b"one"), b"one"),
        (3, None, b"one"),
        (4, Some(&large), &large),
    ] {
        upload.revision = revision;
        upload.state = UploadState::Committed;
        store.one.apply(with(&upload, given)).await.unwrap();
        assert_eq!(store.two.inline(upload.upload_id).await.unwrap().as_deref(), Some(kept));
    }
    assert!(is_conflict(&store.one.apply(with(&upload, Some(b"late"))).await));
    assert_eq!(store.one.inline(upload.upload_id).await.unwrap().as_deref(), Some(&large[..]));
}

/// A worker that read the record before the mark writes it back without: the mark stays.
pub async fn the_answered_mark_is_no_revision_and_stays(store: &Fixture) {
    let mut upload = upload("acme", "/upload/x", 1);
    store.one.apply(created(&upload)).await.unwrap();
    store.one.mark_answered(&[UploadId::new(), upload.upload_id]).await.unwrap();
    store.one.mark_answered(&[]).await.unwrap();
    let marked = store.two.upload(upload.upload_id).await.unwrap().unwrap();
    assert!(marked.answered);
    assert_eq!(marked.revision, 1);
    upload.revision = 1;
    assert!(!upload.answered);
    assert_eq!(store.two.apply(created(&upload)).await.unwrap(), 2);
    assert!(store.one.upload(upload.upload_id).await.unwrap().unwrap().answered);
}
