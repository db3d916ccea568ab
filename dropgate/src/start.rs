//! `dropgate run|gateway|worker|ops`: puts roles together, waits for the signal, drains.
//!
//! The order at the start is the order in which mistakes are cheap: settings, stores, locks, listeners, and only then work.

mod first;
mod ports;
mod ready;
mod signals;
mod welcome;

use crate::{
    cli::{Global, Start},
    commands::hostkey,
    config::{Config, Loaded, Problems},
};
use anyhow::{Context as _, bail};
use dropgate_backends::{
    Backends, Identity, Relay, Role,
    instance::{Liveness, heartbeat},
};
use dropgate_gateway::{Gateway, GatewayError, listener::ListenerError};
use dropgate_ops::Probe;
use dropgate_workers::{Setup, Workers};
use ready::Ready;
use signals::Signals;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use welcome::{Again, Welcome};

/// The roles of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roles {
    /// `run`.
    All,
    /// `gateway`, `worker` or `ops`.
    One(Role),
}

impl Roles {
    fn has(self, role: Role) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == role,
        }
    }

    fn list(self) -> Vec<Role> {
        [Role::Gateway, Role::Worker, Role::Ops].into_iter().filter(|role| self.has(*role)).collect()
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &["gateway", "worker", "ops"],
            Self::One(Role::Gateway) => &["gateway"],
            Self::One(Role::Worker) => &["worker"],
            Self::One(Role::Ops) => &["ops"],
        }
    }
}

/// Drains take at most the longest configured drain and this much more; then the process ends all the same.
const SPARE: Duration = Duration::from_secs(15);

/// Runs the roles until a signal comes or one of them can't go on.
///
/// # Errors
/// What kept the process from starting, or from ending in good order.
pub(crate) async fn run(roles: Roles, start: &Start, global: &Global) -> anyhow::Result<()> {
    let loaded = Loaded::read(global, start)?;
    crate::logging::start(&loaded.config.log).map_err(crate::exit::Usage)?;
    // From here on a signal asks for an orderly end, also in the middle of the start.
    let mut signals = Signals::listen()?;
    let backends =
        Backends::open_for(&roles.list(), &loaded.config.backends, &loaded.config.data_dir).await?;
    let welcome = Welcome::new(Again::of(global));
    let ended = serve(roles, &loaded, &backends, welcome, &mut signals).await;
    let closed = tokio::time::timeout(SPARE, backends.close()).await;
    ended?;
    closed.context("the stores did not close in time; nothing that was answered OK is lost")
}

async fn serve(
    roles: Roles,
    loaded: &Loaded,
    backends: &Backends,
    mut welcome: Welcome,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let config = &loaded.config;
    let running = Running::default();
    let ready_file = ready::file(&config.data_dir, roles);
    // What a killed process left must not be taken for this one's.
    ready::remove(&ready_file)?;

    let mut ready = Ready::default();
    let ops = match roles.has(Role::Ops) {
        true => Some(bind("ops.listen", config.ops.listen, loaded).await?),
        false => None,
    };
    let health = match config.ops.health_listen {
        Some(address) => Some(bind("ops.health_listen", address, loaded).await?),
        None => None,
    };
    ready.ops = ops.as_ref().map(TcpListener::local_addr).transpose()?;
    ready.health = health.as_ref().map(TcpListener::local_addr).transpose()?;

    // A process takes each of its roles before it begins with any.
    let gateway = claim(roles, Role::Gateway, config)?;
    let worker = claim(roles, Role::Worker, config)?;
    let ops_identity = claim(roles, Role::Ops, config)?;

    let mut drains = Vec::new();
    if let Some(identity) = gateway {
        let (host_keys, made) = hostkey::load_or_make(config, backends).await?;
        if roles == Roles::All {
            welcome.account = first::account(config, backends).await?;
        }
        let peers = running.beat(backends, &identity);
        let bound = Gateway::bind(
            &config.gateway,
            backends.clone(),
            &identity,
            peers,
            host_keys.clone(),
            running.stop.clone(),
        );
        let gateway = bound.await.map_err(|error| taken(error, loaded))?;
        let address = gateway.local_addr();
        ready.sftp = Some(address);
        ready.more_sftp = gateway.more_local_addrs();
        welcome.sftp(address, &host_keys, made);
        drains.push(config.gateway.listener.drain_seconds);
        running.task("gateway", gateway.serve(running.stop.clone()));
    }
    if let Some(identity) = worker {
        let peers = running.beat(backends, &identity);
        let relay = Relay::new(backends.clone(), &identity);
        let (destinations, routes) =
            dropgate_workers::config::or_embedded(config.destination.clone(), config.route.clone())?;
        let setup = Setup {
            config: config.workers.clone(),
            destinations,
            routes,
            data_dir: config.data_dir.clone(),
            ..Setup::default()
        };
        let started = Workers::start(setup, backends.clone(), identity, peers, running.stop.clone());
        let workers = started.await.map_err(|problems| place(problems, loaded))?;
        drains.push(config.workers.drain_seconds.duration().as_secs());
        running.task("relay", relay.run(running.stop.clone()));
        running.task("worker", workers.drained());
        welcome.deliveries(config);
    }
    if let Some(identity) = ops_identity {
        let _ = running.beat(backends, &identity);
    }
    let probe = Probe { backends: backends.clone(), roles: roles.names(), draining: running.stop.clone() };
    let ops = ops.map(|listener| (listener, dropgate_ops::all_routes(probe.clone())));
    let health = health.map(|listener| (listener, dropgate_ops::health_routes(probe)));
    for (listener, routes) in ops.into_iter().chain(health) {
        running.observer(dropgate_ops::serve(listener, routes, running.last.clone()));
    }
    ready.write(&ready_file)?;
    welcome.print(roles, &ready, config)?;
    tracing::info!(roles = roles.names().join(","), data_dir = %config.data_dir.display(), "ready");

    let ended = running.until(signals).await;
    let longest = Duration::from_secs(drains.into_iter().max().unwrap_or(0)) + SPARE;
    let drained = running.drain(longest, signals).await;
    ready::remove(&ready_file)?;
    ended.and(drained)
}

/// The tasks of the process and what ends them.
#[derive(Default)]
struct Running {
    /// No new work.
    stop: CancellationToken,
    /// The end of what tells others how the process is.
    last: CancellationToken,
    /// A role ended by itself.
    ended: CancellationToken,
    work: TaskTracker,
    observers: TaskTracker,
}

impl Running {
    /// Runs a part of a role. If it ends before it is told to, the process ends too, in good order.
    fn task(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        self.work.spawn(async move {
            let result = tokio::spawn(part).await;
            if let Err(error) = &result {
                tracing::error!(%error, part = name, "a part of the process broke");
            }
            if !stop.is_cancelled() {
                tracing::error!(part = name, "a part of the process ended by itself; the process ends too");
                ended.cancel();
            }
        });
    }

    fn observer(&self, part: impl Future<Output = ()> + Send + 'static) {
        self.observers.spawn(part);
    }

    /// Says regularly that the role lives, until all work is done, and notices who else does.
    fn beat(&self, backends: &Backends, identity: &Arc<Identity>) -> Arc<Liveness> {
        let peers = Arc::new(Liveness::new());
        let state = Arc::clone(&backends.state);
        self.observer(heartbeat(state, Arc::clone(identity), Arc::clone(&peers), self.last.clone()));
        peers
    }

    /// Waits for the signal to end.
    async fn until(&self, signals: &mut Signals) -> anyhow::Result<()> {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping: no new work; a second signal ends at once");
                Ok(())
            }
            () = self.ended.cancelled() => {
                bail!("a part of the process ended by itself: the log above says which and why")
            }
        }
    }

    /// Takes no new work and lets what is under way finish. A second signal ends the process at once.
    async fn drain(&self, longest: Duration, signals: &mut Signals) -> anyhow::Result<()> {
        self.stop.cancel();
        self.work.close();
        let drained = tokio::select! {
            drained = tokio::time::timeout(longest, self.work.wait()) => drained,
            name = signals.next() => {
                tracing::warn!(signal = name, "second signal: ending at once");
                signals.end_at_once(name)
            }
        };
        self.last.cancel();
        self.observers.close();
        let _ = tokio::time::timeout(SPARE, self.observers.wait()).await;
        drained.with_context(|| {
            format!("work was still under way after {} s; the next start goes on with it", longest.as_secs())
        })
    }
}

fn claim(roles: Roles, role: Role, config: &Config) -> anyhow::Result<Option<Arc<Identity>>> {
    if !roles.has(role) {
        return Ok(None);
    }
    Ok(Some(Arc::new(Identity::claim(&config.data_dir, role)?)))
}

async fn bind(key: &str, address: SocketAddr, loaded: &Loaded) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => bail!(ports::explain(key, address, &error, loaded)),
    }
}

/// Says of an address that can't be had which key names it and who has it.
fn taken(error: GatewayError, loaded: &Loaded) -> anyhow::Error {
    match error {
        GatewayError::Listener(ListenerError::Bind { address, source }) => {
            let gateway = &loaded.config.gateway;
            let key = match gateway.more_listeners.iter().position(|more| more.listen == address) {
                Some(place) if gateway.listener.listen != address => {
                    format!("gateway.more_listeners[{}].listen", place + 1)
                }
                _ => "gateway.listener.listen".to_owned(),
            };
            anyhow::anyhow!(ports::explain(&key, address, &source, loaded))
        }
        GatewayError::Listener(ListenerError::Setting(setting)) => {
            Problems::from(vec![loaded.placed_setting("gateway.listener", setting)]).into()
        }
        other @ (GatewayError::Listener(ListenerError::HostKey(_)) | GatewayError::Recovery(_)) => {
            other.into()
        }
    }
}

fn place(problems: Vec<dropgate_workers::Problem>, loaded: &Loaded) -> anyhow::Error {
    Problems::from(problems.into_iter().map(|problem| loaded.placed(problem)).collect::<Vec<_>>()).into()
}
