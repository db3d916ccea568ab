//! What waits for the writer, and how long it pays to wait for more.

use super::{BATCH, Message, call::Call};
use dropgate_schemas::change::Durability;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Syncs that take at least so long are worth waiting for company.
const SLOW: Duration = Duration::from_micros(400);
/// Longest wait for company.
const PATIENCE: Duration = Duration::from_millis(1);
/// Pause between two looks for it.
const STEP: Duration = Duration::from_micros(100);

/// Calls that were taken off the queue and not made yet.
pub(super) struct Intake {
    waiting: mpsc::Receiver<Message>,
    visible: Vec<Box<dyn Call>>,
    durable: Vec<Box<dyn Call>>,
    closing: Option<oneshot::Sender<()>>,
    /// How long a sync takes, lately.
    sync: Duration,
    /// How many calls shared the last one.
    shared: usize,
}

impl Intake {
    pub(super) const fn new(waiting: mpsc::Receiver<Message>) -> Self {
        Self {
            waiting,
            visible: Vec::new(),
            durable: Vec::new(),
            closing: None,
            sync: Duration::ZERO,
            shared: 0,
        }
    }

    /// Waits for calls. False when there will be no more.
    pub(super) fn wait(&mut self) -> bool {
        let Some(first) = self.waiting.blocking_recv() else { return false };
        self.accept(first);
        self.take_all();
        true
    }

    fn take_all(&mut self) {
        while self.visible.len() + self.durable.len() < BATCH
            && let Ok(next) = self.waiting.try_recv()
        {
            self.accept(next);
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Call(call) => match call.durability() {
                Durability::Visible => self.visible.push(call),
                Durability::Durable => self.durable.push(call),
            },
            Message::Close(done) => {
                // What waits already is still done, what comes later is not taken.
                self.closing = Some(done);
                self.waiting.close();
            }
        }
    }

    /// The next transaction. On a disk that syncs fast it holds everything. On a slow one, those that need no sync don't
    /// wait for one; and if more shared the last sync than are here now, it waits a moment for them: their changes were
    /// just answered, and their next ones may be on the way. None when nothing is left.
    pub(super) fn next_batch(&mut self) -> Option<Vec<Box<dyn Call>>> {
        if self.sync >= SLOW && !self.durable.is_empty() {
            let end = Instant::now() + (self.sync / 4).min(PATIENCE);
            while self.visible.is_empty()
                && self.closing.is_none()
                && self.durable.len() < self.shared
                && Instant::now() < end
            {
                std::thread::sleep(STEP);
                self.take_all();
            }
            if !self.visible.is_empty() {
                return Some(std::mem::take(&mut self.visible));
            }
        }
        let mut batch = std::mem::take(&mut self.visible);
        batch.append(&mut self.durable);
        (!batch.is_empty()).then_some(batch)
    }

    /// To be told of each durable transaction: how long its commit took and how many calls it held.
    pub(super) fn synced(&mut self, took: Duration, shared: usize) {
        self.sync = (self.sync * 3 + took) / 4;
        self.shared = shared;
    }

    /// Who wants to know when all is done.
    pub(super) fn closing(&mut self) -> Option<oneshot::Sender<()>> {
        self.closing.take()
    }
}
