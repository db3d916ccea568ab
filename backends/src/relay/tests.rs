use super::*;
use crate::{
    BackendsConfig, Role,
    deadline::faults::{Fault, Faults, faulty},
    state::{AuditQuery, conformance::samples},
};
use dropgate_schemas::{
    audit::AuditEntry,
    change::{Change, Durability, OutboxEntry, OutboxKind, OutboxMessage, Subject},
    delivery::{Delivery, DeliveryState, Finalizing},
    event::{Event, EventBody, Other},
    id::UploadId,
    job::{Job, Work},
    upload::{Upload, UploadState},
};
use std::path::Path;
use supersede::Outcome;

async fn open(dir: &Path) -> Backends {
    Backends::open(&BackendsConfig::default(), dir).await.unwrap()
}

fn event(upload: &Upload) -> Event {
    Event::about(upload, EventBody::UploadAborted(Other::about(upload)))
}

/// Stores a version as it is, with what follows from it.
async fn store(backends: &Backends, upload: &Upload, outbox: Vec<OutboxEntry>) {
    let change = Change { outbox, ..samples::created(upload) };
    backends.state.apply(change).await.unwrap();
}

fn committed(name: &str, version: u32) -> Upload {
    Upload { state: UploadState::Committed, ..samples::upload("demo", name, version) }
}

fn delivery(upload: UploadId, destination: &str, state: DeliveryState) -> Delivery {
    let id = dropgate_schemas::id::DeliveryId::derive(upload, destination, 1);
    serde_json::from_value(serde_json::json!({
        "delivery_id": id, "destination": destination, "kind": "directory", "key": "k",
        "generation": 1, "state": state, "epoch": 3, "attempts": 0,
    }))
    .unwrap()
}

fn deliver(upload: &Upload) -> Work {
    Work::Deliver { delivery: dropgate_schemas::id::DeliveryId::derive(upload.upload_id, "d0", 1) }
}

fn with_deliveries(mut upload: Upload, states: &[DeliveryState]) -> Upload {
    upload.generation = 1;
    upload.deliveries = states
        .iter()
        .enumerate()
        .map(|(i, state)| delivery(upload.upload_id, &format!("d{i}"), *state))
        .collect();
    upload.state = upload.state_by_deliveries();
    upload
}

fn supersede(newer: &Upload, older: &Upload) -> OutboxEntry {
    OutboxEntry {
        id: dropgate_schemas::id::OutboxId::new(),
        upload: Some(newer.upload_id),
        message: OutboxMessage::Supersede { older: older.upload_id },
        not_before: None,
    }
}

async fn taken(backends: &Backends) -> Vec<Job> {
    let mut jobs = Vec::new();
    loop {
        let some = backends.queue.take(100, Duration::ZERO).await.unwrap();
        if some.is_empty() {
            return jobs;
        }
        let tags: Vec<_> = some.iter().map(|c| c.tag).collect();
        backends.queue.ack(&tags).await.unwrap();
        jobs.extend(some.into_iter().map(|c| c.job));
    }
}

fn published(dir: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(dir.join("events.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn audit(backends: &Backends, upload: UploadId) -> Vec<AuditEntry> {
    let query = AuditQuery { upload: Some(upload), limit: 100, ..AuditQuery::default() };
    let stored = backends.state.audit(query).await.unwrap();
    stored.iter().map(|s| s.entry().unwrap()).collect()
}

/// Every lane's step until none has anything to do, as often as one fails up to `failures` times. False if it gave up.
async fn drain(backends: &Backends, mut failures: usize) -> bool {
    let (mut progress, fresh) = (event::Progress::default(), event::Fresh::default());
    loop {
        let results = [
            job::step(backends).await.map_err(|e| e.to_string()),
            event::log_step(backends).await.map(|(_, next)| next).map_err(|e| e.to_string()),
            event::publish_step(backends, &mut progress, &fresh, 1).await.map_err(|e| e.to_string()),
            supersede::step(&backends.state, "test/worker").await.map_err(|e| e.to_string()),
        ];
        let failed = results.iter().filter(|r| r.is_err()).count();
        if failed > failures {
            return false;
        }
        failures -= failed;
        let open = backends.state.backlog().await.map(|b| b.outbox);
        if failed == 0 && matches!(open, Ok(0)) && results.iter().all(|r| r == &Ok(lane::Step::Rest)) {
            let last = event::publish_step(backends, &mut progress, &fresh, 1).await;
            if matches!(last, Ok(lane::Step::Rest)) {
                return true;
            }
        }
    }
}

struct Scene {
    jobs: Vec<Job>,
    events: Vec<Event>,
    older: Upload,
    newer: Upload,
}

/// Three uploads with jobs and events, the third of which supersedes the second.
async fn scene(backends: &Backends) -> Scene {
    let first = committed("/upload/first", 1);
    let older =
        with_deliveries(committed("/upload/name", 1), &[DeliveryState::Pending, DeliveryState::Staging]);
    let newer = committed("/upload/name", 2);
    let mut jobs = Vec::new();
    let mut events = Vec::new();
    for upload in [&first, &older, &newer] {
        let job = OutboxEntry::job(upload.upload_id, Work::Route);
        jobs.extend(job::job_of(&job));
        let made = event(upload);
        events.push(made.clone());
        let mut outbox = vec![job, OutboxEntry::event(made)];
        if upload.upload_id == newer.upload_id {
            outbox.push(supersede(&newer, &older));
        }
        store(backends, upload, outbox).await;
    }
    Scene { jobs, events, older, newer }
}

async fn assert_done(backends: &Backends, dir: &Path, scene: &Scene, context: &str) {
    let jobs = taken(backends).await;
    for job in &scene.jobs {
        assert!(jobs.contains(job), "{context}: {job:?} was lost");
    }
    assert!(jobs.iter().all(|job| scene.jobs.contains(job)), "{context}: a job out of nowhere");

    let older = backends.state.upload(scene.older.upload_id).await.unwrap().unwrap();
    assert_eq!(older.state, UploadState::Superseded, "{context}");
    assert_eq!(older.superseded_by, Some(scene.newer.upload_id), "{context}");
    assert!(older.deliveries.iter().all(|d| d.state == DeliveryState::Cancelled), "{context}");
    let actions: Vec<_> = audit(backends, older.upload_id).await.iter().map(|e| e.action.name()).collect();
    let expected = ["upload.open", "delivery.cancel", "delivery.cancel", "upload.supersede"];
    assert_eq!(actions, expected, "{context}");

    // The log: every event once, positions and sequence without a gap, ids as minted.
    let logged = backends.state.events_after(0, None, 100).await.unwrap();
    assert_eq!(logged.iter().map(|l| l.position).collect::<Vec<_>>(), [1, 2, 3, 4], "{context}");
    let ids: Vec<_> = logged.iter().map(|l| l.event.id).collect();
    for event in &scene.events {
        assert_eq!(ids.iter().filter(|id| **id == event.id).count(), 1, "{context}");
    }
    let follow_up = logged.last().unwrap();
    let EventBody::UploadSuperseded(about) = &follow_up.event.body else {
        panic!("{context}: {:?}", follow_up.event)
    };
    assert_eq!((about.upload_id, about.other_version), (older.upload_id, Some(scene.newer.upload_id)));
    // The publisher: the same in the same order. The file leaves repeats out.
    let out = published(dir);
    assert_eq!(out, logged.into_iter().map(|l| l.event).collect::<Vec<_>>(), "{context}");
    assert_eq!(backends.state.cursor(event::CURSOR).await.unwrap(), 4, "{context}");
}

#[tokio::test]
async fn what_follows_from_changes_happens() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let scene = scene(&backends).await;
    assert!(drain(&backends, 0).await);
    assert_done(&backends, dir.path(), &scene, "no fault").await;
    assert_eq!(taken(&backends).await, [], "no bell is rung twice without need");
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_wherever_a_call_fails_or_the_process_dies() {
    let dir = tempfile::tempdir().unwrap();
    let never = Faults::new(usize::MAX, Fault::Before);
    let backends = open(dir.path()).await;
    scene(&backends).await;
    assert!(drain(&faulty(&backends, &never), 0).await);
    assert!(never.calls() > 15, "{}", never.calls());
    // On a file system in memory, if there is one: here nothing is learnt from waiting for a disk.
    let fast =
        [Path::new("/dev/shm"), &std::env::temp_dir()].into_iter().find(|p| p.is_dir()).map(Path::to_owned);
    let fast = fast.unwrap();
    for at in 0..never.calls() {
        for fault in Fault::ALL {
            let context = format!("call {at} {fault:?}");
            let dir = tempfile::tempdir_in(&fast).unwrap();
            let backends = open(dir.path()).await;
            let scene = scene(&backends).await;
            let faults = Faults::new(at, fault);
            let survived = drain(&faulty(&backends, &faults), 3).await;
            assert!(faults.calls() > at, "{context}: the fault was not met");
            assert_eq!(survived, !fault.is_death(), "{context}");
            // What the next process finds.
            backends.close().await;
            drop(backends);
            let backends = open(dir.path()).await;
            assert!(drain(&backends, 0).await, "{context}");
            assert_done(&backends, dir.path(), &scene, &context).await;
        }
    }
}

#[tokio::test]
async fn a_publisher_that_is_down_holds_up_nobody_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    // A directory under the name of the file: every publish is refused.
    let path = dir.path().join("events.ndjson");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let scene = scene(&backends).await;
    assert!(!drain(&backends, 5).await);
    assert_eq!(taken(&backends).await.len(), 3);
    assert_eq!(backends.state.events_after(0, None, 100).await.unwrap().len(), 4, "the log goes on");
    assert_eq!(backends.state.cursor(event::CURSOR).await.unwrap(), 0);
    for job in &scene.jobs {
        backends.queue.publish(std::slice::from_ref(job)).await.unwrap();
    }
    std::fs::remove_dir(&path).unwrap();
    assert!(drain(&backends, 0).await);
    assert_done(&backends, dir.path(), &scene, "down").await;
}

#[tokio::test]
async fn more_than_a_batch_goes_through_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let count = BATCH + 10;
    for i in 0..count {
        let upload = committed(&format!("/upload/f{i}"), 1);
        let outbox =
            vec![OutboxEntry::event(event(&upload)), OutboxEntry::job(upload.upload_id, Work::Route)];
        store(&backends, &upload, outbox).await;
    }
    assert_eq!(job::step(&backends).await.unwrap(), lane::Step::More);
    assert!(drain(&backends, 0).await);
    assert_eq!(taken(&backends).await.len(), count);
    let sequences: Vec<u64> = published(dir.path()).iter().map(|e| e.sequence.parse().unwrap()).collect();
    assert_eq!(sequences, (1..=count as u64).collect::<Vec<_>>());
}

/// Handles the one supersede entry there is.
async fn handle(backends: &Backends, entry: &OutboxEntry) -> Result<Outcome, StateError> {
    supersede::handle(backends.state.as_ref(), "test/worker", entry).await
}

#[tokio::test]
async fn every_accepted_state_can_be_superseded_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    for state in UploadState::ALL {
        let name = format!("/upload/{state}");
        let older = Upload { state, ..committed(&name, 1) };
        let newer = committed(&name, 2);
        store(&backends, &older, vec![]).await;
        store(&backends, &newer, vec![]).await;
        let entry = supersede(&newer, &older);
        for _ in 0..2 {
            assert_eq!(handle(&backends, &entry).await.unwrap(), Outcome::Done);
        }
        let now = backends.state.upload(older.upload_id).await.unwrap().unwrap();
        let expected = if state.is_accepted() { UploadState::Superseded } else { state };
        assert_eq!(now.state, expected);
        let changes = if state.is_accepted() && state != UploadState::Superseded { 2 } else { 1 };
        assert_eq!(audit(&backends, older.upload_id).await.len(), changes, "{state}");
    }
}

#[tokio::test]
async fn a_delivery_that_may_be_there_settles_before_its_version_is_superseded() {
    use DeliveryState as S;
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let mut older = with_deliveries(
        committed("/upload/x", 1),
        &[S::Delivered, S::Finalizing, S::RetryWait, S::RetryWait, S::Claimed],
    );
    // The first of the two waits after it had made its finishing call once.
    older.deliveries[2].finalizing = Some(Finalizing { epoch: 2, staged_as: None, at: Timestamp::now() });
    let newer = committed("/upload/x", 2);
    store(&backends, &older, vec![]).await;
    store(&backends, &newer, vec![supersede(&newer, &older)]).await;

    supersede::step(&backends.state, "test/worker").await.unwrap();
    let mut now = backends.state.upload(older.upload_id).await.unwrap().unwrap();
    let states: Vec<_> = now.deliveries.iter().map(|d| d.state).collect();
    assert_eq!(states, [S::Delivered, S::Finalizing, S::RetryWait, S::Cancelled, S::Cancelled]);
    assert_eq!(now.deliveries[4].epoch, 4, "the worker that claimed it is cut off");
    assert_eq!(now.state, UploadState::Delivering);
    // The entry waits, and nothing is written while it does.
    let due = |at| backends.state.outbox_due(OutboxKind::Supersede, at, 10);
    assert_eq!(due(Timestamp::now()).await.unwrap().len(), 0);
    let entry = due(Timestamp::now().plus(Duration::from_secs(2))).await.unwrap().remove(0);
    assert!(matches!(handle(&backends, &entry).await.unwrap(), Outcome::Later(_)));
    assert_eq!(backends.state.upload(older.upload_id).await.unwrap().unwrap().revision, now.revision);

    now.deliveries[1].state = S::Delivered;
    now.deliveries[2].state = S::Dead;
    now.state = UploadState::Failed;
    let subject = Subject::Upload { upload: Box::new(now.clone()), inline: None };
    let settled = Change {
        subject,
        audit: vec![samples::entry(&now)],
        outbox: vec![],
        durability: Durability::Durable,
    };
    backends.state.apply(settled).await.unwrap();
    assert_eq!(handle(&backends, &entry).await.unwrap(), Outcome::Done);
    let now = backends.state.upload(older.upload_id).await.unwrap().unwrap();
    assert_eq!(now.state, UploadState::Superseded);
    assert_eq!(now.deliveries[1].state, S::Delivered, "what is delivered stays on record");
}

#[tokio::test]
async fn an_entry_that_can_not_be_handled_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let (stray, older, newer) =
        (committed("/upload/a", 1), committed("/upload/b", 1), committed("/upload/b", 2));
    store(&backends, &older, vec![]).await;
    store(&backends, &newer, vec![supersede(&newer, &stray), supersede(&newer, &older)]).await;
    supersede::step(&backends.state, "test/worker").await.unwrap();
    assert_eq!(backends.state.upload(older.upload_id).await.unwrap().unwrap().state, UploadState::Superseded);
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "waited in vain: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_relay_runs_at_a_time_and_another_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let worker = Identity::claim(dir.path(), Role::Worker).unwrap();
    let gateway = Identity::claim(dir.path(), Role::Gateway).unwrap();
    let start = |identity: &Identity| {
        let stop = CancellationToken::new();
        let task = tokio::spawn(Relay::new(backends.clone(), identity).run(stop.clone()));
        (stop, task)
    };
    let (stop, first) = start(&worker);
    let outbox = |upload: &Upload| {
        vec![
            OutboxEntry::event(event(upload)),
            OutboxEntry::job(upload.upload_id, Work::Route),
            OutboxEntry::job(upload.upload_id, deliver(upload))
                .at(Timestamp::now().plus(Duration::from_millis(300))),
        ]
    };
    let one = committed("/upload/1", 1);
    store(&backends, &one, outbox(&one)).await;
    until("the first event", async || published(dir.path()).len() == 1).await;
    let asked = Instant::now();
    let jobs = std::cell::Cell::new(0);
    let take = async || {
        jobs.set(jobs.get() + taken(&backends).await.len());
        jobs.get()
    };
    until("the delayed job", async || take().await == 2).await;
    assert!(asked.elapsed() < Duration::from_secs(5));

    let (stop_second, second) = start(&gateway);
    stop.cancel();
    first.await.unwrap();
    // The lease was given back, so nobody waits for it to run out.
    let two = committed("/upload/2", 1);
    store(&backends, &two, outbox(&two)).await;
    until("the second event", async || published(dir.path()).len() == 2).await;
    until("the other jobs", async || take().await == 4).await;
    stop_second.cancel();
    second.await.unwrap();
    assert_eq!(backends.state.backlog().await.unwrap().outbox, 0);
}

#[tokio::test]
async fn a_process_rings_for_its_own_commits_and_leaves_the_rest_to_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let upload = committed("/upload/1", 1);
    let now = OutboxEntry::job(upload.upload_id, Work::Route);
    let later = OutboxEntry::job(upload.upload_id, deliver(&upload)).at(Timestamp::now());
    let entries = vec![now.clone(), later.clone(), OutboxEntry::event(event(&upload))];
    store(&backends, &upload, entries.clone()).await;
    ring(&backends, &entries).await;
    assert_eq!(taken(&backends).await.iter().map(|j| j.entry).collect::<Vec<_>>(), [now.id]);
    assert_eq!(backends.state.backlog().await.unwrap().outbox, 2);

    // The queue refuses: nothing is marked. Marking fails: rung, and rung again.
    for (fault, expected) in [(Fault::DiesBefore, 0), (Fault::DiesAfter, 1)] {
        let upload = committed(&format!("/upload/{fault:?}"), 1);
        let entry = OutboxEntry::job(upload.upload_id, Work::Route);
        store(&backends, &upload, vec![entry.clone()]).await;
        ring(&faulty(&backends, &Faults::new(0, fault)), std::slice::from_ref(&entry)).await;
        assert_eq!(taken(&backends).await.len(), expected);
        job::step(&backends).await.unwrap();
        assert!(taken(&backends).await.iter().any(|j| j.entry == entry.id), "{fault:?}");
    }
}
