//! A connection with one channel that is always there or being made anew: by our own loop, with a growing pause, for the
//! client's own recovery has been seen to hang.

use super::{Failure, Kind, Server};
use async_trait::async_trait;
use futures::{StreamExt as _, future::Either};
use lapin::{Channel, Connection, Event, options::ConfirmSelectOptions};
use rand::RngExt as _;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A connection that lived so long begins anew with short pauses.
const STEADY: Duration = Duration::from_secs(10);
/// Longest wait for the broker while something is declared.
const SETUP: Duration = Duration::from_secs(10);
/// Longest wait for a polite end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The exchanges and queues that a connection needs.
#[async_trait]
pub(crate) trait Topology: Send + Sync + 'static {
    /// Makes them, or finds them as they must be.
    async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error>;

    /// Makes sure that those are there that are published to, without the right to make any.
    async fn find(&self, channel: &Channel) -> Result<(), lapin::Error>;
}

/// A connection that was there when it was looked at.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) channel: Channel,
    pub(crate) connection: Arc<Connection>,
    /// Tells it from those before and after it.
    pub(crate) number: u64,
    broken: CancellationToken,
}

impl Live {
    /// Has the connection made anew.
    pub(crate) fn is_broken(&self) {
        self.broken.cancel();
    }

    /// Ends when the connection is given up.
    pub(crate) async fn ended(&self) {
        self.broken.cancelled().await;
    }

    /// Whether the broker has told us to stop publishing.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }
}

#[derive(Clone)]
enum Phase {
    Connecting,
    Up(Live),
    Down(Failure),
}

impl Phase {
    /// The connection, if there is one and nobody has given it up.
    fn live(&self) -> Option<Live> {
        match self {
            Self::Up(live) if !live.broken.is_cancelled() => Some(live.clone()),
            Self::Up(_) | Self::Connecting | Self::Down(_) => None,
        }
    }
}

/// See the module. Ends with its last handle.
#[derive(Clone)]
pub(crate) struct Link {
    phase: watch::Receiver<Phase>,
    stop: CancellationToken,
    task: TaskTracker,
    _stop_at_last: Arc<DropGuard>,
}

impl Link {
    /// Starts connecting.
    pub(crate) fn start(server: Arc<Server>, purpose: &'static str, topology: impl Topology) -> Self {
        let (sender, phase) = watch::channel(Phase::Connecting);
        let stop = CancellationToken::new();
        let task = TaskTracker::new();
        let keeper =
            Keeper { server, purpose, topology: Box::new(topology), phase: sender, stop: stop.clone() };
        task.spawn(keeper.run());
        task.close();
        Self { phase, task, _stop_at_last: Arc::new(stop.clone().drop_guard()), stop }
    }

    /// The connection; if there is none, waits at most `patience` for it, and says what was wrong the last time.
    pub(crate) async fn live(&self, patience: Duration) -> Result<Live, Failure> {
        let mut phase = self.phase.clone();
        let up = async {
            loop {
                if let Some(live) = phase.borrow_and_update().live() {
                    return Some(live);
                }
                if phase.changed().await.is_err() {
                    return None;
                }
            }
        };
        if let Ok(Some(live)) = timeout(patience, up).await {
            return Ok(live);
        }
        Err(match &*self.phase.borrow() {
            Phase::Down(failure) => failure.clone(),
            Phase::Connecting | Phase::Up(_) => Failure::new(Kind::Away, "no connection yet"),
        })
    }

    /// The outcome of the first attempt; none if there is none within `patience`.
    pub(crate) async fn first(&self, patience: Duration) -> Option<Result<Live, Failure>> {
        let mut phase = self.phase.clone();
        let over = phase.wait_for(|phase| !matches!(phase, Phase::Connecting));
        match timeout(patience, over).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Up(live) => Some(Ok(live.clone())),
                Phase::Down(failure) => Some(Err(failure.clone())),
                Phase::Connecting => None,
            },
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The connection, if it is there now.
    pub(crate) fn now(&self) -> Option<Live> {
        self.phase.borrow().live()
    }

    /// Ends the connection politely.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.task.wait().await;
    }
}

struct Keeper {
    server: Arc<Server>,
    purpose: &'static str,
    topology: Box<dyn Topology>,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep()).await;
        let last =
            self.phase.send_replace(Phase::Down(Failure::new(Kind::Away, "the connection was closed")));
        if let Phase::Up(live) = last {
            live.is_broken();
            let _ = timeout(FAREWELL, live.connection.close(200, "closing".into())).await;
        }
    }

    async fn keep(&self) {
        let mut failures = 0_u32;
        let mut told: Option<String> = None;
        for number in 0_u64.. {
            let attempt = match self.attempt(number).await {
                Ok(live) => {
                    let since = Instant::now();
                    if told.take().is_some() {
                        tracing::info!(
                            broker = self.server.address(),
                            purpose = self.purpose,
                            "connected again"
                        );
                    }
                    self.phase.send_replace(Phase::Up(live.clone()));
                    let failure = watch_over(&live).await;
                    live.is_broken();
                    if since.elapsed() >= STEADY {
                        failures = 0;
                    }
                    self.phase.send_replace(Phase::Down(failure.clone()));
                    // Whoever is cut off in the middle of a word does not matter: all of it is asked again.
                    let _ = timeout(FAREWELL, live.connection.close(200, "making a new one".into())).await;
                    failure
                }
                Err(failure) => {
                    self.phase.send_replace(Phase::Down(failure.clone()));
                    failure
                }
            };
            if told.as_ref() != Some(&attempt.said) {
                tracing::warn!(broker = self.server.address(), purpose = self.purpose, error = %attempt,
                    "no connection to the broker, trying again");
                told = Some(attempt.said);
            }
            tokio::time::sleep(pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn attempt(&self, number: u64) -> Result<Live, Failure> {
        let connection = self.server.connect(self.purpose).await?;
        let opening = timeout(SETUP, self.set_up(&connection)).await;
        match opening {
            Ok(Ok(channel)) => Ok(Live {
                channel,
                connection: Arc::new(connection),
                number,
                broken: CancellationToken::new(),
            }),
            Ok(Err(failure)) => {
                let _ = timeout(FAREWELL, connection.close(200, "not usable".into())).await;
                Err(failure)
            }
            Err(_) => Err(Failure::new(Kind::Away, format!("no answer within {} s", SETUP.as_secs()))),
        }
    }

    /// Declares on a channel of its own, for a refusal ends it.
    async fn set_up(&self, connection: &Connection) -> Result<Channel, Failure> {
        let channel = connection.create_channel().await?;
        match self.topology.declare(&channel).await.map_err(Failure::from) {
            Ok(()) => channel.close(200, "declared".into()).await?,
            Err(failure) if failure.kind == Kind::Denied => {
                let channel = connection.create_channel().await?;
                self.topology.find(&channel).await.map_err(|error| {
                    let found = Failure::from(error);
                    let said = format!("{}, and this user may not make it ({})", found.said, failure.said);
                    Failure::new(found.kind, said)
                })?;
                channel.close(200, "found".into()).await?;
            }
            Err(failure) => return Err(failure),
        }
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }
}

/// Returns what ended a connection.
async fn watch_over(live: &Live) -> Failure {
    let mut events = Box::pin(live.connection.events_listener());
    loop {
        match futures::future::select(events.next(), Box::pin(live.broken.cancelled())).await {
            Either::Left((Some(Event::Error(error)), _)) => return Failure::from(&error),
            Either::Left((Some(Event::ConnectionBlocked(why)), _)) => {
                tracing::warn!(why, "the broker takes no messages for now");
            }
            Either::Left((Some(Event::ConnectionUnblocked), _)) => {
                tracing::info!("the broker takes messages again");
            }
            Either::Left((Some(_), _)) => {}
            Either::Left((None, _)) => return Failure::new(Kind::Away, "the connection ended"),
            Either::Right(_) => return Failure::new(Kind::Away, "the connection was given up"),
        }
    }
}

/// Full jitter below a cap that doubles with each failure.
fn pause(failures: u32) -> Duration {
    let cap = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
    cap.mul_f64(rand::rng().random_range(0.5..=1.0))
}
