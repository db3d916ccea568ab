//! Replies on their way to the client: queued in memory, never awaited, capped in bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::control::{CloseReason, SessionControl};

/// The most that is handed to russh in one piece; russh cuts it into packets of the client's size.
const BATCH: usize = 32 * 1024;

/// Why a reply could not be queued. The engine has nothing to do but to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// The client lets too many replies pile up; the session is being ended.
    #[error("too many unread replies")]
    Overflow,
    /// The channel is closed.
    #[error("the channel is closed")]
    Closed,
}

/// The queue of one channel. Cheap to clone; all clones are the same queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    wake: Notify,
    capacity: usize,
    control: Arc<SessionControl>,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// Size of the batch that the writer has taken and russh may not have taken yet.
    in_hand: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn new(capacity: usize, control: Arc<SessionControl>) -> Self {
        Self(Arc::new(Queue { state: Mutex::default(), wake: Notify::new(), capacity, control }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a reply. Returns at once; several replies travel in one packet. The order of calls is the order on the
    /// wire.
    ///
    /// # Errors
    /// [`OutboxError::Overflow`] over the cap, which also ends the session; [`OutboxError::Closed`] afterwards.
    pub fn push(&self, reply: &[u8]) -> Result<(), OutboxError> {
        let mut state = self.state();
        if state.closed {
            return Err(OutboxError::Closed);
        }
        if state.bytes.len() + state.in_hand + reply.len() > self.0.capacity {
            self.0.discard(&mut state);
            drop(state);
            self.0.wake.notify_one();
            self.0.control.close(CloseReason::NotReading);
            return Err(OutboxError::Overflow);
        }
        state.bytes.extend_from_slice(reply);
        self.0.control.add_unsent(reply.len());
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Bytes waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.state();
        state.bytes.len() + state.in_hand
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece to send, or `None` once the outbox is closed and drained. For one caller, which asks again only
    /// when the last piece is handed over.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                let handed_over = std::mem::take(&mut state.in_hand);
                self.0.control.remove_unsent(handed_over);
                if !state.bytes.is_empty() {
                    let size = state.bytes.len().min(BATCH);
                    state.in_hand = size;
                    return Some(state.bytes.split_to(size).freeze());
                }
                if state.closed {
                    return None;
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// Takes no more replies; what is queued is still sent.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.0.wake.notify_one();
    }

    /// Takes no more replies and forgets the queued ones.
    pub(crate) fn abandon(&self) {
        self.0.discard(&mut self.state());
        self.0.wake.notify_one();
    }
}

impl Queue {
    fn discard(&self, state: &mut State) {
        state.closed = true;
        self.control.remove_unsent(state.bytes.len());
        state.bytes = BytesMut::new();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.control.remove_unsent(state.bytes.len() + state.in_hand);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::test_control;

    #[tokio::test]
    async fn replies_leave_in_order_and_together() {
        let control = test_control();
        let outbox = Outbox::new(1000, Arc::clone(&control));
        outbox.push(b"one ").unwrap();
        outbox.push(b"two").unwrap();
        assert_eq!(control.unsent(), 7);
        assert_eq!(outbox.next().await.unwrap(), "one two");
        outbox.push(b"three").unwrap();
        outbox.close();
        assert_eq!(outbox.push(b"late"), Err(OutboxError::Closed));
        assert_eq!(outbox.next().await.unwrap(), "three");
        assert_eq!(outbox.next().await, None);
        assert_eq!(control.unsent(), 0);
    }

    #[tokio::test]
    async fn overflow_ends_the_session_and_frees_the_memory() {
        let control = test_control();
        let outbox = Outbox::new(10, Arc::clone(&control));
        outbox.push(b"12345678").unwrap();
        let taken = outbox.next().await.unwrap();
        assert_eq!(taken.len(), 8);
        assert_eq!(outbox.push(b"abc"), Err(OutboxError::Overflow), "bytes in hand count");
        assert!(control.closing().is_cancelled());
        assert_eq!(control.reason(), Some(&CloseReason::NotReading));
        assert_eq!(outbox.next().await, None);
        assert_eq!(control.unsent(), 0);
    }

    #[tokio::test]
    async fn a_large_reply_is_cut() {
        let outbox = Outbox::new(1 << 20, test_control());
        outbox.push(&vec![7; BATCH + 5]).unwrap();
        assert_eq!(outbox.next().await.unwrap().len(), BATCH);
        assert_eq!(outbox.next().await.unwrap().len(), 5);
    }
}
