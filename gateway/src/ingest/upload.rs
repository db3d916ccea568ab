//! One upload while its handle is open: from the first WRITE to the sealed blob.

mod context;
mod outcome;
mod state;
mod worker;

#[cfg(test)]
mod tests;

use super::{assembly::Assembly, digest::RunningDigest, error::IngestError};
use bytes::Bytes;
pub use context::{UploadContext, UploadOptions};
use dropgate_backends::BlobStore;
use dropgate_schemas::{id::BlobId, upload::Staged};
pub use outcome::{Content, Finished, Parked};
use state::{Memory, Phase, Reached, Shared, State};
use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, MutexGuard},
};
use tokio::sync::{oneshot, watch};

/// One upload while its handle is open.
///
/// [`write`](Self::write) copies the payload once into a block buffer; full blocks go to the upload's own worker task,
/// which hashes them in order and stages them. The worker starts when an upload outgrows the inline bound, so small
/// files cost neither a task nor a large buffer. All methods take `&self` and are cancel-safe: a dropped `write` has
/// taken nothing, and every permit goes back when its bytes are gone. Dropping the value ends the worker and frees the
/// memory; what was staged stays in the store for the collector.
///
/// After the first error the upload is failed: later writes are discarded with the same error, and it can only be
/// [parked](Self::park) or [abandoned](Self::abandon).
#[derive(Debug)]
pub struct OpenUpload {
    shared: Arc<Shared>,
}

impl OpenUpload {
    /// A new file (`OPEN` of a name that has nothing to continue, or with `TRUNC`). Does no I/O.
    #[must_use]
    pub fn fresh(context: UploadContext) -> Self {
        Self::new(context, 0, Vec::new(), None)
    }

    /// Continues an interrupted upload, or replaces it: the first WRITE decides, at exactly `staged.length` or at 0.
    /// Does no I/O; the blob is looked for when the first bytes are staged.
    ///
    /// # Errors
    /// [`IngestError::NotResumable`] if the stored digest state can't be read.
    pub fn resume(context: UploadContext, staged: Staged) -> Result<Self, IngestError> {
        RunningDigest::resume(&staged)?;
        if staged.length > 0 && staged.blob.is_none() {
            return Err(IngestError::NotResumable);
        }
        Ok(Self::new(context, staged.length, Vec::new(), Some(staged)))
    }

    /// Continues an unsealed upload of which the content is at hand (a held file that is kept inline).
    #[must_use]
    pub fn resume_inline(context: UploadContext, content: &Bytes) -> Self {
        Self::new(context, content.len() as u64, content.to_vec(), None)
    }

    fn new(context: UploadContext, there: u64, tail: Vec<u8>, source: Option<Staged>) -> Self {
        let block_size = context.store.block_size().max(context.options.inline_max + 1);
        // The budget may be used up just now; a few bytes that came from the record are then not counted.
        let permit = u32::try_from(tail.len()).ok().and_then(|bytes| context.budgets.try_small(bytes));
        let state = State {
            assembly: Assembly::new(
                there,
                tail,
                block_size,
                context.options.window,
                Arc::clone(&context.budgets.gateway.spare),
            ),
            ready: VecDeque::new(),
            memory: Memory::Small(permit),
            phase: Phase::Open,
            failed: None,
            durable: source.clone(),
            progress: Some(watch::Sender::new(source.clone())),
            untouched: true,
            declared: None,
            blob: source.as_ref().and_then(|staged| staged.blob.as_ref()).map(|blob| blob.blob),
            source,
            replaced: Vec::new(),
            generation: 0,
            sync_wanted: 0,
            gap_since: None,
            has_worker: false,
        };
        Self { shared: Arc::new(Shared::new(context, state)) }
    }

    /// Takes the payload of one WRITE. Waits only for memory that the storage frees, never for output.
    ///
    /// # Errors
    /// Any [`IngestError`]; a storage failure is reported on the first WRITE after it.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), IngestError> {
        let needed = match self.try_write(offset, data)? {
            None => return Ok(()),
            Some(needed) => needed,
        };
        let context = &self.shared.context;
        let limit = context.options.stall_limit;
        let Some(share) = context.budgets.acquire(needed, limit).await else {
            return Err(self.shared.fail(IngestError::Stalled(limit)));
        };
        let mut state = self.shared.lock();
        state.check_open()?;
        state.memory.add_share(share);
        self.place(state, offset, data)
    }

    /// Takes the payload if there is memory for it at once; otherwise tells how much to wait for.
    fn try_write(&self, offset: u64, data: &[u8]) -> Result<Option<u32>, IngestError> {
        let context = &self.shared.context;
        let mut state = self.shared.lock();
        state.check_open()?;
        if data.is_empty() {
            return Ok(None);
        }
        let checked =
            self.check_size(offset, data.len()).and_then(|()| state.assembly.check(offset, data.len()));
        if let Err(error) = checked {
            drop(state);
            return Err(self.shared.fail(error));
        }
        let mut needed = data.len();
        if matches!(state.memory, Memory::Small(_)) {
            let small = offset <= state.assembly.contiguous()
                && offset + data.len() as u64 <= context.options.inline_max as u64;
            if small && let Some(permit) = context.budgets.try_small(as_u32(needed)) {
                state.memory.add_small(permit);
                return self.place(state, offset, data).map(|()| None);
            }
            // It becomes a streaming upload: the memory of all its bytes moves to the other budget.
            needed += state.assembly.held();
        }
        match context.budgets.try_acquire(as_u32(needed)) {
            Some(share) => {
                state.memory.add_share(share);
                self.place(state, offset, data).map(|()| None)
            }
            None => Ok(Some(as_u32(needed))),
        }
    }

    fn place(&self, mut state: MutexGuard<'_, State>, offset: u64, data: &[u8]) -> Result<(), IngestError> {
        let streams = matches!(state.memory, Memory::Blocks(_));
        let placed = state.place(&self.shared, offset, data).and_then(|work| {
            if streams && !state.has_worker {
                worker::spawn(&self.shared, &mut state)?;
            }
            Ok(work)
        });
        drop(state);
        match placed {
            Ok(work) => {
                if work {
                    self.shared.wake.notify_one();
                }
                Ok(())
            }
            Err(error) => Err(self.shared.fail(error)),
        }
    }

    fn check_size(&self, offset: u64, length: usize) -> Result<(), IngestError> {
        let context = &self.shared.context;
        let end = offset.saturating_add(length as u64);
        if end > context.options.max_size {
            return Err(IngestError::TooLarge { limit: context.options.max_size });
        }
        match context.quota_left {
            Some(left) if end > left => Err(IngestError::OverQuota { left }),
            Some(_) | None => Ok(()),
        }
    }

    /// FSETSTAT with a size: equal is fine, larger declares a size, 0 starts again, smaller cuts what is not staged yet.
    ///
    /// # Errors
    /// [`IngestError::Rewrite`] if it would cut staged bytes (the upload goes on), or the error the upload failed with.
    pub fn truncate(&self, size: u64) -> Result<(), IngestError> {
        let mut state = self.shared.lock();
        state.check_open()?;
        let before = state.assembly.contiguous();
        if size > before {
            self.check_size(size, 0)?;
        }
        state.assembly.truncate(size)?;
        state.untouched = false;
        state.declared = (size > 0).then_some(size);
        if size == 0 && before > 0 {
            state.start_over(&self.shared);
        }
        state.cut_to(&self.shared, size);
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Declares the size the file will have (`OPEN` with SIZE): [`finish`](Self::finish) refuses fewer bytes.
    pub fn declare_size(&self, size: u64) {
        self.shared.lock().declared = Some(size);
    }

    /// The declared size, if there is one.
    #[must_use]
    pub fn declared_size(&self) -> Option<u64> {
        self.shared.lock().declared
    }

    /// Bytes that arrived without a gap; for an upload that may be resumed and has got nothing yet, the bytes before it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.lock().assembly.contiguous()
    }

    /// No WRITE and no truncation came yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.shared.lock().untouched
    }

    /// The error it failed with, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<IngestError> {
        self.shared.lock().failed.clone()
    }

    /// Durable progress, to be saved in the record: a new value every 2 s, sooner after 64 MiB, none again when the client
    /// starts over. The channel closes when the upload has ended, in whatever way.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<Staged>> {
        match &self.shared.lock().progress {
            Some(progress) => progress.subscribe(),
            None => watch::channel(None).1,
        }
    }

    /// `fsync@openssh.com`: resolves once everything that has arrived so far is durable in the blob store. The future
    /// borrows nothing, so that it can run beside further requests.
    ///
    /// # Errors
    /// [`IngestError::Hole`] if bytes wait behind a gap; otherwise the error the upload failed with.
    pub fn flush_durable(&self) -> impl Future<Output = Result<(), IngestError>> + Send + 'static + use<> {
        let asked = self.ask_for_sync();
        let shared = Arc::clone(&self.shared);
        async move {
            let (generation, length) = asked?;
            let there = |r: &Reached| r.generation != generation || r.durable >= length.min(r.cut_to);
            let mut reached = shared.reached.subscribe();
            if there(&reached.borrow()) {
                return Ok(());
            }
            {
                let mut state = shared.lock();
                if !state.has_worker
                    && state.check_open().is_ok()
                    && let Err(error) = worker::spawn(&shared, &mut state)
                {
                    drop(state);
                    return Err(shared.fail(error));
                }
            }
            shared.wake.notify_one();
            match reached.wait_for(|r| there(r) || r.ended).await.map(|r| there(&r)) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(shared.lock().failed.clone().unwrap_or(IngestError::Closed)),
            }
        }
    }

    fn ask_for_sync(&self) -> Result<(u64, u64), IngestError> {
        let mut state = self.shared.lock();
        state.check_open()?;
        if let Some(gap) = state.assembly.gap() {
            return Err(gap);
        }
        let length = state.assembly.contiguous();
        state.sync_wanted = state.sync_wanted.max(length);
        Ok((state.generation, length))
    }

    /// CLOSE: the rest is staged, the digest and the content type are settled, the blob is sealed.
    ///
    /// # Errors
    /// [`IngestError::Hole`], [`IngestError::StartElsewhere`] and [`IngestError::Short`] before anything was done: the
    /// upload may still be parked. Otherwise what it failed with.
    pub async fn finish(&self) -> Result<Finished, IngestError> {
        let (answer, finished) = oneshot::channel();
        let small = {
            let mut state = self.shared.lock();
            state.check_open()?;
            if let Some(gap) = state.assembly.gap() {
                return Err(gap);
            }
            let received = state.assembly.contiguous();
            if let Some(declared) = state.declared.filter(|declared| received < *declared) {
                return Err(IngestError::Short { declared, received });
            }
            // Small, and never staged. There is no store to wait for, so no point in a task.
            let small = !state.has_worker && state.source.is_none();
            if small {
                let content = state.take_fill();
                state.end();
                Some(content)
            } else {
                self.with_worker(&mut state, Phase::Finishing(answer))?;
                None
            }
        };
        if let Some(content) = small {
            return Ok(worker::finish_inline(&self.shared, content).await);
        }
        self.shared.wake.notify_one();
        match finished.await {
            Ok(result) => result,
            Err(_) => Err(self.failure().unwrap_or(IngestError::Closed)),
        }
    }

    /// The connection was lost, or the file is short: what is there without a gap becomes durable, to be resumed later.
    /// After a storage failure it tells the last durable progress.
    pub async fn park(&self) -> Parked {
        let (answer, parked) = oneshot::channel();
        if !self.ask_to_park(answer) {
            self.wait_for_worker().await;
            return self.shared.parked();
        }
        self.shared.wake.notify_one();
        match parked.await {
            Ok(parked) => parked,
            // The storage failed on the way: what was durable before still is.
            Err(_) => self.shared.parked(),
        }
    }

    /// Tells the worker to make durable what is there. False if there is nothing more to do than to end.
    fn ask_to_park(&self, answer: oneshot::Sender<Parked>) -> bool {
        let mut state = self.shared.lock();
        state.assembly.drop_window();
        let held = state.assembly.held();
        state.memory.shrink_to(held);
        let idle = !state.has_worker && held == 0;
        let asked = !idle
            && state.check_open().is_ok()
            && self.with_worker(&mut state, Phase::Parking(answer)).is_ok();
        if !asked {
            state.end();
            self.shared.stop.cancel();
        }
        asked
    }

    /// Gives the upload up. Returns the blobs to delete once the record says so, by [`delete_blobs`].
    pub async fn abandon(&self) -> Vec<BlobId> {
        self.shared.close();
        self.wait_for_worker().await;
        self.shared.lock().all_blobs()
    }

    fn with_worker(&self, state: &mut State, phase: Phase) -> Result<(), IngestError> {
        if !state.has_worker {
            worker::spawn(&self.shared, state)?;
        }
        state.phase = phase;
        Ok(())
    }

    /// Until no call to the store is under way.
    async fn wait_for_worker(&self) {
        if !self.shared.lock().has_worker {
            return;
        }
        let mut reached = self.shared.reached.subscribe();
        // The sender is held by `self`.
        let _ = reached.wait_for(|reached| reached.ended).await;
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn as_u32(bytes: usize) -> u32 {
    // A WRITE is bounded by the packet size, 256 KiB, and what it is added to by the window.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Deletes blobs that no record names. A failure is only logged: the collector finds them later.
pub async fn delete_blobs(store: &dyn BlobStore, blobs: &[BlobId]) {
    for &blob in blobs {
        if let Err(error) = store.delete(blob).await {
            tracing::warn!(?blob, %error, "an unused blob was not deleted");
        }
    }
}
