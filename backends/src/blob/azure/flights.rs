//! Which blobs have blocks on their way. A writer that is given up leaves its requests running, and deleting its blob has to
//! wait for them: a block that arrives later would bring it back.

use dropgate_schemas::id::BlobId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// All of one store. Bounded by what all writers have on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    flying: Mutex<HashMap<BlobId, usize>>,
    landed: Notify,
}

/// One block on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    board: Arc<Board>,
    blob: BlobId,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<BlobId, usize>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flights {
    pub(super) fn begin(&self, blob: BlobId) -> Flight {
        *self.0.lock().entry(blob).or_default() += 1;
        Flight { board: Arc::clone(&self.0), blob }
    }

    /// Waits until nothing of `blob` is on its way; each request has a deadline of its own.
    pub(super) async fn landed(&self, blob: BlobId) {
        loop {
            let landed = self.0.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if !self.0.lock().contains_key(&blob) {
                return;
            }
            landed.await;
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flying = self.board.lock();
        if let Some(count) = flying.get_mut(&self.blob) {
            *count -= 1;
            if *count == 0 {
                flying.remove(&self.blob);
            }
        }
        drop(flying);
        self.board.landed.notify_waiters();
    }
}
