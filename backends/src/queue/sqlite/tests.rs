use super::*;
use crate::{
    queue::conformance::{Fixture, job},
    state::sqlite::Database,
};
use std::path::Path;

const SHORT: Duration = Duration::from_millis(400);

fn open(path: &Path) -> Arc<SqliteQueue> {
    let database = Arc::new(Database::open(path).unwrap());
    Arc::new(SqliteQueue { lease: SHORT, ..SqliteQueue::new(database) })
}

async fn two_handles() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    Fixture { one: open(&path), two: open(&path), lease: Some(SHORT), keep: Box::new(dir) }
}

crate::job_queue_conformance!(two_handles);

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn one_of_several_identical_jobs_waits() {
    // A lease that does not run out in between.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let open = || SqliteQueue { lease: LONG, ..SqliteQueue::new(Arc::new(Database::open(&path).unwrap())) };
    let (one, two) = (open(), open());
    let wanted = job();
    let other_work = Job { work: dropgate_schemas::job::Work::Route, ..wanted.clone() };
    one.publish(&[wanted.clone(), wanted.clone(), other_work.clone()]).await.unwrap();
    two.publish(&[Job { entry: job().entry, ..wanted.clone() }]).await.unwrap();
    assert_eq!(one.depth().await.unwrap(), 2);
    let taken = one.take(10, LONG).await.unwrap();
    assert_eq!(taken.iter().map(|c| &c.job).collect::<Vec<_>>(), [&wanted, &other_work]);
    // One that is out does not count: what it saw may be out of date.
    two.publish(std::slice::from_ref(&wanted)).await.unwrap();
    assert_eq!(one.depth().await.unwrap(), 1);
    // Released into the company of its like, it becomes one with it, and the earlier moment counts.
    one.release(taken[0].tag, Duration::from_secs(600)).await.unwrap();
    assert_eq!(one.depth().await.unwrap(), 1);
    let again = two.take(10, LONG).await.unwrap();
    assert_eq!(again.len(), 1);
    two.release(again[0].tag, Duration::from_secs(600)).await.unwrap();
    assert!(one.take(10, Duration::ZERO).await.unwrap().is_empty());
    one.publish(&[wanted]).await.unwrap();
    assert_eq!(one.take(10, LONG).await.unwrap().len(), 1, "asked for anew, it waits no longer");
}

#[tokio::test]
async fn a_tag_of_an_earlier_time_settles_nothing() {
    let queue = two_handles().await;
    queue.one.publish(&[job()]).await.unwrap();
    let first = queue.one.take(1, LONG).await.unwrap();
    let second = queue.two.take(1, LONG).await.unwrap();
    assert_eq!(second[0].redelivered, 1);
    queue.one.ack(&[first[0].tag]).await.unwrap();
    queue.one.release(first[0].tag, Duration::ZERO).await.unwrap();
    assert_eq!(queue.one.depth().await.unwrap(), 0, "still out");
    let third = queue.two.take(1, LONG).await.unwrap();
    assert_eq!(third[0].redelivered, 2);
    queue.two.ack(&[third[0].tag]).await.unwrap();
    assert!(queue.one.take(1, 2 * SHORT).await.unwrap().is_empty());
}

#[tokio::test]
async fn jobs_that_were_out_when_the_host_went_down_are_given_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let database = Arc::new(Database::open(&path).unwrap());
    let queue = SqliteQueue { lease: LONG, ..SqliteQueue::new(Arc::clone(&database)) };
    queue.publish(&[job(), job()]).await.unwrap();
    let out = queue.take(1, LONG).await.unwrap();
    queue.release(queue.take(1, LONG).await.unwrap()[0].tag, LONG).await.unwrap();
    assert_eq!(out.len(), 1);
    assert!(queue.take(2, Duration::ZERO).await.unwrap().is_empty());
    database.close().await;
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE settings SET value = 'the boot before' WHERE name = 'boot'", []).unwrap();
    drop(db);
    assert_eq!(open(&path).take(2, LONG).await.unwrap().len(), 2);
}
