//! When a failed delivery is tried again.

use crate::config::RetryConfig;
use dropgate_schemas::time::Timestamp;
use rand::RngExt as _;
use std::time::Duration;

/// When to try again after the `attempt`th try (from 1) of a delivery whose first try began at `first`; none if the budget
/// is used up. Full jitter: anything from nothing to the pause of that attempt, so that deliveries that failed together
/// don't come back together. The last try is at the end of the budget.
pub(crate) fn next_attempt(
    config: &RetryConfig,
    attempt: u32,
    first: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let end = first.plus(config.budget_seconds.duration());
    if now >= end {
        return None;
    }
    let longest = longest_pause(config, attempt);
    let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let pause = Duration::from_millis(rand::rng().random_range(0..=millis));
    Some(now.plus(pause).min(end))
}

/// The pause after the `attempt`th try is no longer than this.
fn longest_pause(config: &RetryConfig, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    config.base_seconds.duration().saturating_mul(1 << doublings).min(config.longest_seconds.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_up_to_the_longest_and_end_with_the_budget(attempt in 1_u32..200, elapsed in 0_u64..200_000) {
            let config = RetryConfig::default();
            let first = Timestamp::from_millis(1_000_000);
            let now = first.plus(Duration::from_secs(elapsed));
            let end = first.plus(config.budget_seconds.duration());
            match next_attempt(&config, attempt, first, now) {
                None => prop_assert!(now >= end),
                Some(next) => {
                    prop_assert!(now < end);
                    prop_assert!(next >= now && next <= end);
                    prop_assert!(next.since(now) <= longest_pause(&config, attempt));
                }
            }
            prop_assert!(longest_pause(&config, attempt) <= config.longest_seconds.duration());
            prop_assert!(longest_pause(&config, attempt + 1) >= longest_pause(&config, attempt));
        }
    }

    #[test]
    fn the_first_pauses_are_two_four_eight_seconds_at_most() {
        let config = RetryConfig::default();
        let pauses = [1, 2, 3].map(|attempt| longest_pause(&config, attempt).as_secs());
        assert_eq!(pauses, [2, 4, 8]);
        assert_eq!(longest_pause(&config, 100).as_secs(), 900);
    }

    #[test]
    fn jitter_spreads_over_the_whole_pause() {
        let config = RetryConfig::default();
        let now = Timestamp::from_millis(0);
        let pauses: Vec<u128> = (0..400)
            .filter_map(|_| next_attempt(&config, 4, now, now).map(|next| next.since(now).as_millis()))
            .collect();
        assert!(pauses.iter().any(|ms| *ms < 4_000) && pauses.iter().any(|ms| *ms > 12_000), "{pauses:?}");
    }
}
