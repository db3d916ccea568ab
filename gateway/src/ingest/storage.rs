//! Whether the blob store takes new uploads, so that an OPEN need not run into a store that is down or full.

use crate::vfs::Refusal;
use dropgate_backends::{BlobError, BlobStore};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// A busy store may be late once.
const LATE_TIMES: u32 = 2;

/// What the blob store said when it was asked last. Until then it counts as good.
#[derive(Debug, Default)]
pub struct Storage(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    refusal: Option<Refusal>,
    /// How often in a row it did not answer.
    late: u32,
}

impl Storage {
    /// Whether an upload may be begun.
    ///
    /// # Errors
    /// What to tell the client.
    pub fn may_begin(&self) -> Result<(), Refusal> {
        self.said().refusal.clone().map_or(Ok(()), Err)
    }

    /// Keeps asking until `stop`.
    pub async fn watch(self: Arc<Self>, store: Arc<dyn BlobStore>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self.ask(store.as_ref()).await;
        }
    }

    /// Asks once.
    pub async fn ask(&self, store: &dyn BlobStore) {
        let late = |_| Err(BlobError::Unavailable(format!("no answer within {PATIENCE:?}")));
        let answer = tokio::time::timeout(PATIENCE, store.check()).await.unwrap_or_else(late);
        let mut said = self.said();
        said.late =
            if matches!(answer, Err(BlobError::Unavailable(_))) { said.late.saturating_add(1) } else { 0 };
        let refusal = match &answer {
            Ok(()) => None,
            Err(BlobError::Unavailable(_)) if said.late < LATE_TIMES => said.refusal.clone(),
            Err(BlobError::Full(_)) => Some(Refusal::failure(
                "no space: the server's storage is full; try again later, or ask the operator to make room",
            )),
            Err(
                BlobError::Unavailable(_)
                | BlobError::Rejected(_)
                | BlobError::NotFound(_)
                | BlobError::Conflict { .. }
                | BlobError::Corrupt { .. },
            ) => Some(Refusal::Unavailable(
                "the server's storage can't be used now: upload the file again in a few minutes".to_owned(),
            )),
        };
        match (&said.refusal, &refusal, answer) {
            (None, Some(_), Err(error)) => {
                tracing::error!(%error, "new uploads are refused: the blob store can't take them");
            }
            (Some(_), None, _) => tracing::info!("the blob store takes uploads again"),
            _ => {}
        }
        said.refusal = refusal;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
