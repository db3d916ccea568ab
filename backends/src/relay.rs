//! Steps 7 and 11 of the road: what follows from a change, and only from a change, happens here.
//!
//! ```text
//! outbox ─ job ───────> JobQueue
//!        ─ event ─────> event log ──by cursor──> EventPublisher
//!                                 ──by cursor──> each Subscriber
//!        ─ supersede ─> apply(Change) on the older version
//! ```
//!
//! Each arrow is a lane of its own that repeats one step: read what is due, do it, mark it. A step that fails, or a crash
//! between doing and marking, means that the step is done again: jobs are doorbells, an event keeps its id and its
//! place in the log, superseding is a compare-and-set. One relay is active at a time, by lease; the conditions of the
//! store, and not the lease, keep things right should there be two.

mod event;
mod job;
mod lane;
mod ring;
mod subscriber;
mod supersede;
#[cfg(test)]
mod tests;

pub use ring::{Ringer, ring};

use crate::{Backends, instance::Identity, state::StateError};
use dropgate_schemas::{id::InstanceId, time::Timestamp};
use lane::{Lane, Signal};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Name of the lease that makes a relay the active one.
pub const LEASE: &str = "relay";
/// A relay that did not renew its lease for so long is no longer the active one.
const LEASE_TTL: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Longest wait between two looks at the store.
const IDLE: Duration = Duration::from_secs(1);
/// Shortest time between two looks: while one change follows the other, a step handles many.
const GATHER: Duration = Duration::from_millis(20);
/// Entries a step handles at most.
const BATCH: usize = 256;

/// The relay of one process.
#[derive(Debug)]
pub struct Relay {
    backends: Backends,
    holder: InstanceId,
    node: String,
}

impl Relay {
    /// A relay that runs for `identity`.
    #[must_use]
    pub fn new(backends: Backends, identity: &Identity) -> Self {
        Self { backends, holder: identity.id(), node: identity.audit_node() }
    }

    /// Relays until `shutdown`, whenever it can get the lease; finishes the step it is in, if that is soon, and gives
    /// the lease back.
    pub async fn run(self, shutdown: CancellationToken) {
        let (signals, _) = watch::channel(Signal::default());
        // One for the publisher and one for each subscriber: a call that nobody waits for is kept for the one it is for.
        let logged: Vec<Notify> =
            std::iter::repeat_with(Notify::new).take(1 + self.backends.subscribers.len()).collect();
        let Some((publisher, others)) = logged.split_first() else { return };
        let fresh = event::Fresh::default();
        let stopped = CancellationToken::new();
        let lane = |name| Lane::new(name, signals.subscribe(), stopped.clone());
        let lead = async {
            self.lead(&signals, &shutdown).await;
            stopped.cancel();
        };
        let started = Timestamp::now();
        let subscribers = self.backends.subscribers.iter().zip(others).map(|(subscriber, logged)| {
            let telling =
                subscriber::Telling::new(self.backends.state.as_ref(), subscriber.as_ref(), logged, started);
            lane("webhook").run(telling)
        });
        tokio::join!(
            lead,
            futures::future::join_all(subscribers),
            lane("jobs").run(job::Ringing(&self.backends)),
            lane("event log").run(event::Logging {
                backends: &self.backends,
                logged: &logged,
                fresh: &fresh,
            }),
            lane("events").run(event::Publishing {
                backends: &self.backends,
                logged: publisher,
                progress: event::Progress::default(),
                fresh: &fresh,
            }),
            lane("supersede").run(supersede::Superseding { state: &self.backends.state, node: &self.node }),
        );
        if let Err(error) = self.backends.state.release_lease(LEASE, self.holder).await {
            tracing::warn!(%error, "the relay could not give its lease back; another takes over when it runs out");
        }
    }

    /// Keeps the lease and tells the lanes when to look.
    async fn lead(&self, signals: &watch::Sender<Signal>, shutdown: &CancellationToken) {
        let mut renewed: Option<Instant> = None;
        let mut looked: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            if renewed.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
                renewed = match self.backends.state.lease(LEASE, self.holder, LEASE_TTL).await {
                    Ok(token) => {
                        signals.send_if_modified(|signal| signal.set_term(token));
                        token.map(|_| Instant::now())
                    }
                    Err(error) => {
                        // Still the active one as far as anybody knows, until the lease has run out.
                        tracing::warn!(%error, "the relay could not renew its lease");
                        let kept = renewed.filter(|at| at.elapsed() < LEASE_TTL);
                        if kept.is_none() {
                            signals.send_if_modified(|signal| signal.set_term(None));
                        }
                        kept
                    }
                };
            }
            let wait = match renewed {
                Some(_) => self.next_due().await.unwrap_or(IDLE).min(IDLE),
                None => IDLE,
            };
            let change = async {
                if renewed.is_some() {
                    self.backends.state.changed(wait).await;
                    if let Some(at) = looked {
                        tokio::time::sleep(GATHER.saturating_sub(at.elapsed())).await;
                    }
                    looked = Some(Instant::now());
                    signals.send_modify(Signal::look);
                } else {
                    tokio::time::sleep(wait).await;
                }
            };
            shutdown.run_until_cancelled(change).await;
        }
    }

    /// How long until an entry becomes due.
    async fn next_due(&self) -> Result<Duration, StateError> {
        let due = self.backends.state.outbox_next_due().await?;
        Ok(due.map_or(IDLE, |due| due.since(Timestamp::now())))
    }
}
