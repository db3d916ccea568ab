//! Waiting for a condition, bounded in time. No test sleeps for a fixed while and hopes.

use anyhow::{Context as _, Result, bail};
use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Awaits `future`, but not longer than `limit`.
///
/// # Errors
/// If the time is over; it says what was waited for.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, future).await.with_context(|| format!("waited {limit:?} for {what}"))
}

/// Asks again and again until `probe` has an answer, but not longer than `limit`.
///
/// # Errors
/// If the time is over, with the last error of `probe` if it had one.
pub async fn until<T, F>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let failure = match probe().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if begun.elapsed() > limit {
            match failure {
                Some(e) => return Err(e.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// [`until`] for a condition that yields nothing.
///
/// # Errors
/// As [`until`].
pub async fn until_true<F>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    until(limit, what, || {
        let asked = probe();
        async { Ok(asked.await?.then_some(())) }
    })
    .await
}
