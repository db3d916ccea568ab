//! Writes whose answer is lost on the way: the server made them, and the connection ends before it can say so.

use super::setting::Place;
use crate::state::{
    AuditQuery, StateStore,
    conformance::samples::{self, account, path},
};
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, OutboxKind, Subject},
    id::InstanceId,
    job::Work,
    time::Timestamp,
    upload::UploadState,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Between the store and the server. Swallows the answer to the next writes, and their connection with it.
struct Wire {
    swallow: Arc<AtomicUsize>,
    swallowed: Arc<AtomicUsize>,
    place: Place,
}

impl Wire {
    async fn new() -> Self {
        let mut place = Place::new();
        let uri = place.settings.uri.clone();
        let server = uri.split("://").nth(1).unwrap().split(['/', '?']).next().unwrap().to_owned();
        assert!(!server.contains(['@', ',']), "this test needs the address of one server without a login");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        place.settings.uri = uri.replacen(&server, &listener.local_addr().unwrap().to_string(), 1);
        let (swallow, swallowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&swallow), Arc::clone(&swallowed));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(pass_on(client, server, counts.0.clone(), counts.1.clone()));
            }
        });
        Self { swallow, swallowed, place }
    }

    /// The answers to so many writes from now on are lost.
    fn lose(&self, writes: usize) {
        self.swallow.store(writes, Ordering::SeqCst);
    }

    fn lost(&self) -> usize {
        self.swallowed.load(Ordering::SeqCst)
    }
}

async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    swallow: Arc<AtomicUsize>,
    swallowed: Arc<AtomicUsize>,
) {
    let (mut up, mut down) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        tokio::select! {
            n = client.read(&mut up) => {
                let Ok(n @ 1..) = n else { return };
                if server.write_all(&up[..n]).await.is_err() {
                    return;
                }
                // A command names itself in the first field of its document; pulses write hastily and are let through.
                let sent = &up[..n];
                let has = |text: &[u8]| sent.windows(text.len()).any(|part| part == text);
                let is_write = has(b"\x02insert\0") || has(b"\x02update\0");
                let lose = |left: usize| left.checked_sub(1);
                if is_write && !has(b"dg_pulses") && swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
                    let _ = server.read(&mut down).await;
                    swallowed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            n = server.read(&mut down) => {
                let Ok(n @ 1..) = n else { return };
                if client.write_all(&down[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn trail(store: &Arc<dyn StateStore>) -> usize {
    store.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_once_and_told_as_made() {
    let wire = Wire::new().await;
    let store = wire.place.open().await;
    let mut record = samples::upload("acme", "/upload/x", 1);
    for round in 1..=6 {
        // Once for each attempt that may be needed: the first, and one after it.
        wire.lose(1 + round % 2);
        record.state = if round > 3 { UploadState::Committed } else { UploadState::Receiving };
        let job = OutboxEntry::job(record.upload_id, Work::Route);
        let change = Change { outbox: vec![job], ..samples::change(&record, Durability::Durable) };
        let revision = store.apply(change).await.unwrap();
        assert_eq!(revision, round as u64);
        record.revision = revision;
    }
    assert!(wire.lost() >= 6, "only {} answers were lost", wire.lost());
    wire.lose(0);
    assert_eq!(store.upload(record.upload_id).await.unwrap().unwrap(), record);
    assert_eq!(trail(&store).await, 6);
    assert_eq!(store.outbox_due(OutboxKind::Job, Timestamp::now(), 100).await.unwrap().len(), 6);

    // The same without a record.
    let entries = Change {
        subject: Subject::None,
        audit: vec![samples::entry(&record), samples::entry(&record)],
        outbox: Vec::new(),
        durability: Durability::Durable,
    };
    wire.lose(1);
    store.apply(entries).await.unwrap();
    assert_eq!(trail(&store).await, 8);
    // And where placing loses its answers.
    wire.lose(0);
    store.apply(samples::change(&record, Durability::Durable)).await.unwrap();
    wire.lose(2);
    assert_eq!(trail(&store).await, 9);
}

/// The answer to the first try is lost; before the second, somebody else goes on from what it made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_others_built_upon_is_told_as_made() {
    let wire = Wire::new().await;
    let (store, other) = (wire.place.open().await, wire.place.open().await);
    let mut record = samples::upload("acme", "/upload/x", 1);
    record.revision = store.apply(samples::created(&record)).await.unwrap();
    for _ in 0..10 {
        let mut next = record.clone();
        let follow = async {
            next.revision += 1;
            loop {
                match other.apply(samples::change(&next, Durability::Visible)).await {
                    Ok(revision) => return revision,
                    Err(crate::StateError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        wire.lose(1);
        let (made, followed) =
            tokio::join!(store.apply(samples::change(&record, Durability::Durable)), follow);
        assert_eq!(made.unwrap(), record.revision + 1);
        assert_eq!(followed, record.revision + 2);
        record.revision = followed;
    }
    wire.lose(0);
    assert_eq!(trail(&store).await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_comes_to_the_same_too() {
    let wire = Wire::new().await;
    let store = wire.place.open().await;
    let record = samples::upload("acme", "/upload/x", 1);
    let events: Vec<_> = (0..5).map(|_| samples::event(&record)).collect();
    wire.lose(1);
    let logged = store.log_events(events.clone()).await.unwrap();
    assert_eq!(logged.iter().map(|logged| logged.position).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(
        logged.iter().map(|logged| logged.event.id).collect::<Vec<_>>(),
        events.iter().map(|e| e.id).collect::<Vec<_>>()
    );
    assert_eq!(store.events_after(0, None, 10).await.unwrap().len(), 5);

    wire.lose(1);
    assert!(store.reserve_key("archive", "k", &account("acme"), &path("/upload/x")).await.unwrap());
    wire.lose(1);
    assert!(!store.reserve_key("archive", "k", &account("acme"), &path("/upload/y")).await.unwrap());

    let (me, ttl) = (InstanceId::new(), Duration::from_secs(60));
    wire.lose(1);
    let token = store.lease("relay", me, ttl).await.unwrap();
    assert!(token.is_some());
    wire.lose(1);
    assert_eq!(store.lease("relay", me, ttl).await.unwrap(), token);

    wire.lose(1);
    store.advance_cursor("publisher", 4).await.unwrap();
    assert_eq!(store.cursor("publisher").await.unwrap(), 4);
    wire.lose(1);
    store.heartbeat(me, "worker", "host (1)").await.unwrap();
    assert!(store.instances().await.unwrap().first().unwrap().beats >= 1);
    wire.lose(1);
    store.check().await.unwrap();
    assert!(wire.lost() >= 7, "only {} answers were lost", wire.lost());
}
