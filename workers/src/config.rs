//! `[workers]`, `[[destination]]` and `[[route]]` of the config, and the checks that need more than one key.

mod check;
mod destination;
mod route;
mod seconds;

pub use check::{Problem, check, check_accounts};
pub use destination::{AzureConfig, DestinationConfig, DirectoryConfig, Mode, S3Config, SftpConfig};
pub use route::{OneOrMany, RouteConfig};
pub use seconds::Seconds;

use dropgate_schemas::account::{DestinationName, NameError};
use serde::{Deserialize, Serialize};

/// Destinations and routes as configured, or the embedded default if there are neither: everything goes to the directory
/// `delivered` in the data directory, as `<partner>/<account>/<path below /upload>`.
///
/// # Errors
/// Never: `local` is a good name.
pub fn or_embedded(
    destinations: Vec<DestinationConfig>,
    routes: Vec<RouteConfig>,
) -> Result<(Vec<DestinationConfig>, Vec<RouteConfig>), NameError> {
    if !destinations.is_empty() || !routes.is_empty() {
        return Ok((destinations, routes));
    }
    let local: DestinationName = "local".parse()?;
    let directory = DirectoryConfig::embedded(local.clone());
    Ok((vec![DestinationConfig::Directory(directory)], vec![RouteConfig::catch_all(local)]))
}

/// `[workers]`: how deliveries are made. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkersConfig {
    /// Deliveries at a time in this process. Default: 32.
    pub parallel: usize,
    /// How many of them may go to one destination, unless the destination says otherwise. Default: 8.
    pub parallel_per_destination: usize,
    /// After how long without a heartbeat a worker's claims are taken over. Default: 20.
    pub lease_seconds: Seconds,
    /// How soon after recording that it will finish a delivery a worker must have made the finishing call; later it gives
    /// up and starts again. Default: 5.
    pub finish_within_seconds: Seconds,
    /// How long a finishing call may take. Default: 60.
    pub finish_deadline_seconds: Seconds,
    /// How long running deliveries may take to end when the process stops; what is not done then is given back. Default:
    /// 30.
    pub drain_seconds: Seconds,
    /// `[workers.retry]`.
    pub retry: RetryConfig,
    /// `[workers.breaker]`.
    pub breaker: BreakerConfig,
    /// `[workers.sweep]`.
    pub sweep: SweepConfig,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self {
            parallel: 32,
            parallel_per_destination: 8,
            lease_seconds: Seconds::from(20),
            finish_within_seconds: Seconds::from(5),
            finish_deadline_seconds: Seconds::from(60),
            drain_seconds: Seconds::from(30),
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            sweep: SweepConfig::default(),
        }
    }
}

/// `[workers.retry]`: when a failed delivery is tried again, and when it is given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// The first pause is at most this long; each further one at most twice as long as the one before. Default: 2.
    pub base_seconds: Seconds,
    /// No pause is longer. Default: 900 (15 minutes).
    pub longest_seconds: Seconds,
    /// Counted from the first try: then the delivery is given up. Default: 86400 (24 hours).
    pub budget_seconds: Seconds,
    /// Tries in a row that failed for a reason that does not pass by itself (access denied, wrong host key): then the
    /// delivery is given up. Default: 3.
    pub permanent_tries: u32,
    /// Deaths of a worker on one delivery: then the upload is kept back for an operator. Default: 5.
    pub crashes: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            base_seconds: Seconds::from(2),
            longest_seconds: Seconds::from(15 * 60),
            budget_seconds: Seconds::from(24 * 3600),
            permanent_tries: 3,
            crashes: 5,
        }
    }
}

/// `[workers.breaker]`: when a destination that does not answer is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// So many tries in a row must fail. Default: 5.
    pub failures: u32,
    /// The first pause; each further one is twice as long. Default: 5.
    pub pause_seconds: Seconds,
    /// No pause is longer. Default: 60.
    pub longest_seconds: Seconds,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, pause_seconds: Seconds::from(5), longest_seconds: Seconds::from(60) }
    }
}

/// `[workers.sweep]`: what is looked after, and how old it must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// How often. Default: 5.
    pub every_seconds: Seconds,
    /// How long an accepted upload may wait for a worker before it is rung for again. Default: 60.
    pub unclaimed_seconds: Seconds,
    /// After how long without a heartbeat the uploads of a gateway are interrupted. Default: 15.
    pub gateway_lease_seconds: Seconds,
    /// How long an interrupted upload can be resumed. Default: 86400 (24 hours).
    pub partial_seconds: Seconds,
    /// How long an upload may wait under its temp name. Default: 86400 (24 hours).
    pub held_seconds: Seconds,
    /// How old a blob that belongs to no record must be before it is removed. Default: 86400 (24 hours).
    pub orphan_seconds: Seconds,
    /// How long after an upload was aborted its bytes are removed. Default: 3600 (1 hour).
    pub aborted_seconds: Seconds,
    /// How often blobs and temporary names at destinations are looked through. Default: 600 (10 minutes).
    pub collect_every_seconds: Seconds,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            every_seconds: Seconds::from(5),
            unclaimed_seconds: Seconds::from(60),
            gateway_lease_seconds: Seconds::from(15),
            partial_seconds: Seconds::from(24 * 3600),
            held_seconds: Seconds::from(24 * 3600),
            orphan_seconds: Seconds::from(24 * 3600),
            aborted_seconds: Seconds::from(3600),
            collect_every_seconds: Seconds::from(600),
        }
    }
}

#[cfg(test)]
mod tests;
