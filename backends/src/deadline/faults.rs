//! Failures for tests: one call, counted over all ports, fails before or after it took effect, or the process "dies" there.

use super::{Deadline, Failure};
use crate::{Backends, events::EventPublisher, queue::JobQueue, state::StateStore};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has no effect.
    Before,
    /// It has its effect and fails all the same.
    After,
    /// As `Before`, and so do all after it.
    DiesBefore,
    /// As `After`, and all after it fail.
    DiesAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Before, Self::After, Self::DiesBefore, Self::DiesAfter];

    pub(crate) const fn is_death(self) -> bool {
        matches!(self, Self::DiesBefore | Self::DiesAfter)
    }
}

#[derive(Debug)]
pub(crate) struct Faults {
    calls: AtomicUsize,
    at: usize,
    fault: Fault,
}

impl Faults {
    /// The call number `at`, from 0, fails.
    pub(crate) fn new(at: usize, fault: Fault) -> Arc<Self> {
        Arc::new(Self { calls: AtomicUsize::new(0), at, fault })
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    pub(super) async fn around<T, E: Failure>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let number = self.calls.fetch_add(1, Relaxed);
        let (hit, late) = (number == self.at, Err(E::late(Duration::ZERO)));
        match self.fault {
            Fault::Before | Fault::DiesBefore if hit => late,
            Fault::After | Fault::DiesAfter if hit => call.await.and(late),
            Fault::DiesBefore | Fault::DiesAfter if number > self.at => late,
            _ => call.await,
        }
    }
}

/// The same backends, with faults in state store, queue and publisher.
pub(crate) fn faulty(backends: &Backends, faults: &Arc<Faults>) -> Backends {
    let limit = Duration::from_secs(10);
    let mut state: Deadline<dyn StateStore> = Deadline::new(backends.state.clone(), limit);
    let mut queue: Deadline<dyn JobQueue> = Deadline::new(backends.queue.clone(), limit);
    let mut events: Deadline<dyn EventPublisher> = Deadline::new(backends.events.clone(), limit);
    state.faults = Some(faults.clone());
    queue.faults = Some(faults.clone());
    events.faults = Some(faults.clone());
    Backends { state: Arc::new(state), queue: Arc::new(queue), events: Arc::new(events), ..backends.clone() }
}
