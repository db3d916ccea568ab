//! Killed in the middle: what was acknowledged is there, and nothing is there by half. The test starts itself once more as
//! the process that is killed.

use super::state;
use crate::state::{
    AuditQuery, StateStore, UploadQuery,
    conformance::{
        dice::Dice,
        samples::{change, created, entry, event, upload},
    },
};
use bytes::Bytes;
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind, Subject},
    digest::Sha256,
    id::UploadId,
    job::Work,
    time::Timestamp,
    upload::{BlobRef, UploadState},
};
use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

const DATABASE: &str = "DROPGATE_TEST_CRASH_DATABASE";
const CHILD: &str = "state::sqlite::tests::crash::the_process_that_is_killed";
const ROUNDS: u64 = 12;

fn content(id: UploadId) -> Vec<u8> {
    id.to_string().repeat(100).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_half_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let mut dice = Dice::new(5);
    let mut acknowledged: HashSet<UploadId> = HashSet::new();
    for round in 0..ROUNDS {
        let before = acknowledged.len();
        let after = Duration::from_millis(dice.roll() % 150);
        acknowledged.extend(run_and_kill(&path, after));
        assert!(acknowledged.len() > before, "round {round}: nothing was acknowledged");
        let store = state(&path);
        check(store.as_ref(), &acknowledged).await;
        // Sometimes the log stays behind for the next one, as if this process had died too.
        if dice.once_in(2) {
            store.close().await;
        }
    }
}

/// Starts the child, kills it `after` it began to acknowledge, and returns what it acknowledged.
fn run_and_kill(path: &Path, after: Duration) -> Vec<UploadId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let read = |line: &str| line.strip_prefix("acknowledged ").map(|id| id.parse::<UploadId>().unwrap());
    while acknowledged.is_empty() {
        let line = lines.next().expect("the child ended early").unwrap();
        acknowledged.extend(read(&line));
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    // Whole lines only: the last one may be torn.
    for line in lines.map_while(Result::ok) {
        if line.len() == "acknowledged ".len() + 36 {
            acknowledged.extend(read(&line));
        }
    }
    acknowledged
}

#[test]
#[ignore = "started by the test above, which kills it"]
fn the_process_that_is_killed() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = state(Path::new(&path));
        let uploaders: Vec<_> = (0..8).map(|_| tokio::spawn(upload_for_ever(Arc::clone(&store)))).collect();
        for uploader in uploaders {
            uploader.await.unwrap();
        }
    });
}

async fn upload_for_ever(store: Arc<dyn StateStore>) {
    loop {
        let mut record = upload("acme", &format!("/upload/{}", UploadId::new()), 1);
        record.revision = store.apply(created(&record)).await.unwrap();
        let bytes = content(record.upload_id);
        record.state = UploadState::Committed;
        record.blob = Some(BlobRef::Inline);
        record.sha256 = Some(Sha256::of(&bytes));
        let subject = Subject::Upload { upload: Box::new(record.clone()), inline: Some(Bytes::from(bytes)) };
        let outbox =
            vec![OutboxEntry::job(record.upload_id, Work::Route), OutboxEntry::event(event(&record))];
        let audit = vec![entry(&record), entry(&record)];
        store.apply(Change { subject, audit, outbox, ..change(&record, Durability::Durable) }).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {}", record.upload_id).unwrap();
        out.flush().unwrap();
    }
}

async fn check(store: &dyn StateStore, acknowledged: &HashSet<UploadId>) {
    let due = |kind| async move {
        let due = store.outbox_due(kind, Timestamp::now(), 1_000).await.unwrap();
        due.into_iter().filter_map(|entry| entry.upload).collect::<Vec<_>>()
    };
    let mut missing = acknowledged.clone();
    let mut order = crate::state::UploadOrder::NewestFirst;
    loop {
        let page = store.find(UploadQuery { order, limit: 200, ..Default::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        order = crate::state::UploadOrder::Before(last.upload_id);
        for upload in &page {
            let id = upload.upload_id;
            missing.remove(&id);
            let committed = upload.state == UploadState::Committed;
            assert!(
                committed || !acknowledged.contains(&id),
                "{id} was acknowledged and is {}",
                upload.state
            );
            let trail = AuditQuery { upload: Some(id), limit: 10, ..Default::default() };
            assert_eq!(store.audit(trail).await.unwrap().len(), if committed { 3 } else { 1 }, "{id}");
            let inline = store.inline(id).await.unwrap();
            assert_eq!(inline.as_deref(), committed.then(|| content(id)).as_deref(), "{id}");
        }
    }
    assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
    // What must follow is there for each that was accepted, and for nothing else. It is handled here, so that the next
    // round's is not behind more than fits one look.
    loop {
        let (jobs, events) = (due(OutboxKind::Job).await, due(OutboxKind::Event).await);
        assert_eq!(jobs, events, "each commit has left both or none");
        if jobs.is_empty() {
            break;
        }
        for id in &jobs {
            assert_eq!(store.upload(*id).await.unwrap().unwrap().state, UploadState::Committed);
        }
        for kind in [OutboxKind::Job, OutboxKind::Event] {
            let entries = store.outbox_due(kind, Timestamp::now(), 1_000).await.unwrap();
            let ids: Vec<_> = entries.into_iter().map(|entry| entry.id).collect();
            store.outbox_done(&ids).await.unwrap();
        }
    }
}
