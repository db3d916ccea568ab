//! One piece of work for the writer, and whoever waits for its outcome.

use super::super::{
    fault::{Fault, Outcome},
    watch::Bell,
};
use crate::state::StateError;
use dropgate_schemas::change::Durability;
use rusqlite::Connection;
use tokio::sync::oneshot;

/// A piece of work, whatever it returns.
pub(super) trait Call: Send {
    /// What it asks of the transaction it is part of.
    fn durability(&self) -> Durability;
    /// Whom to tell of it.
    fn bell(&self) -> Bell;
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
    /// Does it; false if it failed and must be rolled back.
    fn run(&mut self, db: &Connection) -> bool;
    /// Why it failed.
    fn take_fault(&mut self) -> Option<Fault>;
    /// Tells whoever waits: what the work came to, or the fate of the transaction if that failed.
    fn answer(self: Box<Self>, fate: &Result<(), StateError>);
}

/// A piece of work that returns a `T`.
pub(super) struct Pending<T, F> {
    durability: Durability,
    bell: Bell,
    work: F,
    outcome: Option<Outcome<T>>,
    answer: oneshot::Sender<Result<T, StateError>>,
}

impl<T, F> Pending<T, F> {
    pub(super) const fn new(
        durability: Durability,
        bell: Bell,
        work: F,
        answer: oneshot::Sender<Result<T, StateError>>,
    ) -> Self {
        Self { durability, bell, work, outcome: None, answer }
    }
}

impl<T: Send, F: FnMut(&Connection) -> Outcome<T> + Send> Call for Pending<T, F> {
    fn durability(&self) -> Durability {
        self.durability
    }
    fn bell(&self) -> Bell {
        self.bell
    }
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
    fn run(&mut self, db: &Connection) -> bool {
        self.outcome.insert((self.work)(db)).is_ok()
    }
    fn take_fault(&mut self) -> Option<Fault> {
        self.outcome.take()?.err()
    }
    fn answer(self: Box<Self>, fate: &Result<(), StateError>) {
        let outcome = match (fate, self.outcome) {
            (Err(error), _) => Err(error.clone()),
            (Ok(()), Some(outcome)) => outcome.map_err(StateError::from),
            (Ok(()), None) => Err(StateError::Unavailable("the change was not reached".to_owned())),
        };
        // Gone meanwhile: it will read back.
        let _ = self.answer.send(outcome);
    }
}
