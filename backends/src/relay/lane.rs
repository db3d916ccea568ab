//! The loop that every kind of follow-up runs in: a step again and again while there is more, a rest until the next
//! signal when there is not, and a growing pause after a failure, without holding up the other lanes.

use async_trait::async_trait;
use rand::RngExt as _;
use std::{fmt::Display, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the leader tells the lanes.
#[derive(Clone, Copy, Debug, Default)]
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

    /// Returns when the lane is to look at once, besides the signals that every lane gets.
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

    /// Runs until stopped.
    pub(super) async fn run(mut self, mut work: impl Work) {
        let mut failures = 0_u32;
        while !self.stopped.is_cancelled() {
            let term = self.signals.borrow_and_update().term;
            let result = match term {
                Some(term) => work.step(term).await,
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
                    let rest = async {
                        tokio::select! {
                            changed = self.signals.changed() => if changed.is_err() { std::future::pending::<()>().await },
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
