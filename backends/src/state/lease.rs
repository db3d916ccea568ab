//! What a process has seen of leases that others hold.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What this process has seen of leases that others hold: one entry a name, and names are few and fixed.
#[derive(Default)]
pub(super) struct Observed(Mutex<HashMap<String, Seen>>);

#[derive(Clone, Copy)]
struct Seen {
    lease: Held,
    since: Instant,
}

/// A lease as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The holder's id.
    pub(super) holder: [u8; 16],
    /// How often it was renewed.
    pub(super) renewed: i64,
}

impl Observed {
    /// The state of the lease that was seen to stand still for `ttl` or longer.
    pub(super) fn expired(&self, name: &str, ttl: Duration) -> Option<Held> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(name).filter(|seen| seen.since.elapsed() >= ttl).map(|seen| seen.lease)
    }

    /// The lease is held like this now.
    pub(super) fn note(&self, name: &str, lease: Held) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.entry(name.to_owned()).or_insert(Seen { lease, since: Instant::now() });
        if entry.lease != lease {
            *entry = Seen { lease, since: Instant::now() };
        }
    }

    /// The lease is our own.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
