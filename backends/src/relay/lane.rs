//! The loop that every kind of follow-up runs in: a step again and again while there is more, a rest until the next
//! signal when there is not, and a growing pause after a failure, without holding up the other lanes.

use async_trait::async_trait;
use rand::RngExt as _;
use std::{fmt::Display, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So long a step may still take once the lane is stopped. One that is cut off is done again by whoever relays next.
const LAST_STEP: Duration = Duration::from_secs(10);

/// What the leader tells the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signal {
    /// Token of the lease; none while another relay is the active one.
    term: Option<u64>,
    looks: u64,
}

impl Signal {
    /// Takes or loses the lease; true if that is new.
    pub(super) fn set_term(&mut self, term: Option<u64>) -> bool {
        let new = self.term != term;
        self.term = term;
        new
    }

    /// There may be something to do.
    pub(super) fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
    }
}

/// Whether a step left something to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its batch was full: there is more.
    More,
    /// Nothing is left that is due.
    Rest,
}

impl Step {
    /// After handling `handled` of at most `batch`.
    pub(super) const fn after(handled: usize, batch: usize) -> Self {
        if handled >= batch { Self::More } else { Self::Rest }
    }
}

/// What a lane does. Boxed futures, so that a relay can be spawned.
#[async_trait]
pub(super) trait Work: Send {
    type Error: Display + Send;

    /// Does what is due. It is told the term of the lease it runs in.
    async fn step(&mut self, term: u64) -> Result<Step, Self::Error>;

    /// Whether any change may mean something to do. Otherwise the lane looks when it is called, and at each term.
    fn looks_at_changes(&self) -> bool {
        true
    }

    /// Returns when the lane is to look at once.
    async fn called(&mut self) {
        std::future::pending().await
    }
}

pub(super) struct Lane {
    name: &'static str,
    signals: watch::Receiver<Signal>,
    stopped: CancellationToken,
}

impl Lane {
    pub(super) const fn new(
        name: &'static str,
        signals: watch::Receiver<Signal>,
        stopped: CancellationToken,
    ) -> Self {
        Self { name, signals, stopped }
    }

    /// Runs until stopped, and a little longer if a step is under way then.
    pub(super) async fn run(mut self, mut work: impl Work) {
        let mut failures = 0_u32;
        while !self.stopped.is_cancelled() {
            let seen = *self.signals.borrow_and_update();
            let result = match seen.term {
                Some(term) => {
                    let too_long = async {
                        self.stopped.cancelled().await;
                        tokio::time::sleep(LAST_STEP).await;
                    };
                    tokio::select! {
                        result = work.step(term) => result,
                        () = too_long => return,
                    }
                }
                None => Ok(Step::Rest),
            };
            match result {
                Ok(next) => {
                    if failures > 0 {
                        tracing::info!(lane = self.name, failures, "relaying again");
                    }
                    failures = 0;
                    if next == Step::More {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    let any = work.looks_at_changes();
                    let signal = async {
                        let new = |signal: &Signal| (any && *signal != seen) || signal.term != seen.term;
                        self.signals.wait_for(new).await.is_err()
                    };
                    let rest = async {
                        tokio::select! {
                            ended = signal => if ended { std::future::pending::<()>().await },
                            () = work.called() => {}
                        }
                    };
                    self.stopped.run_until_cancelled(rest).await;
                }
                Err(error) => {
                    let pause = pause(failures);
                    failures = failures.saturating_add(1);
                    tracing::warn!(lane = self.name, %error, failures, ?pause, "relaying failed, will try again");
                    self.stopped.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
        }
    }
}

/// Full jitter below a cap that doubles with each failure.
fn pause(failures: u32) -> Duration {
    let cap = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
    cap.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_its_cap() {
        assert!(pause(0) <= FIRST_PAUSE);
        assert!(pause(3) > FIRST_PAUSE);
        for failures in 0..100 {
            assert!(pause(failures) <= LONGEST_PAUSE);
        }
        assert!(pause(u32::MAX) >= LONGEST_PAUSE / 2);
    }
}
