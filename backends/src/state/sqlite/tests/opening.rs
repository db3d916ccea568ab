//! Files that are not what they should be.

use super::super::{OpenFailure, open};
use super::state;
use crate::state::conformance::samples;
use dropgate_schemas::change::Durability;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

fn refusal(path: &Path) -> OpenFailure {
    match open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(failure) => failure,
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let upload = samples::upload("acme", "/upload/x", 1);
    let (store, queue) = open(&path).unwrap();
    store.apply(samples::created(&upload)).await.unwrap();
    queue.close().await;
    store.close().await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dropgate.db", "dropgate.db-turn"], "the log was folded in and removed");
    assert_eq!(state(&path).upload(upload.upload_id).await.unwrap().unwrap().revision, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_open_a_new_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || open(&path))
        })
        .collect();
    for (n, opener) in openers.into_iter().enumerate() {
        let (store, _) = opener.join().unwrap().unwrap();
        store.apply(samples::created(&samples::upload("acme", &format!("/upload/{n}"), 1))).await.unwrap();
    }
}

#[test]
fn a_file_that_is_no_database_is_corrupt_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let content = b"PK\x03\x04 this is somebody's archive ".repeat(400);
    fs::write(&path, &content).unwrap();
    let failure = refusal(&path);
    assert!(failure.corrupt, "{failure:?}");
    assert!(failure.what.contains("not a database"), "{failure:?}");
    assert!(failure.remedy.contains("backup"), "{failure:?}");
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn another_programs_database_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    drop(other);
    let content = fs::read(&path).unwrap();
    let failure = refusal(&path);
    assert!(!failure.corrupt && failure.what.contains("another program"), "{failure:?}");
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_the_version_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    state(&path).close().await;
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let failure = refusal(&path);
    assert!(!failure.corrupt && failure.what.contains("schema 99"), "{failure:?}");
    assert!(failure.remedy.contains("newer version"), "{failure:?}");
}

#[tokio::test]
async fn a_database_of_the_second_schema_learns_of_tokens_and_keeps_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(concat!(include_str!("../schema.sql"), include_str!("../schema_2.sql"))).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    old.pragma_update(None, "application_id", i32::from_be_bytes(*b"Drpg")).unwrap();
    let upload = samples::upload("acme", "/upload/x", 1);
    let event = samples::event(&upload);
    old.execute(
        "INSERT INTO event_log (position, event_id, partner, sequence, doc) VALUES (1, ?1, 'acme', 1, ?2)",
        rusqlite::params![event.id.uuid().as_bytes(), serde_json::to_string(&event).unwrap()],
    )
    .unwrap();
    drop(old);
    let store = state(&path);
    let found = store.events_after(0, Some(&upload.partner), 10).await.unwrap();
    assert_eq!(found.iter().map(|logged| &logged.event).collect::<Vec<_>>(), [&event]);
    let token = samples::token("erp");
    let change = dropgate_schemas::change::Change {
        subject: dropgate_schemas::change::Subject::Token(token.clone()),
        ..samples::created(&upload)
    };
    store.apply(change).await.unwrap();
    assert_eq!(store.token(token.id).await.unwrap().unwrap().revision, 1);
}

#[tokio::test]
async fn damage_is_found_after_an_unclean_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let store = state(&path);
    for n in 0..200 {
        let upload = samples::full_upload("acme", &format!("/upload/{n}"), 1);
        store.apply(samples::change(&upload, Durability::Visible)).await.unwrap();
    }
    store.close().await;
    let mut content = fs::read(&path).unwrap();
    assert!(content.len() > 160 << 10, "{}", content.len());
    for page in content.chunks_mut(4_096).skip(20) {
        page[..200].fill(0x5a);
    }
    fs::write(&path, &content).unwrap();
    // As a process that was killed leaves it: with something in the log.
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    fs::write(&wal, b"torn").unwrap();
    let failure = refusal(&path);
    assert!(failure.corrupt, "{failure:?}");
    assert!(failure.remedy.contains("backup"), "{failure:?}");
}

#[test]
fn what_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let failure = refusal(&dir.path().join("missing/dropgate.db"));
    assert!(failure.what.contains("missing") && failure.remedy.contains("create"), "{failure:?}");
    fs::create_dir(dir.path().join("dropgate.db")).unwrap();
    let failure = refusal(&dir.path().join("dropgate.db"));
    assert!(!failure.corrupt && !failure.remedy.is_empty(), "{failure:?}");
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn what_is_left_to_do_is_counted_without_a_change() {
    use super::super::{Left, left};
    use dropgate_schemas::upload::UploadState;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    assert_eq!(left(&path).unwrap(), None);
    let (store, queue) = open(&path).unwrap();
    assert_eq!(left(&path).unwrap(), None, "a new database has nothing to do");
    let mut upload = samples::upload("acme", "/upload/x", 1);
    upload.state = UploadState::Committed;
    store.apply(samples::created(&upload)).await.unwrap();
    // As after a kill: the log is not folded in.
    let found = left(&path).unwrap().unwrap();
    assert_eq!(found.undelivered, 1);
    queue.close().await;
    store.close().await;
    let before = fs::read(&path).unwrap();
    assert_eq!(left(&path).unwrap(), Some(Left { undelivered: 1, ..found }));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_the_first_schema_kept_counts_after_the_step_to_the_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../schema.sql")).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.pragma_update(None, "application_id", i32::from_be_bytes(*b"Drpg")).unwrap();
    let mut first = samples::upload("acme", "/upload/x", 1);
    first.revision = 1;
    for (state, size) in [("processed", Some(40)), ("receiving", None), ("aborted", Some(7))] {
        first = dropgate_schemas::upload::Upload {
            upload_id: dropgate_schemas::id::UploadId::new(),
            version: first.version + 1,
            state: state.parse().unwrap(),
            size,
            ..first
        };
        old.execute(
            "INSERT INTO uploads (upload_id, account, partner, path_key, dir_key, name_key, version, state, area, deleted,
                                  owners, opened_at, updated_at, revision, answered, doc)
             VALUES (?1, 'acme', 'acme', '/upload/x', '/upload', 'x', ?2, ?3, NULL, 0, x'', ?4, ?4, 1, 0, ?5)",
            rusqlite::params![
                first.upload_id.uuid().as_bytes(),
                first.version,
                state,
                first.opened_at.millis(),
                serde_json::to_string(&first).unwrap(),
            ],
        )
        .unwrap();
    }
    drop(old);
    let store = state(&path);
    let usage = store.usage(&first.account, None).await.unwrap();
    assert_eq!((usage.uploads, usage.bytes), (1, 40));
    let mut entry = samples::inbox_entry("acme", "/inbox/y");
    let change = dropgate_schemas::change::Change {
        subject: dropgate_schemas::change::Subject::Inbox(entry.clone()),
        ..samples::change(&first, Durability::Durable)
    };
    entry.revision = store.apply(change).await.unwrap();
    assert_eq!(store.inbox(&first.account, None, 10).await.unwrap(), [entry]);
}
