//! How much of the processor the model may have.

use std::time::{Duration, Instant};

/// So much time of the model may be used at once, before its share counts.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Pays for the model's time with a share of the time that goes by.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Of one core, in per cent.
    percent: u32,
    /// When everything used so far will have been paid for.
    paid_at: Instant,
}

impl Allowance {
    pub(super) fn new(percent: u32, now: Instant) -> Self {
        Self { percent: percent.max(1), paid_at: now }
    }

    /// Whether the model may be used now.
    pub(super) fn may_use(&self, now: Instant) -> bool {
        self.paid_at.saturating_duration_since(now) < self.time_to_pay(AT_ONCE)
    }

    /// Notes that it was used for so long.
    pub(super) fn used(&mut self, took: Duration, now: Instant) {
        self.paid_at = self.paid_at.max(now) + self.time_to_pay(took);
    }

    fn time_to_pay(&self, used: Duration) -> Duration {
        used * 100 / self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_then_the_share() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(10, begin);
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        for _ in 0..100 {
            assert!(allowance.may_use(begin));
            allowance.used(Duration::from_millis(10), begin);
        }
        assert!(!allowance.may_use(begin), "a second of use is what may be used at once");
        assert!(allowance.may_use(after(1)), "a second pays for a tenth of it");
        allowance.used(Duration::from_millis(100), after(1));
        assert!(!allowance.may_use(after(1)));
        // Rest is not saved up beyond what may be used at once.
        for _ in 0..100 {
            assert!(allowance.may_use(after(1000)));
            allowance.used(Duration::from_millis(10), after(1000));
        }
        assert!(!allowance.may_use(after(1000)));
    }
}
