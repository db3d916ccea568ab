//! Points at which a test may stop a worker as a crash would, to see that the next one recovers. They are compiled into
//! tests and builds with the feature `failpoints` only; elsewhere passing one costs nothing.
//!
//! The names are those of the table of crash points: [`CLAIMED`] is C15, and so on.

/// C14: a job was taken, nothing is recorded.
pub const TAKEN: &str = "C14";
/// C15: the claim is recorded, nothing is written at the destination.
pub const CLAIMED: &str = "C15";
/// C16: bytes are being written under the temporary name.
pub const WRITING: &str = "C16";
/// All bytes are written under the temporary name, not compared yet.
pub const WRITTEN: &str = "C16-written";
/// It is recorded that the finishing call will be made; it was not.
pub const FINALIZING: &str = "C17-before";
/// C17: the finishing call was made, its outcome was not looked at.
pub const FINISHED: &str = "C17";
/// C18: finished, not looked at again.
pub const VERIFYING: &str = "C18";
/// C19: verified, not recorded.
pub const VERIFIED: &str = "C19";
/// C20: recorded, the job is not settled.
pub const RECORDED: &str = "C20";

#[cfg(any(test, feature = "failpoints"))]
pub use armed::{Failpoints, Paused};

/// Failpoints of a build without them.
#[cfg(not(any(test, feature = "failpoints")))]
#[derive(Clone, Debug, Default)]
pub struct Failpoints;

#[cfg(not(any(test, feature = "failpoints")))]
impl Failpoints {
    #[expect(clippy::unused_async, reason = "the same call as in a build with failpoints")]
    pub(crate) async fn pass(&self, _: &'static str) {}
}

#[cfg(any(test, feature = "failpoints"))]
mod armed {
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex, PoisonError},
    };
    use tokio::sync::oneshot;

    /// Which points stop whom.
    #[derive(Clone, Debug, Default)]
    pub struct Failpoints(Arc<Mutex<HashMap<&'static str, oneshot::Sender<Paused>>>>);

    /// A worker that stopped at a failpoint. Dropped without [`Self::go_on`], it never goes on.
    #[derive(Debug)]
    pub struct Paused(oneshot::Sender<()>);

    impl Paused {
        /// Lets the worker go on as if nothing had been.
        pub fn go_on(self) {
            // It may have been dropped meanwhile.
            let _ = self.0.send(());
        }
    }

    impl Failpoints {
        /// The next one who comes to `point` stops there, and the receiver hears of it.
        #[must_use]
        pub fn arm(&self, point: &'static str) -> oneshot::Receiver<Paused> {
            let (tell, told) = oneshot::channel();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(point, tell);
            told
        }

        pub(crate) async fn pass(&self, point: &'static str) {
            if std::env::var_os("DROPGATE_FAILPOINT").is_some_and(|named| named == point) {
                // As kill -9 would, for tests of the whole program.
                std::process::abort();
            }
            let armed = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(point);
            let Some(tell) = armed else { return };
            let (go_on, gone_on) = oneshot::channel();
            if tell.send(Paused(go_on)).is_ok() && gone_on.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
