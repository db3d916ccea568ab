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
/// So many of them belong to one session (before login: one source). What a client is refused beyond that is counted
/// together, whatever it was: by asking for ever new names it could fill the buffer, and with it everybody's way in.
const MAX_KINDS: usize = 50;
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
    /// How many folds each session or source has.
    kinds: HashMap<String, usize>,
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
        let kind = inner.fold_into(kind);
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
        inner.end_fold(&kind);
        inner.begin_fold(kind, Fold { since: Instant::now(), reference, repeats: None });
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
    /// The kind itself, or a wider one if too many are told apart.
    fn fold_into(&self, kind: Kind) -> Kind {
        if self.folds.contains_key(&kind) {
            return kind;
        }
        let wide = |who: String| Kind { who, action: kind.action, request: None, reason: None };
        let of_this_one = self.kinds.get(&kind.who).copied().unwrap_or(0);
        if self.folds.len() >= MAX_FOLDS {
            wide(String::new())
        } else if of_this_one >= MAX_KINDS {
            wide(kind.who)
        } else {
            kind
        }
    }

    fn begin_fold(&mut self, kind: Kind, fold: Fold) {
        *self.kinds.entry(kind.who.clone()).or_default() += 1;
        self.folds.insert(kind, fold);
    }

    /// Writes out the repeats of a fold, if there were any.
    fn end_fold(&mut self, kind: &Kind) {
        let Some(fold) = self.folds.remove(kind) else { return };
        if let Some(kinds) = self.kinds.get_mut(&kind.who) {
            *kinds = kinds.saturating_sub(1);
            if *kinds == 0 {
                self.kinds.remove(&kind.who);
            }
        }
        if let Some((count, last)) = fold.repeats {
            self.push(AuditEntry { count, ..last });
        }
    }

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
            self.end_fold(&kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_backends::{Backends, config::BackendsConfig};
    use dropgate_schemas::{
        audit::{Action, Actor, AuditResult},
        id::SessionId,
    };

    #[tokio::test]
    async fn a_client_that_is_refused_ever_new_things_does_not_fill_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::open(&BackendsConfig::default(), dir.path()).await.unwrap();
        let journal = Journal::new(backends.state);
        let refused = |session: SessionId, n: u64| {
            let actor = Actor::System { id: "test".to_owned() };
            let mut entry = AuditEntry::new(Action::RequestRefuse, actor, AuditResult::Refused);
            entry.session = Some(session);
            entry.reason = Some(format!("/upload/{n} does not exist"));
            entry
        };
        let session = SessionId::new();
        for n in 0..20_000 {
            journal.refuse(refused(session, n));
        }
        assert!(!journal.is_full());
        assert_eq!(journal.inner().waiting.len(), MAX_KINDS + 1, "each kind once, and the rest together");
        // Nothing is left out of the count, and others are told apart as before.
        let other = SessionId::new();
        let reference = journal.refuse(refused(other, 1));
        assert_eq!(journal.refuse(refused(other, 1)), reference);
        journal.inner().settle_folds(true);
        let counted: u64 = journal.inner().waiting.iter().map(|entry| entry.count).sum();
        assert_eq!(counted, 20_000 + 2);
        assert!(journal.inner().kinds.is_empty());
        // From ever new sessions, too.
        journal.inner().waiting.clear();
        for n in 0..2 * MAX_FOLDS as u64 {
            journal.refuse(refused(SessionId::new(), n));
        }
        assert_eq!(journal.inner().folds.len(), MAX_FOLDS + 1);
        assert_eq!(journal.inner().kinds.len(), MAX_FOLDS + 1);
    }
}
