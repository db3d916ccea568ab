//! A destination that does not answer is left alone for a while, so that no try is burnt on it and no worker waits for it.

use crate::config::BreakerConfig;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One destination's breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    pause: Duration,
    /// Set while it is open: when one try may find out how things stand.
    until: Option<Instant>,
    probing: bool,
}

/// The right to make one try. What it taught is told by [`Self::worked`] and [`Self::failed`]; dropped without either, it
/// taught nothing.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        let pause = config.pause_seconds.duration();
        Self { config, state: Mutex::new(State { failures: 0, pause, until: None, probing: false }) }
    }

    /// Asks for a try; otherwise tells how long to wait before asking again.
    pub(crate) fn admit(&self) -> Result<Permit<'_>, Duration> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            None => Ok(Permit { breaker: self, probe: false }),
            Some(until) if until > now => Err(until - now),
            Some(_) if state.probing => Err(state.pause),
            Some(_) => {
                state.probing = true;
                Ok(Permit { breaker: self, probe: true })
            }
        }
    }

    fn failed_at(&self, probe: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if probe {
            state.pause = (state.pause * 2).min(self.config.longest_seconds.duration());
        }
        if probe || (state.until.is_none() && state.failures >= self.config.failures) {
            state.until = Some(now + state.pause);
        }
    }
}

impl Permit<'_> {
    /// The destination answered: it is up, whatever it said.
    pub(crate) fn worked(self) {
        let mut state = self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = 0;
        state.until = None;
        state.pause = self.breaker.config.pause_seconds.duration();
    }

    /// The destination can't be reached or did not do its work.
    pub(crate) fn failed(self) {
        self.breaker.failed_at(self.probe, Instant::now());
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state.lock().unwrap_or_else(PoisonError::into_inner).probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig { failures: 3, ..BreakerConfig::default() })
    }

    #[test]
    fn opens_after_so_many_failures_in_a_row_and_lets_one_try_through_after_the_pause() {
        let breaker = breaker();
        let start = Instant::now();
        for _ in 0..2 {
            breaker.admit_at(start).unwrap();
            breaker.failed_at(false, start);
        }
        breaker.admit_at(start).unwrap().worked();
        for _ in 0..3 {
            breaker.admit_at(start).unwrap();
            breaker.failed_at(false, start);
        }
        assert_eq!(breaker.admit_at(start).unwrap_err(), Duration::from_secs(5));
        let later = start + Duration::from_secs(5);
        let probe = breaker.admit_at(later).unwrap();
        assert!(breaker.admit_at(later).is_err(), "one at a time finds out");
        breaker.failed_at(true, later);
        drop(probe);
        assert_eq!(breaker.admit_at(later).unwrap_err(), Duration::from_secs(10), "twice as long");
        let probe = breaker.admit_at(later + Duration::from_secs(10)).unwrap();
        probe.worked();
        breaker.admit_at(later).unwrap();
        breaker.failed_at(false, later);
        assert!(breaker.admit_at(later).is_ok(), "closed, and the count began again");
    }

    #[test]
    fn pauses_stop_growing() {
        let breaker = breaker();
        let mut now = Instant::now();
        for _ in 0..3 {
            breaker.failed_at(false, now);
        }
        for _ in 0..10 {
            now += Duration::from_secs(120);
            let probe = breaker.admit_at(now).unwrap();
            breaker.failed_at(true, now);
            drop(probe);
        }
        assert_eq!(breaker.admit_at(now).unwrap_err(), Duration::from_secs(60));
    }

    #[test]
    fn a_probe_that_taught_nothing_leaves_room_for_the_next() {
        let breaker = breaker();
        let now = Instant::now();
        for _ in 0..3 {
            breaker.failed_at(false, now);
        }
        let later = now + Duration::from_secs(6);
        drop(breaker.admit_at(later).unwrap());
        assert!(breaker.admit_at(later).is_ok());
    }
}
