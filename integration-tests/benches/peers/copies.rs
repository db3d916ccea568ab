//! Dropgate beside `rclone copy`, with the same files to the same servers: uploads that end in Azurite, deliveries that end
//! in MinIO.

use crate::{
    measure::{PeakWatch, Sample, prepare, with_cipher},
    rclone::{Remote, azurite, minio},
    server::{MANY_SESSIONS, NO_ROUTE},
    work::{Workload, bulk},
};
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::{
    Gate, Medium, Roles, Scratch, Setup, openssh::OpenSsh, process, records, until::until_true,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long all deliveries of a run may take.
const DELIVERED: Duration = Duration::from_secs(300);

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From OpenSSH clients through the gateway into the blob store.
    Upload,
    /// From the blob store to a destination: a worker is started on a backlog.
    Delivery,
}

/// A comparison.
#[derive(Clone, Debug)]
pub(crate) struct Copying {
    /// Where the bytes go.
    pub(crate) way: Way,
    /// What is copied.
    pub(crate) work: Workload,
}

/// All runs of a comparison, without the warm-up.
pub(crate) struct Compared {
    /// Which.
    pub(crate) copying: Copying,
    /// Dropgate's.
    pub(crate) ours: Vec<Sample>,
    /// Those of `rclone copy`.
    pub(crate) rclone: Vec<Sample>,
}

/// Every comparison, in the order of the report. rclone copies four files at a time, so Dropgate has four sessions.
pub(crate) fn all() -> Vec<Copying> {
    let sizes = [("256 MiB", 1, 1, 256 << 20), ("1 GiB", 1, 1, 1 << 30), ("16 x 32 MiB", 4, 4, 32 << 20)];
    let mut all = Vec::new();
    for (way, title) in [(Way::Upload, "upload to Azurite"), (Way::Delivery, "delivery to MinIO")] {
        for (what, sessions, files, length) in sizes {
            let name = format!("{what}, {title}");
            all.push(Copying { way, work: Workload { name, sessions, files, length, ..bulk() } });
        }
    }
    all
}

pub(crate) async fn run(copying: &Copying, rounds: usize) -> Result<Compared> {
    let source = Scratch::new(Medium::Memory)?;
    let directories = prepare(&copying.work, source.path())?;
    let mut compared = Compared { copying: copying.clone(), ours: Vec::new(), rclone: Vec::new() };
    for round in 0..=rounds {
        let remote = match copying.way {
            Way::Upload => azurite()?,
            Way::Delivery => minio()?,
        };
        remote.make().await?;
        let ours = match copying.way {
            Way::Upload => upload(&copying.work, &directories, &remote).await,
            Way::Delivery => deliver(&copying.work, &directories, &remote).await,
        }
        .with_context(|| copying.work.name.clone())?;
        let rclone = copy(&remote, source.path(), copying.work.bytes()).await?;
        remote.remove().await?;
        if round > 0 {
            compared.ours.push(ours);
            compared.rclone.push(rclone);
        }
    }
    Ok(compared)
}

/// From the first client's start to the last one's end: what was answered with OK is in the store.
async fn upload(work: &Workload, directories: &[PathBuf], store: &Remote) -> Result<Sample> {
    let config = format!("{MANY_SESSIONS}{NO_ROUTE}{}", store.config);
    let gate = Gate::start(Setup::default().config(config)).await?;
    OpenSsh::new(&gate, "acme")?.sftp("ls /\n").await?;
    let gateway = gate.process("run")?.id();
    process::reset_peak(gateway)?;
    let (before, begun) = (process::usage(gateway)?, Instant::now());
    put(&gate, directories).await?;
    let (wall, after) = (begun.elapsed().as_secs_f64(), process::usage(gateway)?);
    let accepted = gate.uploads().await?.into_iter().filter(|u| u.size == Some(work.length)).count();
    ensure!(accepted == work.count(), "{accepted} of {} files accepted", work.count());
    store.holds("dropgate", work.bytes()).await?;
    gate.finish().await?;
    Ok(Sample { wall, cpu: after.cpu - before.cpu, peak: after.peak })
}

/// From the start of the worker, as rclone's time begins with its start, to the last event that a file was delivered.
async fn deliver(work: &Workload, directories: &[PathBuf], destination: &Remote) -> Result<Sample> {
    let config = format!("{MANY_SESSIONS}{}", destination.config);
    let setup = Setup { roles: Roles::Three, ..Setup::default().config(config) };
    let mut gate = Gate::start(setup).await?;
    gate.kill_role("worker")?;
    put(&gate, directories).await?;
    let begun = Instant::now();
    gate.launch_role("worker").await?;
    until_true(DELIVERED, "every file to be delivered", || async {
        let told = records::events(&gate.data().join("events.ndjson"))?;
        let delivered = |event: &&Value| records::text(event, "type") == "dropgate.upload.delivered.v1";
        Ok(told.iter().filter(delivered).count() == work.count())
    })
    .await?;
    let (wall, used) = (begun.elapsed().as_secs_f64(), gate.usage("worker")?);
    destination.holds("dropgate", work.bytes()).await?;
    gate.finish().await?;
    Ok(Sample { wall, cpu: used.cpu, peak: used.peak })
}

/// Uploads each directory in a session of its own, all at once.
async fn put(gate: &Gate, directories: &[PathBuf]) -> Result<()> {
    let mut running = JoinSet::new();
    for directory in directories {
        let client = with_cipher(OpenSsh::new(gate, "acme")?);
        let batch = format!("cd /upload\nput {}/*\n", directory.display());
        running.spawn(async move { client.sftp(&batch).await.map(|_| ()) });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn copy(remote: &Remote, source: &Path, bytes: u64) -> Result<Sample> {
    let begun = Instant::now();
    let running = remote.copy(source, "rclone")?;
    let watch = PeakWatch::start(running.id().context("rclone ended at once")?);
    let ended = running.wait_with_output().await?;
    let (wall, seen) = (begun.elapsed().as_secs_f64(), watch.stop());
    ensure!(ended.status.success(), "rclone copy: {}", String::from_utf8_lossy(&ended.stderr));
    remote.holds("rclone", bytes).await?;
    Ok(Sample { wall, cpu: seen.cpu, peak: seen.peak })
}
