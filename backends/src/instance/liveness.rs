//! Who is dead, as one observer sees it: a heartbeat counter that did not move for long enough on the observer's own
//! monotonic clock. Wall clocks of different hosts are never compared.

use super::HEARTBEAT;
use crate::state::Instance;
use dropgate_schemas::id::InstanceId;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// After this long without a heartbeat the uploads that an instance was receiving may be taken over.
pub const OWNER_TTL: Duration = Duration::from_secs(15);
/// After this long without a heartbeat the deliveries that an instance had claimed may be taken over.
pub const CLAIM_TTL: Duration = Duration::from_secs(20);

/// A gap between two observations counts for no more than this: while the store was away nobody could beat, and that must
/// not make everyone dead.
const LONGEST_GAP: Duration = Duration::from_secs(2 * HEARTBEAT.as_secs());

/// What one observer knows of the other instances. [`super::heartbeat`] keeps it up to date.
#[derive(Debug, Default)]
pub struct Liveness(Mutex<Observed>);

#[derive(Debug, Default)]
struct Observed {
    last: Option<Instant>,
    /// For how long the observer has looked.
    looked: Duration,
    instances: HashMap<InstanceId, Seen>,
}

#[derive(Debug)]
struct Seen {
    beats: u64,
    silent: Duration,
}

impl Liveness {
    /// An observer that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of the counters as they stand now. Forgets instances that are no longer listed.
    pub fn observe(&self, instances: &[Instance]) {
        self.observe_at(instances, Instant::now());
    }

    /// Whether an instance was seen silent for at least `ttl`. One that the store doesn't list is as silent as the observer
    /// has looked.
    #[must_use]
    pub fn is_dead(&self, id: InstanceId, ttl: Duration) -> bool {
        let observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        observed.instances.get(&id).map_or(observed.looked, |seen| seen.silent) >= ttl
    }

    fn observe_at(&self, instances: &[Instance], now: Instant) {
        let mut observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = observed.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let gap = gap.min(LONGEST_GAP);
        observed.last = Some(now);
        observed.looked += gap;
        observed.instances.retain(|id, _| instances.iter().any(|i| i.id == *id));
        for instance in instances {
            let fresh = Seen { beats: instance.beats, silent: Duration::ZERO };
            match observed.instances.get_mut(&instance.id) {
                Some(seen) if seen.beats == instance.beats => seen.silent += gap,
                Some(seen) => *seen = fresh,
                None => {
                    observed.instances.insert(instance.id, fresh);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_schemas::time::Timestamp;

    fn instance(id: InstanceId, beats: u64) -> Instance {
        let seen_at = Timestamp::from_millis(0);
        Instance { id, role: "worker".into(), node: "n".into(), beats, seen_at }
    }

    fn watch(id: InstanceId, script: &[(u64, Option<u64>)]) -> Liveness {
        let start = Instant::now();
        let liveness = Liveness::new();
        for (second, beats) in script {
            let listed: Vec<_> = beats.iter().map(|b| instance(id, *b)).collect();
            liveness.observe_at(&listed, start + Duration::from_secs(*second));
        }
        liveness
    }

    #[test]
    fn silence_is_measured_from_the_last_move_the_observer_saw() {
        let id = InstanceId::new();
        assert!(!watch(id, &[]).is_dead(id, OWNER_TTL), "nothing was observed yet");
        let still = [(0, Some(7)), (5, Some(8)), (10, Some(8)), (15, Some(8)), (20, Some(8)), (25, Some(8))];
        assert!(!watch(id, &still[..4]).is_dead(id, OWNER_TTL));
        assert!(watch(id, &still[..5]).is_dead(id, OWNER_TTL));
        assert!(!watch(id, &still[..5]).is_dead(id, CLAIM_TTL));
        assert!(watch(id, &still).is_dead(id, CLAIM_TTL));
    }

    #[test]
    fn a_counter_that_moved_in_either_direction_is_life() {
        let id = InstanceId::new();
        let back = [(0, Some(7)), (10, Some(7)), (20, Some(7)), (25, Some(1))];
        assert!(!watch(id, &back).is_dead(id, OWNER_TTL));
    }

    #[test]
    fn a_time_in_which_nobody_looked_kills_nobody() {
        let id = InstanceId::new();
        assert!(!watch(id, &[(0, Some(7)), (3600, Some(7))]).is_dead(id, OWNER_TTL));
        assert!(watch(id, &[(0, Some(7)), (3600, Some(7)), (3605, Some(7))]).is_dead(id, OWNER_TTL));
    }

    #[test]
    fn an_instance_that_is_not_listed_is_dead_after_the_observer_looked_for_long_enough() {
        let id = InstanceId::new();
        assert!(!watch(id, &[(0, None), (10, None)]).is_dead(id, CLAIM_TTL));
        assert!(watch(id, &[(0, None), (10, None), (20, None)]).is_dead(id, CLAIM_TTL));
    }
}
