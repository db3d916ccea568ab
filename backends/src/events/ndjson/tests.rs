use super::*;
use crate::events::conformance::{self, event};
use std::os::unix::fs::PermissionsExt as _;

async fn open_in(dir: &Path) -> NdjsonFile {
    NdjsonFile::open(dir.join("events.ndjson")).await.unwrap()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn positions(path: &Path) -> Vec<u64> {
    lines(path).iter().map(|l| l["sequence"].as_str().unwrap().parse().unwrap()).collect()
}

fn events(positions: std::ops::RangeInclusive<u64>) -> Vec<LoggedEvent> {
    positions.map(event).collect()
}

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let (one, other) = (open_in(dir.path()).await, open_in(dir.path()).await);
    conformance::suite(&one, &other, async || lines(&path)).await;
    // More than the port asks for: what is in the last lines is not written again.
    assert_eq!(positions(&path), (1..=40).collect::<Vec<_>>());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_torn_line_is_cut_off_and_published_again_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let all = events(1..=4);
    open_in(dir.path()).await.publish(&all).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for torn_at in last..whole.len() {
        fs::write(&path, &whole[..torn_at]).unwrap();
        open_in(dir.path()).await.publish(&all[2..]).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "torn at {torn_at}");
    }
}

#[tokio::test]
async fn a_batch_that_was_half_written_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let all = events(1..=300);
    open_in(dir.path()).await.publish(&all).await.unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    open_in(dir.path()).await.publish(&all).await.unwrap();
    assert_eq!(positions(&path), (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let publisher = open_in(dir.path()).await;
    publisher.publish(&events(1..=2)).await.unwrap();
    fs::rename(&path, dir.path().join("old")).unwrap();
    publisher.publish(&events(3..=4)).await.unwrap();
    assert_eq!(positions(&dir.path().join("old")), [1, 2]);
    assert_eq!(positions(&path), [3, 4]);
    // Emptied in place, as some tools do.
    fs::write(&path, "").unwrap();
    publisher.publish(&events(5..=5)).await.unwrap();
    assert_eq!(positions(&path), [5]);
}

#[tokio::test]
async fn a_disk_that_is_full_leaves_whole_lines_only() {
    let publisher = NdjsonFile { path: Path::new("/dev/full").into(), opened: Arc::default() };
    let error = publisher.publish(&events(1..=1)).await.unwrap_err();
    assert!(matches!(error, EventError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn what_can_not_be_opened_is_named_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let error = NdjsonFile::open(dir.path().to_owned()).await.unwrap_err().to_string();
    assert!(error.contains("[backends.events] path"), "{error}");
    let error = NdjsonFile::open(dir.path().join("missing/events.ndjson")).await.unwrap_err().to_string();
    assert!(error.contains("create the directory"), "{error}");
}
