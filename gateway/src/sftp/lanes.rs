//! Requests run beside each other, except those about the same handle or the same path, which run in the order in which
//! they came. WinSCP sends SETSTAT right behind CLOSE and expects it to find the file.

use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// A handle by its name on the wire.
    Handle(Vec<u8>),
    /// A path by its key.
    Path(String),
}

/// The last request on every lane that is in use.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    last: HashMap<Lane, CancellationToken>,
    entered: usize,
}

/// A place on one or more lanes. The next on any of them waits until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    before: Vec<CancellationToken>,
    done: CancellationToken,
}

/// Finished lanes are cleared away once in so many requests.
const SWEEP: usize = 256;

impl Lanes {
    /// Takes the next place on each of `lanes`.
    pub(super) fn enter(&mut self, lanes: Vec<Lane>) -> Ticket {
        let done = CancellationToken::new();
        // All looked at before any is taken: a RENAME to the same name is on one lane twice and must not wait for itself.
        let last = lanes.iter().filter_map(|lane| self.last.get(lane));
        let before = last.filter(|token| !token.is_cancelled()).cloned().collect();
        self.last.extend(lanes.into_iter().map(|lane| (lane, done.clone())));
        self.entered = self.entered.wrapping_add(1);
        if self.entered.is_multiple_of(SWEEP) {
            self.last.retain(|_, token| !token.is_cancelled());
        }
        Ticket { before, done }
    }
}

impl Ticket {
    /// Waits until all that came before on the same lanes is done.
    pub(super) async fn wait(&mut self) {
        for token in self.before.drain(..) {
            token.cancelled().await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_request_on_one_lane_twice_waits_for_others_and_not_for_itself() {
        let mut lanes = Lanes::default();
        let path = || Lane::Path("a".to_owned());
        let first = lanes.enter(vec![path()]);
        let mut twice = lanes.enter(vec![path(), path()]);
        let mut waiting = std::pin::pin!(twice.wait());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await;
        waited.expect("nothing is before it any more");
    }

    #[tokio::test]
    async fn one_lane_keeps_order_and_others_pass() {
        let mut lanes = Lanes::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let path = |p: &str| Lane::Path(p.to_owned());
        let first = lanes.enter(vec![path("a")]);
        let mut tasks = Vec::new();
        for (name, on) in
            [("second", vec![path("a"), path("b")]), ("third", vec![path("b")]), ("free", vec![path("c")])]
        {
            let mut ticket = lanes.enter(on);
            let log = Arc::clone(&log);
            tasks.push(tokio::spawn(async move {
                ticket.wait().await;
                log.lock().unwrap().push(name);
            }));
        }
        let free = tasks.pop().unwrap();
        free.await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["free"]);
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*log.lock().unwrap(), ["free", "second", "third"]);
    }
}
