//! How fast it is. Not run with the others: `cargo test --release -p dropgate-backends --lib measure -- --ignored
//! --nocapture --test-threads=1`, with `DROPGATE_MEASURE_DIR` naming a directory on the disk in question.

use super::state;
use crate::state::{
    StateStore, UploadOrder, UploadQuery,
    conformance::samples::{self, change, created, entry, event, upload},
};
use bytes::Bytes;
use dropgate_schemas::{
    change::{Change, Durability, OutboxEntry, Subject},
    digest::Sha256,
    id::UploadId,
    job::Work,
    path::Area,
    upload::{BlobRef, Upload, UploadState},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

fn place() -> tempfile::TempDir {
    let base = std::env::var_os("DROPGATE_MEASURE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("dropgate-measure-").tempdir_in(base).unwrap()
}

fn accepted(upload: &mut Upload, content: &Bytes) -> Change {
    upload.state = UploadState::Committed;
    upload.blob = Some(BlobRef::Inline);
    upload.size = Some(content.len() as u64);
    upload.sha256 = Some(Sha256::of(content));
    Change {
        subject: Subject::Upload { upload: Box::new(upload.clone()), inline: Some(content.clone()) },
        outbox: vec![OutboxEntry::job(upload.upload_id, Work::Route), OutboxEntry::event(event(upload))],
        audit: vec![entry(upload)],
        ..change(upload, Durability::Durable)
    }
}

/// What one small file costs the store: looks at OPEN, a visible record, a durable acceptance.
async fn one_file(store: &dyn StateStore, name: &str, content: &Bytes) {
    let mut record = upload("acme", name, 1);
    let query = UploadQuery {
        account: Some(record.account.clone()),
        path: Some(record.path.clone()),
        order: UploadOrder::ByVersion,
        limit: 1,
        ..Default::default()
    };
    assert!(store.find(query).await.unwrap().is_empty());
    record.version = store.highest_version(&record.account, &record.path).await.unwrap() + 1;
    record.revision = store.apply(created(&record)).await.unwrap();
    store.apply(accepted(&mut record, content)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn log_of_a_small_file() {
    let dir = place();
    let store = state(&dir.path().join("dropgate.db"));
    let content = Bytes::from(vec![7; 4_096]);
    let log = || std::fs::metadata(dir.path().join("dropgate.db-wal")).unwrap().len();
    for n in 0..50 {
        one_file(store.as_ref(), &format!("/upload/before/{n}"), &content).await;
    }
    let before = log();
    for n in 0..50 {
        one_file(store.as_ref(), &format!("/upload/now/{n}"), &content).await;
    }
    println!("one after another: {} KiB of log a file", (log() - before) / 50 / 1_024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn small_files() {
    for tasks in [1, 4, 16, 64] {
        let dir = place();
        let store = state(&dir.path().join("dropgate.db"));
        run(&store, tasks).await;
        store.close().await;
    }
}

/// Many uploads that are done must not slow down those that come: `DROPGATE_MEASURE_UPLOADS` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn small_files_behind_many_finished_ones() {
    let many = std::env::var("DROPGATE_MEASURE_UPLOADS").map_or(1_000_000, |n| n.parse().unwrap());
    let dir = place();
    let path = dir.path().join("dropgate.db");
    let store = state(&path);
    run(&store, 1).await;
    let begun = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let filling: Vec<_> = (0..64)
        .map(|_| {
            let (store, next) = (Arc::clone(&store), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= many {
                        return;
                    }
                    let directory = n.wrapping_mul(0x9e37_79b9) % 1_000;
                    let mut record = samples::full_upload("acme", &format!("/upload/{directory}/old-{n}"), 1);
                    record.state = UploadState::Processed;
                    record.deleted_at = None;
                    record.blob = Some(BlobRef::Inline);
                    record.sha256 = Some(Sha256::of(&n.to_le_bytes()));
                    let audit = (0..6).map(|_| entry(&record)).collect();
                    store.apply(Change { audit, ..created(&record) }).await.unwrap();
                }
            })
        })
        .collect();
    for task in filling {
        task.await.unwrap();
    }
    let size = std::fs::metadata(&path).unwrap().len() >> 20;
    println!("{many} finished uploads in {:?}, {size} MiB", begun.elapsed());
    for tasks in [1, 16] {
        run(&store, tasks).await;
    }
    let begun = Instant::now();
    store.backlog().await.unwrap();
    println!("counts: {:?}", begun.elapsed());
    let begun = Instant::now();
    let failed = UploadQuery { states: vec![UploadState::Failed], limit: 100, ..Default::default() };
    assert!(store.find(failed).await.unwrap().is_empty());
    println!("those that failed: {:?}", begun.elapsed());
    store.close().await;
}

/// Two processes' worth of writers on one file: neither may starve the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn two_writers() {
    let dir = place();
    let path = dir.path().join("dropgate.db");
    for (busy, calm) in [(1, 1), (16, 1), (16, 16)] {
        let (one, two) = (state(&path), state(&path));
        println!("{busy} tasks beside {calm}:");
        tokio::join!(run(&one, busy), run(&two, calm));
        one.close().await;
        two.close().await;
    }
}

/// Small files for a few seconds, from so many tasks at once.
async fn run(store: &Arc<dyn StateStore>, tasks: usize) {
    let content = Bytes::from(vec![7; 4_096]);
    let begun = Instant::now();
    let run = Duration::from_secs(4);
    let (syncs, cpu) = (syncs(), cpu());
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, content) = (Arc::clone(store), content.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < run {
                    let one = Instant::now();
                    one_file(store.as_ref(), &format!("/upload/in/{}", UploadId::new()), &content).await;
                    times.push(one.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in running {
        times.extend(task.await.unwrap());
    }
    let (took, done) = (begun.elapsed().as_secs_f64(), times.len() as f64);
    times.sort_unstable();
    println!(
        "{tasks:3} tasks: {:6.0} files/s, p50 {:?}, p99 {:?}, max {:?}, {:.2} syncs a file, {:.0} us CPU a file",
        done / took,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
        (self::syncs() - syncs) as f64 / done,
        (self::cpu() - cpu) * 1e6 / done,
    );
}

fn syncs() -> u64 {
    super::super::writer::syncs()
}

/// Processor time of this process in seconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Create, write and sync, one after another: what the disk itself can do.
#[test]
#[ignore = "a measurement"]
fn the_disk_alone() {
    use std::io::Write as _;
    let dir = place();
    for (what, bytes) in [("4 KiB", 4_096), ("64 KiB", 65_536)] {
        let mut log = std::fs::File::create(dir.path().join("log")).unwrap();
        log.write_all(&vec![1; 32 << 20]).unwrap();
        log.sync_all().unwrap();
        std::io::Seek::rewind(&mut log).unwrap();
        let piece = vec![2; bytes];
        let begun = Instant::now();
        let mut n = 0;
        while begun.elapsed() < Duration::from_secs(2) && n * bytes < 30 << 20 {
            log.write_all(&piece).unwrap();
            log.sync_data().unwrap();
            n += 1;
        }
        println!(
            "overwrite {what} and sync: {:.0}/s",
            f64::from(u32::try_from(n).unwrap()) / begun.elapsed().as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn look_ups_and_listings() {
    let dir = place();
    let store = state(&dir.path().join("dropgate.db"));
    let mut ids: Vec<UploadId> = Vec::new();
    for n in 0..10_000 {
        let mut record = samples::full_upload("acme", &format!("/upload/in/file-{n:05}.csv"), 1);
        record.state = UploadState::Processed;
        record.deleted_at = None;
        ids.push(record.upload_id);
        store.apply(created(&record)).await.unwrap();
    }
    let begun = Instant::now();
    let mut order = UploadOrder::ByName;
    let mut seen = 0;
    loop {
        let query = UploadQuery {
            account: Some(samples::account("acme")),
            directory: Some(samples::path("/upload/in")),
            area: Some(Area::Sent),
            order,
            limit: 100,
            ..Default::default()
        };
        let page = store.find(query).await.unwrap();
        let Some(last) = page.last() else { break };
        order = UploadOrder::ByNameAfter(last.path.name_key().to_owned());
        seen += page.len();
    }
    println!("listing of {seen}: {:?}", begun.elapsed());
    let begun = Instant::now();
    for id in ids.iter().cycle().take(20_000) {
        store.upload(*id).await.unwrap().unwrap();
    }
    println!("look-up by id: {:?}", begun.elapsed() / 20_000);
    let begun = Instant::now();
    for n in 0..20_000 {
        let path = samples::path(&format!("/upload/in/file-{:05}.csv", n % 10_000));
        store.highest_version(&samples::account("acme"), &path).await.unwrap();
    }
    println!("highest version: {:?}", begun.elapsed() / 20_000);
    store.close().await;
}
