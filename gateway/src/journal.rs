//! Audit entries that belong to no change of a record: logins, refusals, summaries. They go through a bounded buffer and
//! are committed in batches; repeats of one kind become one entry a minute with a count, so that a stranger can't fill the
//! store.

use crate::sftp::status::Reference;
use dropgate_backends::StateStore;
use dropgate_schemas::{
    audit::AuditEntry,
    change::{Change, Durability, Subject},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// So many entries wait at most, for instance while the state store is down.
pub const CAPACITY: usize = 10_000;
/// Repeats within this time become one entry.
const FOLD: Duration = Duration::from_secs(60);
/// So many kinds of repeats are told apart at a time.
const MAX_FOLDS: usize = 10_000;
/// Entries in one commit.
const BATCH: usize = 200;
/// How long an entry waits for others to share its commit.
const LINGER: Duration = Duration::from_millis(100);
/// How long to wait after the store failed.
const RETRY: Duration = Duration::from_secs(1);

/// The buffer.
pub struct Journal {
    state: Arc<dyn StateStore>,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<AuditEntry>,
    folds: HashMap<Kind, Fold>,
    lost: u64,
}

/// What makes two entries repeats of each other.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    who: String,
    action: dropgate_schemas::audit::Action,
    request: Option<String>,
    reason: Option<String>,
}

struct Fold {
    since: Instant,
    reference: Reference,
    /// Repeats after the first, with the last of them.
    repeats: Option<(u64, AuditEntry)>,
}

impl Journal {
    /// A buffer in front of `state`.
    #[must_use]
    pub fn new(state: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self { state, inner: Mutex::default(), wake: Notify::new() })
    }

    /// Whether nothing more fits: logins are then answered "try again later", since none may go unrecorded.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.inner().waiting.len() >= CAPACITY
    }

    /// Takes an entry. Never waits.
    pub fn note(&self, entry: AuditEntry) {
        let mut inner = self.inner();
        inner.push(entry);
        drop(inner);
        self.wake.notify_one();
    }

    /// Takes an entry about a refusal or a failed login, folding repeats, and returns the reference under which it is
    /// found.
    pub fn refuse(&self, mut entry: AuditEntry) -> Reference {
        let who = entry.session.map(|s| s.to_string()).or_else(|| entry.source.clone()).unwrap_or_default();
        let kind =
            Kind { who, action: entry.action, request: entry.request.clone(), reason: entry.reason.clone() };
        let mut inner = self.inner();
        if let Some(fold) = inner.folds.get_mut(&kind)
            && fold.since.elapsed() < FOLD
        {
            let reference = fold.reference;
            entry.reference = Some(reference.to_string());
            let count = fold.repeats.as_ref().map_or(0, |(n, _)| *n) + 1;
            fold.repeats = Some((count, entry));
            return reference;
        }
        let reference = Reference::new();
        entry.reference = Some(reference.to_string());
        if let Some(Fold { repeats: Some((count, last)), .. }) = inner.folds.remove(&kind) {
            inner.push(AuditEntry { count, ..last });
        }
        if inner.folds.len() < MAX_FOLDS {
            inner.folds.insert(kind, Fold { since: Instant::now(), reference, repeats: None });
        }
        inner.push(entry);
        drop(inner);
        self.wake.notify_one();
        reference
    }

    /// Commits what comes in until `stop`, and then what is left.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => true,
                () = self.wake.notified() => { tokio::time::sleep(LINGER).await; false }
                () = tokio::time::sleep(FOLD / 6) => false,
            };
            self.inner().settle_folds(ended);
            while let Some(batch) = self.next_batch() {
                let change = Change {
                    subject: Subject::None,
                    audit: batch.clone(),
                    outbox: vec![],
                    durability: Durability::Visible,
                };
                if let Err(error) = self.state.apply(change).await {
                    tracing::error!(%error, entries = batch.len(), "audit entries can't be stored; they wait in memory");
                    self.give_back(batch);
                    if ended {
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
            if ended {
                return;
            }
            if !self.inner().waiting.is_empty() {
                self.wake.notify_one();
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<AuditEntry>> {
        let mut inner = self.inner();
        let n = BATCH.min(inner.waiting.len());
        (n > 0).then(|| inner.waiting.drain(..n).collect())
    }

    fn give_back(&self, batch: Vec<AuditEntry>) {
        let mut inner = self.inner();
        for entry in batch.into_iter().rev() {
            inner.waiting.push_front(entry);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, entry: AuditEntry) {
        if self.waiting.len() < CAPACITY {
            self.waiting.push_back(entry);
        } else {
            self.lost += 1;
            if self.lost.is_power_of_two() {
                tracing::error!(
                    lost = self.lost,
                    "the audit buffer is full and the state store does not take entries"
                );
            }
        }
    }

    /// Writes out folds whose time is over (all of them at the end).
    fn settle_folds(&mut self, all: bool) {
        let over: Vec<Kind> = self
            .folds
            .iter()
            .filter(|(_, f)| all || f.since.elapsed() >= FOLD)
            .map(|(k, _)| k.clone())
            .collect();
        for kind in over {
            if let Some(Fold { repeats: Some((count, last)), .. }) = self.folds.remove(&kind) {
                self.push(AuditEntry { count, ..last });
            }
        }
    }
}
