//! Jobs that were taken and not settled, by their tags.

use dropgate_schemas::job::Job;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// A job in hand.
pub(super) struct InHand {
    pub(super) job: Job,
    /// How often it was given back on purpose.
    pub(super) given: u32,
    /// The connection it came by.
    pub(super) connection: u64,
    /// The broker's tag for it on that connection.
    pub(super) delivery: u64,
}

/// All jobs in hand: at most so many.
pub(super) struct Held {
    limit: usize,
    jobs: Mutex<Jobs>,
    settled: Notify,
}

#[derive(Default)]
struct Jobs {
    last: u64,
    by_tag: HashMap<u64, InHand>,
    /// Places kept for calls that are under way.
    kept: usize,
}

/// Places for jobs that are about to come.
pub(super) struct Places<'a> {
    held: &'a Held,
    pub(super) count: usize,
}

impl Held {
    pub(super) fn new(limit: u16) -> Self {
        Self { limit: limit.into(), jobs: Mutex::default(), settled: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `wanted` places; waits at most `wait` for the first.
    pub(super) async fn places(&self, wanted: usize, wait: Duration) -> Option<Places<'_>> {
        let waiting = async {
            loop {
                let settled = self.settled.notified();
                if let Some(places) = self.places_now(wanted) {
                    return places;
                }
                settled.await;
            }
        };
        tokio::time::timeout(wait, waiting).await.ok()
    }

    fn places_now(&self, wanted: usize) -> Option<Places<'_>> {
        let mut jobs = self.lock();
        let count = wanted.min(self.limit.saturating_sub(jobs.by_tag.len() + jobs.kept));
        if count == 0 {
            return None;
        }
        jobs.kept += count;
        Some(Places { held: self, count })
    }

    /// Remembers a job and gives it a tag that no other ever had here.
    pub(super) fn insert(&self, job: InHand) -> u64 {
        let mut jobs = self.lock();
        jobs.last += 1;
        let tag = jobs.last;
        jobs.by_tag.insert(tag, job);
        tag
    }

    pub(super) fn remove(&self, tag: u64) -> Option<InHand> {
        let job = self.lock().by_tag.remove(&tag);
        self.settled.notify_waiters();
        job
    }

    /// Forgets what came by other connections than this one: the broker gives it out anew.
    pub(super) fn forget_all_but(&self, connection: u64) {
        self.lock().by_tag.retain(|_, job| job.connection == connection);
        self.settled.notify_waiters();
    }

    pub(super) fn clear(&self) {
        self.lock().by_tag.clear();
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.held.lock().kept -= self.count;
        self.held.settled.notify_waiters();
    }
}
