//! How many connections and sessions there may be: in total, from one source, for one account. Decided at accept and
//! at login, under one lock, and given back when a [`ConnectionPermit`] drops.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::source::{Source, TokenBucket};

/// Caps on connections. A connection is unauthenticated until its login succeeds, a session afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// From this many unauthenticated connections on, new ones are dropped at random. Default 200.
    pub unauthenticated_start: usize,
    /// Chance in per cent of a drop at `unauthenticated_start`; it rises to 100 at `unauthenticated_max`. Default 30.
    pub unauthenticated_drop_percent: u8,
    /// The most unauthenticated connections at once. Default 1000.
    pub unauthenticated_max: usize,
    /// The most unauthenticated connections from one source (an IPv4 address or an IPv6 /64). Default 10.
    pub unauthenticated_per_source: usize,
    /// New connections a second from one source, after the burst is used up. Default 10.
    pub new_per_second_per_source: u32,
    /// Connections that a source may open at once before `new_per_second_per_source` counts. Default 20.
    pub new_burst_per_source: u32,
    /// The most sessions from one source. Default 50.
    pub sessions_per_source: usize,
    /// The most sessions of one account. Default 20.
    pub sessions_per_account: usize,
    /// The most sessions altogether. Default 5000.
    pub sessions_total: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            unauthenticated_start: 200,
            unauthenticated_drop_percent: 30,
            unauthenticated_max: 1000,
            unauthenticated_per_source: 10,
            new_per_second_per_source: 10,
            new_burst_per_source: 12,
            sessions_per_source: 50,
            sessions_per_account: 20,
            sessions_total: 5000,
        }
    }
}

/// Which cap turned a connection or login away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LimitHit {
    /// Too many unauthenticated connections altogether (also: unlucky in the early drop).
    #[error("too many connections waiting to log in")]
    Unauthenticated,
    /// Too many unauthenticated connections from this source.
    #[error("too many connections waiting to log in from this address")]
    UnauthenticatedPerSource,
    /// This source opens connections too fast.
    #[error("connections from this address come too fast")]
    NewPerSecondPerSource,
    /// Too many sessions from this source.
    #[error("too many sessions from this address")]
    SessionsPerSource,
    /// Too many sessions of this account.
    #[error("too many sessions of this account")]
    SessionsPerAccount,
    /// Too many sessions altogether.
    #[error("too many sessions")]
    SessionsTotal,
}

/// The counters behind [`LimitsConfig`].
#[derive(Debug)]
pub(crate) struct Admission {
    config: LimitsConfig,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    unauthenticated: usize,
    sessions: usize,
    sources: HashMap<Source, SourceCounts>,
    accounts: HashMap<String, usize>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct SourceCounts {
    unauthenticated: usize,
    sessions: usize,
    arrivals: TokenBucket,
}

const SWEEP_EVERY: Duration = Duration::from_secs(10);

impl Admission {
    pub(crate) fn new(config: LimitsConfig) -> Arc<Self> {
        Arc::new(Self { config, counts: Mutex::default() })
    }

    /// Connections that may be open at once, whatever their state: the bound of the accept loop.
    pub(crate) fn open_connections_max(&self) -> usize {
        self.config.sessions_total.saturating_add(self.config.unauthenticated_max).max(1)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The counters are plain numbers, updated without a panic in between: a poisoned lock is still consistent.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a connection just accepted. `luck` in 0..1 decides the early drop.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Instant,
        luck: f64,
    ) -> Result<ConnectionPermit, LimitHit> {
        let config = &self.config;
        let source = Source::from(peer);
        let mut counts = self.counts();
        counts.sweep(config, now);
        let known = counts.sources.entry(source).or_insert_with(|| SourceCounts {
            unauthenticated: 0,
            sessions: 0,
            arrivals: TokenBucket::full(config.new_burst_per_source, now),
        });
        if !known.arrivals.take(config.new_per_second_per_source, config.new_burst_per_source, now) {
            return Err(LimitHit::NewPerSecondPerSource);
        }
        if known.unauthenticated >= config.unauthenticated_per_source {
            return Err(LimitHit::UnauthenticatedPerSource);
        }
        if luck < config.drop_chance(counts.unauthenticated) {
            return Err(LimitHit::Unauthenticated);
        }
        counts.unauthenticated += 1;
        if let Some(known) = counts.sources.get_mut(&source) {
            known.unauthenticated += 1;
        }
        Ok(ConnectionPermit { admission: Arc::clone(self), source, stage: Stage::Unauthenticated })
    }
}

impl LimitsConfig {
    /// Chance of dropping a new connection when `unauthenticated` are waiting, as in OpenSSH's MaxStartups.
    fn drop_chance(&self, unauthenticated: usize) -> f64 {
        if unauthenticated >= self.unauthenticated_max {
            return 1.0;
        }
        if unauthenticated < self.unauthenticated_start {
            return 0.0;
        }
        let base = f64::from(self.unauthenticated_drop_percent.min(100)) / 100.0;
        let span = self.unauthenticated_max - self.unauthenticated_start;
        let over = unauthenticated - self.unauthenticated_start;
        base + (1.0 - base) * (over as f64 / span.max(1) as f64)
    }
}

impl Counts {
    /// Forgets sources without connections whose bucket is full again, so that the table is bounded by the arrivals of
    /// the last seconds and not by everyone who ever came.
    fn sweep(&mut self, config: &LimitsConfig, now: Instant) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.sources.retain(|_, source| {
            source.unauthenticated > 0
                || source.sessions > 0
                || !source.arrivals.is_full(
                    config.new_per_second_per_source,
                    config.new_burst_per_source,
                    now,
                )
        });
    }
}

#[derive(Debug)]
enum Stage {
    Unauthenticated,
    Session { account: String },
}

/// One connection's place in the counters, given back on drop.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    admission: Arc<Admission>,
    source: Source,
    stage: Stage,
}

impl ConnectionPermit {
    /// Turns the place of an unauthenticated connection into one of a session of `account`. On an error the connection
    /// stays unauthenticated.
    pub(crate) fn promote(&mut self, account: &str) -> Result<(), LimitHit> {
        let config = &self.admission.config;
        let mut counts = self.admission.counts();
        match &self.stage {
            Stage::Session { .. } => return Ok(()),
            Stage::Unauthenticated => {}
        }
        if counts.sessions >= config.sessions_total {
            return Err(LimitHit::SessionsTotal);
        }
        if counts.accounts.get(account).copied().unwrap_or(0) >= config.sessions_per_account {
            return Err(LimitHit::SessionsPerAccount);
        }
        if let Some(source) = counts.sources.get_mut(&self.source) {
            if source.sessions >= config.sessions_per_source {
                return Err(LimitHit::SessionsPerSource);
            }
            source.sessions += 1;
            source.unauthenticated = source.unauthenticated.saturating_sub(1);
        }
        counts.unauthenticated = counts.unauthenticated.saturating_sub(1);
        counts.sessions += 1;
        *counts.accounts.entry(account.to_owned()).or_insert(0) += 1;
        drop(counts);
        self.stage = Stage::Session { account: account.to_owned() };
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        match &self.stage {
            Stage::Unauthenticated => {
                counts.unauthenticated = counts.unauthenticated.saturating_sub(1);
                if let Some(source) = counts.sources.get_mut(&self.source) {
                    source.unauthenticated = source.unauthenticated.saturating_sub(1);
                }
            }
            Stage::Session { account } => {
                counts.sessions = counts.sessions.saturating_sub(1);
                if let Some(source) = counts.sources.get_mut(&self.source) {
                    source.sessions = source.sessions.saturating_sub(1);
                }
                if let Some(sessions) = counts.accounts.get_mut(account) {
                    *sessions -= 1;
                    if *sessions == 0 {
                        counts.accounts.remove(account);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUCKY: f64 = 0.999_999;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn per_source_caps_count_connections_and_give_them_back() {
        let admission = Admission::new(LimitsConfig {
            unauthenticated_per_source: 2,
            new_burst_per_source: 100,
            ..LimitsConfig::default()
        });
        let now = Instant::now();
        let first = admission.admit(address(1), now, LUCKY).unwrap();
        let _second = admission.admit(address(1), now, LUCKY).unwrap();
        assert_eq!(admission.admit(address(1), now, LUCKY).unwrap_err(), LimitHit::UnauthenticatedPerSource);
        admission.admit(address(2), now, LUCKY).unwrap();
        drop(first);
        admission.admit(address(1), now, LUCKY).unwrap();
    }

    #[test]
    fn arrivals_are_limited_per_source() {
        let admission = Admission::new(LimitsConfig {
            new_burst_per_source: 2,
            new_per_second_per_source: 10,
            ..LimitsConfig::default()
        });
        let now = Instant::now();
        admission.admit(address(1), now, LUCKY).unwrap();
        admission.admit(address(1), now, LUCKY).unwrap();
        assert_eq!(admission.admit(address(1), now, LUCKY).unwrap_err(), LimitHit::NewPerSecondPerSource);
        admission.admit(address(1), now + Duration::from_millis(110), LUCKY).unwrap();
    }

    #[test]
    fn early_drop_starts_at_its_threshold_and_is_certain_when_full() {
        let config = LimitsConfig::default();
        assert_eq!(config.drop_chance(199), 0.0);
        assert!((config.drop_chance(200) - 0.3).abs() < 1e-9);
        assert!((config.drop_chance(600) - 0.65).abs() < 1e-9);
        assert_eq!(config.drop_chance(1000), 1.0);

        let admission = Admission::new(LimitsConfig {
            unauthenticated_start: 1,
            unauthenticated_max: 3,
            ..LimitsConfig::default()
        });
        let now = Instant::now();
        let _a = admission.admit(address(1), now, 0.0).unwrap();
        assert_eq!(admission.admit(address(2), now, 0.29).unwrap_err(), LimitHit::Unauthenticated);
        let _b = admission.admit(address(2), now, 0.31).unwrap();
        let _c = admission.admit(address(3), now, LUCKY).unwrap();
        assert_eq!(admission.admit(address(4), now, LUCKY).unwrap_err(), LimitHit::Unauthenticated);
    }

    #[test]
    fn sessions_are_capped_per_account_source_and_in_total() {
        let admission = Admission::new(LimitsConfig {
            sessions_per_account: 1,
            sessions_per_source: 2,
            sessions_total: 3,
            ..LimitsConfig::default()
        });
        let now = Instant::now();
        let mut connections: Vec<_> =
            [1, 1, 1, 2, 3].iter().map(|n| admission.admit(address(*n), now, LUCKY).unwrap()).collect();
        let mut login = |index: usize, account: &str| connections[index].promote(account);
        login(0, "a").unwrap();
        assert_eq!(login(1, "a"), Err(LimitHit::SessionsPerAccount));
        login(1, "b").unwrap();
        assert_eq!(login(2, "c"), Err(LimitHit::SessionsPerSource));
        login(3, "c").unwrap();
        assert_eq!(login(4, "d"), Err(LimitHit::SessionsTotal));
        connections.remove(0);
        assert_eq!(connections[3].promote("a"), Ok(()));
        drop(connections);
        let counts = admission.counts();
        assert_eq!((counts.unauthenticated, counts.sessions, counts.accounts.len()), (0, 0, 0));
    }

    #[test]
    fn sources_without_connections_are_forgotten() {
        let admission = Admission::new(LimitsConfig::default());
        let now = Instant::now();
        for last in 0..200 {
            drop(admission.admit(address(last), now, LUCKY).unwrap());
        }
        assert_eq!(admission.counts().sources.len(), 200);
        drop(admission.admit(address(201), now + Duration::from_secs(11), LUCKY).unwrap());
        assert_eq!(admission.counts().sources.len(), 1);
    }
}
