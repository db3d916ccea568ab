//! Runs a workload and takes its figures.

use crate::{
    server::{Peer, Server, children},
    work::Workload,
};
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Medium, Scratch, Setup, openssh::OpenSsh, payload, process},
    raw::{Connection, Transport},
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, JoinSet};

/// The cipher of every run: the cheapest, so that the servers are compared and not the cipher.
const CIPHER: &str = "-oCiphers=aes128-gcm@openssh.com";

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds from the first client's start to the last one's end.
    pub(crate) wall: f64,
    /// The server's processor seconds, its ended children included.
    pub(crate) cpu: f64,
    /// The server's most resident bytes, all its processes together.
    pub(crate) peak: u64,
}

/// All runs of a workload.
pub(crate) struct Measured {
    /// Which.
    pub(crate) work: Workload,
    /// Runs by peer, without the warm-up.
    pub(crate) samples: BTreeMap<Peer, Vec<Sample>>,
    /// Seconds that `dd conv=fsync` took for the same bytes on the same disk, where that is a fair comparison.
    pub(crate) dd: Option<f64>,
}

pub(crate) async fn run(work: &Workload, rounds: usize) -> Result<Measured> {
    let source = Scratch::new(Medium::Memory)?;
    let directories = prepare(work, source.path())?;
    let mut samples: BTreeMap<Peer, Vec<Sample>> = BTreeMap::new();
    let mut dd = Vec::new();
    for round in 0..=rounds {
        for peer in &work.peers {
            let sample = one(work, *peer, &directories)
                .await
                .with_context(|| format!("{} {}", work.name, peer.name()))?;
            if round > 0 {
                samples.entry(*peer).or_default().push(sample);
            }
        }
        if work.medium == Medium::Disk && work.is_bulk() {
            let took = copy_with_dd(&directories, work).await?;
            if round > 0 {
                dd.push(took);
            }
        }
    }
    Ok(Measured { work: work.clone(), samples, dd: (!dd.is_empty()).then(|| median(&dd)) })
}

/// One directory of files a session.
pub(crate) fn prepare(work: &Workload, root: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for session in 0..work.sessions {
        let directory = root.join(format!("s{session}"));
        std::fs::create_dir(&directory)?;
        for number in 0..work.files {
            let seed = (session * work.files + number) as u64;
            payload::write_file(&directory.join(format!("s{session}-{number:05}")), seed, work.length)?;
        }
        directories.push(directory);
    }
    Ok(directories)
}

async fn one(work: &Workload, peer: Peer, directories: &[PathBuf]) -> Result<Sample> {
    let server = Server::start(peer, work).await?;
    let mut clients = Vec::new();
    for directory in directories {
        let mut client = with_cipher(server.client()?);
        if work.pinned {
            client.wrapper = ["taskset", "-c", "1"].map(str::to_owned).to_vec();
        }
        let put = if work.durable && !server.syncs_by_itself() { "put -f" } else { "put" };
        let mut batch = String::new();
        writeln!(batch, "cd {}", server.target())?;
        writeln!(batch, "{put} {}/*", directory.display())?;
        clients.push((client, batch));
    }
    // The login is not what is measured here, but a first one makes both servers load what they need.
    clients.first().context("a client")?.0.sftp("ls /\n").await?;
    server.settle().await?;
    touch_memory(3 * work.bytes().max(64 << 20))?;

    let pid = server.pid()?;
    process::reset_peak(pid)?;
    let before = server.usage()?;
    let watch = PeakWatch::start(pid);
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (client, batch) in clients {
        running.spawn(async move { client.sftp(&batch).await.map(|_| ()) });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let mut wall = begun.elapsed().as_secs_f64();
    let accepted = server.usage()?;
    server.settle().await?;
    let settled = server.usage()?;
    let peak = watch.stop().peak.max(settled.peak);
    // OpenSSH's time is known when its children have ended; Dropgate's acceptance is over when the client is.
    let cpu = match peer {
        Peer::Dropgate { deliver: false } => accepted.cpu,
        Peer::Dropgate { deliver: true } => {
            wall = begun.elapsed().as_secs_f64();
            settled.cpu
        }
        Peer::InternalSftp | Peer::SftpServer => settled.cpu,
    } - before.cpu;
    check(&server, work).await?;
    server.finish().await?;
    Ok(Sample { wall, cpu, peak })
}

/// A figure of a run in which files are missing is worth nothing.
async fn check(server: &Server, work: &Workload) -> Result<()> {
    match server {
        Server::Dropgate(gate) => {
            let accepted = gate.uploads().await?.into_iter().filter(|u| u.size == Some(work.length)).count();
            ensure!(accepted == work.count(), "{accepted} of {} files accepted", work.count());
        }
        Server::OpenSsh(_, root) => {
            let there = std::fs::read_dir(root)?.count();
            ensure!(there == work.count(), "{there} of {} files there", work.count());
        }
    }
    Ok(())
}

/// A client that uses [`CIPHER`].
pub(crate) fn with_cipher(mut client: OpenSsh) -> OpenSsh {
    client.more.push(CIPHER.to_owned());
    client
}

/// Looks 50 times a second at what a process and its children have resident together and have used, until stopped.
pub(crate) struct PeakWatch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What a [`PeakWatch`] saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Most resident bytes.
    pub(crate) peak: u64,
    /// Processor seconds of the process itself at the last look.
    pub(crate) cpu: f64,
}

impl PeakWatch {
    pub(crate) fn start(pid: u32) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(pid, Arc::clone(&seen)));
        Self { seen, task }
    }

    pub(crate) fn stop(self) -> Seen {
        self.task.abort();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(pid: u32, seen: Arc<Mutex<Seen>>) {
    loop {
        // A process that has just ended uses nothing.
        if let Ok(mut used) = process::usage(pid) {
            for child in children(pid).unwrap_or_default() {
                used.resident += process::usage(child).map(|u| u.resident).unwrap_or(0);
            }
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Seen { peak: seen.peak.max(used.resident), cpu: used.cpu };
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Touches every page of so much memory and gives it back.
fn touch_memory(bytes: u64) -> Result<()> {
    let mut block = vec![0_u8; usize::try_from(bytes)?];
    for page in block.chunks_mut(4096) {
        if let Some(byte) = page.first_mut() {
            *byte = 1;
        }
    }
    black_box(&block);
    Ok(())
}

async fn copy_with_dd(directories: &[PathBuf], work: &Workload) -> Result<f64> {
    let target = Scratch::new(Medium::Disk)?;
    let mut took = 0.0;
    for directory in directories {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            touch_memory(2 * work.length)?;
            let mut command = Command::new("dd");
            command
                .arg(format!("if={}", entry.path().display()))
                .arg(format!("of={}", target.join(entry.file_name()).display()))
                .args(["bs=1M", "conv=fsync", "status=none"]);
            let begun = Instant::now();
            let done =
                dropgate_integration_tests::harness::cli::finish(command, b"", Duration::from_secs(300))
                    .await?;
            ensure!(done.status.success(), "dd: {}", done.all());
            took += begun.elapsed().as_secs_f64();
        }
    }
    Ok(took)
}

/// What an idle, logged-in SFTP session keeps resident in Dropgate.
pub(crate) async fn idle_session_bytes() -> Result<u64> {
    const SESSIONS: usize = 100;
    let config = "[log]\nfilter = \"warn\"\n[gateway.listener.limits]\nnew_per_second_per_source = 1000\n\
                  new_burst_per_source = 1000\nsessions_per_account = 1000\nsessions_per_source = 1000\n";
    let gate = Gate::start(Setup::default().learned().config(config)).await?;
    let warm = OpenSsh::new(&gate, "acme")?;
    warm.sftp("ls /\n").await?;
    let mut kept = Vec::new();
    // The first ones pay for what is made once.
    for _ in 0..20 {
        kept.push(idle(&gate).await?);
    }
    let before = gate.usage("run")?.resident;
    for _ in 0..SESSIONS {
        kept.push(idle(&gate).await?);
    }
    let after = gate.usage("run")?.resident;
    drop(kept);
    gate.finish().await?;
    Ok(after.saturating_sub(before) / SESSIONS as u64)
}

async fn idle(gate: &Gate) -> Result<(Connection, dropgate_integration_tests::raw::Raw)> {
    gate.raw_over("acme", &Transport::default()).await
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
