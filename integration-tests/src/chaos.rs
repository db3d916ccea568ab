//! The chaos runner: uploaders that never rest, a server that is killed with `kill -9` at random moments, also while it
//! starts, and the invariant checker afterwards. What is random follows from a seed; the moments of the kernel do not.

mod uploader;

use crate::{
    checker::{Evidence, Ledger, verify},
    harness::{
        Gate, Roles, Setup,
        until::{until, until_true},
    },
    raw::Login,
};
use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use uploader::Uploader;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all that is random comes from.
    pub seed: u64,
    /// How many times the server is killed.
    pub kills: usize,
    /// How many clients upload at the same time.
    pub uploaders: usize,
    /// The kills stop here, however many there were, and the run fails.
    pub limit: Duration,
    /// What is started.
    pub setup: Setup,
}

impl Plan {
    /// From the environment: `DROPGATE_CHAOS_SEED`, `DROPGATE_CHAOS_KILLS`, `DROPGATE_CHAOS_MINUTES`; else a seed of the
    /// clock, 50 kills, 5 minutes.
    ///
    /// # Errors
    /// If one of them is no number.
    pub fn from_environment() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
            Err(_) => Ok(default),
        };
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(Self {
            seed: number("DROPGATE_CHAOS_SEED", u64::from(clock.subsec_nanos()))?,
            kills: usize::try_from(number("DROPGATE_CHAOS_KILLS", 50)?)?,
            uploaders: 8,
            limit: Duration::from_secs(60 * number("DROPGATE_CHAOS_MINUTES", 5)?),
            setup: Setup::default().accounts(&ACCOUNTS).on_disk().config(CONFIG),
        })
    }
}

/// What is left behind is collected while one waits. An orphan must be older than any upload of a run may take.
const CONFIG: &str = "[workers.sweep]\nevery_seconds = 1\naborted_seconds = 2\norphan_seconds = 20\ncollect_every_seconds = 2\n";

/// The accounts that upload, two clients each.
pub const ACCOUNTS: [&str; 4] = ["alder", "birch", "cedar", "dogwood"];

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Kills, those during a start included.
    pub kills: usize,
    /// Kills during a start.
    pub early_kills: usize,
    /// Uploads that were begun.
    pub begun: usize,
    /// Uploads that were acknowledged.
    pub acknowledged: usize,
    /// Refusals that clients got, with their texts counted.
    pub refusals: Vec<(String, usize)>,
    /// What was seen at the end.
    pub evidence: Evidence,
    /// How long the kills took.
    pub took: Duration,
}

/// What uploaders share.
pub struct Shared {
    ledger: Ledger,
    /// Where the gateways listen now. Each uploader has one of them.
    servers: Vec<watch::Receiver<Option<SocketAddr>>>,
    stop: AtomicBool,
    attempts: AtomicUsize,
    refusals: std::sync::Mutex<std::collections::BTreeMap<String, usize>>,
}

impl Shared {
    pub(crate) fn new(ledger: Ledger, servers: Vec<watch::Receiver<Option<SocketAddr>>>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            servers,
            stop: AtomicBool::new(false),
            attempts: AtomicUsize::new(0),
            refusals: std::sync::Mutex::default(),
        })
    }

    /// Starts `count` clients that upload without rest until [`Self::stop`].
    pub(crate) fn upload(
        self: &Arc<Self>,
        count: usize,
        seed: u64,
        login: impl Fn(&str) -> Login,
    ) -> JoinSet<Result<()>> {
        let mut uploaders = JoinSet::new();
        for number in 0..count {
            let account = ACCOUNTS.get(number % ACCOUNTS.len()).copied().unwrap_or("alder");
            let seed = seed.wrapping_mul(31).wrapping_add(number as u64);
            uploaders.spawn(Uploader::new(Arc::clone(self), login(account), number, seed).run());
        }
        uploaders
    }

    /// What the clients wrote down.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How many uploads were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.ledger.lines().iter().filter(|l| l.is_acknowledged()).count()
    }

    /// Lets the clients finish what they are at.
    ///
    /// # Errors
    /// If one of them failed.
    pub(crate) async fn stop(&self, mut uploaders: JoinSet<Result<()>>) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = uploaders.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Runs a plan to its end, the checker included.
///
/// # Errors
/// If the checker finds something, or the server does not come up again, or nothing was uploaded.
pub async fn run(plan: &Plan) -> Result<Report> {
    println!("chaos: DROPGATE_CHAOS_SEED={} DROPGATE_CHAOS_KILLS={}", plan.seed, plan.kills);
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(plan.seed);
    let mut gate = Gate::start(plan.setup.clone()).await?;
    let (address, server) = watch::channel(Some(gate.sftp()?));
    let shared = Shared::new(Ledger::create(&gate.path("ledger.ndjson"))?, vec![server]);
    let uploaders = shared.upload(plan.uploaders, plan.seed, |account| gate.login(account));

    let begun = Instant::now();
    let mut early = 0;
    for kill in 0..plan.kills {
        ensure!(begun.elapsed() < plan.limit, "only {kill} of {} kills in {:?}", plan.kills, plan.limit);
        // The random moment is the subject here, not a wait for something.
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..700))).await;
        if plan.setup.roles == Roles::Three {
            // One of the three; the others go on and must live with it.
            let role = match dice.random_range(0..5) {
                0 | 1 => "gateway",
                2 | 3 => "worker",
                _ => "ops",
            };
            if role == "gateway" {
                address.send_replace(None);
            }
            gate.kill_role(role)?;
            gate.launch_role(role)
                .await
                .with_context(|| format!("start of {role} after kill {}", kill + 1))?;
        } else {
            address.send_replace(None);
            gate.kill()?;
            if dice.random_bool(0.15) {
                early += 1;
                let moment = Duration::from_millis(dice.random_range(0..150));
                gate.launch_and_kill_after(moment).await?;
            }
            gate.launch().await.with_context(|| format!("start after kill {}", kill + 1))?;
        }
        address.send_replace(Some(gate.sftp()?));
    }
    let took = begun.elapsed();

    // What was cut off last gets its chance to be sent again.
    let before = shared.acknowledged();
    until_true(Duration::from_secs(60), "uploads after the last kill", || async {
        Ok(shared.acknowledged() >= before + plan.uploaders)
    })
    .await?;
    shared.stop(uploaders).await?;
    let evidence =
        verify(&gate, &shared.ledger).await.with_context(|| format!("chaos seed {}", plan.seed))?;
    until(Duration::from_secs(90), "blobs without a record to be collected", || async {
        let now = Evidence::read(gate.data())?;
        let orphans = now.orphans();
        ensure!(orphans.is_empty(), "{} of {} blobs: {:?}", orphans.len(), now.blobs.len(), orphans.first());
        Ok(Some(()))
    })
    .await?;
    gate.finish().await?;

    let lines = shared.ledger.lines();
    let refusals = shared.refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Report {
        kills: plan.kills + early,
        early_kills: early,
        begun: lines.len(),
        acknowledged: lines.iter().filter(|l| l.is_acknowledged()).count(),
        refusals: refusals.iter().map(|(text, count)| (text.clone(), *count)).collect(),
        evidence,
        took,
    })
}
