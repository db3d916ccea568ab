//! What was read a while ago, for the time that the store it came from is down.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Values as they were last confirmed, each for a limited time after that, and a limited number of them.
#[derive(Debug)]
pub struct Cache<K, V> {
    inner: Mutex<Inner<K, V>>,
    limit: Duration,
    most: usize,
}

#[derive(Debug)]
struct Inner<K, V> {
    entries: HashMap<K, (Instant, V)>,
    /// Counts changes, so that a read that began before one does not bring back what the change took away.
    changes: u64,
}

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    at: Instant,
    changes: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// Keeps values for `limit`, and at most `most` of them.
    #[must_use]
    pub fn new(limit: Duration, most: usize) -> Self {
        Self { inner: Mutex::new(Inner { entries: HashMap::new(), changes: 0 }), limit, most }
    }

    /// To be called before a read.
    #[must_use]
    pub fn begin(&self) -> Began {
        Began { at: Instant::now(), changes: self.lock().changes }
    }

    /// Keeps what the read found; forgets the key if it found nothing. What a read found that began later stays.
    pub fn confirm(&self, began: Began, key: &K, value: Option<&V>) {
        let mut inner = self.lock();
        if inner.entries.get(key).is_some_and(|(at, _)| *at > began.at) {
            return;
        }
        let Some(value) = value.filter(|_| inner.changes == began.changes) else {
            inner.entries.remove(key);
            return;
        };
        if inner.entries.len() >= self.most && !inner.entries.contains_key(key) {
            let limit = self.limit;
            inner.entries.retain(|_, (at, _)| at.elapsed() < limit);
            if inner.entries.len() >= self.most
                && let Some(oldest) =
                    inner.entries.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone())
            {
                inner.entries.remove(&oldest);
            }
        }
        inner.entries.insert(key.clone(), (began.at, value.clone()));
    }

    /// To be called before a change, and after it.
    pub fn forget(&self, key: &K) {
        let mut inner = self.lock();
        inner.changes += 1;
        inner.entries.remove(key);
    }

    /// What was confirmed lately enough.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        match inner.entries.get(key) {
            Some((at, value)) if at.elapsed() < self.limit => Some(value.clone()),
            Some(_) => {
                inner.entries.remove(key);
                None
            }
            None => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_live_so_long_and_are_so_many() {
        let cache = Cache::new(Duration::from_secs(10), 2);
        for key in 0..2 {
            cache.confirm(cache.begin(), &key, Some(&"x"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        cache.confirm(cache.begin(), &2, Some(&"x"));
        assert_eq!(
            [0, 1, 2].map(|key| cache.get(&key).is_some()),
            [false, true, true],
            "the oldest makes room"
        );
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!([1, 2].map(|key| cache.get(&key).is_some()), [false, true]);
        cache.confirm(cache.begin(), &2, None);
        assert_eq!(cache.get(&2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_reads_the_one_that_began_later_counts() {
        let cache = Cache::new(Duration::from_secs(10), 2);
        let earlier = cache.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        cache.confirm(cache.begin(), &1, Some(&"new"));
        cache.confirm(earlier, &1, Some(&"old"));
        assert_eq!(cache.get(&1), Some("new"));
    }

    #[test]
    fn a_read_that_overlaps_a_change_keeps_nothing() {
        let cache = Cache::new(Duration::from_secs(10), 2);
        let began = cache.begin();
        cache.forget(&1);
        cache.confirm(began, &1, Some(&"removed"));
        assert_eq!(cache.get(&1), None);
    }
}
