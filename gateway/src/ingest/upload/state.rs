//! What the handle and the worker of one upload share.

use super::{Finished, Parked, UploadContext};
use crate::ingest::{
    assembly::Assembly,
    block::{Block, Hold},
    budget::Share,
    error::IngestError,
};
use dropgate_schemas::{id::BlobId, upload::Staged};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Everything that both sides touch. The lock is held for copying one payload at most, never across an await.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) context: UploadContext,
    state: Mutex<State>,
    /// Wakes the worker.
    pub(super) wake: Notify,
    /// Ends a call of the store that is under way: the upload is over, and its memory is wanted back.
    pub(super) stop: CancellationToken,
    /// How far the worker has got, for those who wait for durability or for its end.
    pub(super) reached: watch::Sender<Reached>,
}

/// How far the worker has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// Which content: raised when the client starts again.
    pub(super) generation: u64,
    /// Bytes of it that are durable.
    pub(super) durable: u64,
    /// The file was cut to this length meanwhile: who waited for more need not.
    pub(super) cut_to: u64,
    /// The worker has ended, and will not come back.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) assembly: Assembly,
    /// Full blocks, oldest first. Bounded by the budgets: each carries its share.
    pub(super) ready: VecDeque<Block>,
    /// Memory that stands for the bytes in `assembly`.
    pub(super) memory: Memory,
    pub(super) phase: Phase,
    pub(super) failed: Option<IngestError>,
    /// The last durable progress.
    pub(super) durable: Option<Staged>,
    /// Tells it to whom keeps the record; none once the upload has ended, which closes the channel.
    pub(super) progress: Option<watch::Sender<Option<Staged>>>,
    pub(super) untouched: bool,
    pub(super) declared: Option<u64>,
    /// What the worker continues from when it first needs the blob; none for a new blob.
    pub(super) source: Option<Staged>,
    /// The blob that holds (or will hold) the staged bytes.
    pub(super) blob: Option<BlobId>,
    pub(super) replaced: Vec<BlobId>,
    pub(super) generation: u64,
    /// Somebody wants everything up to here to be durable.
    pub(super) sync_wanted: u64,
    /// Since when bytes wait behind a gap that did not get smaller.
    pub(super) gap_since: Option<Instant>,
    pub(super) has_worker: bool,
}

/// What the bytes in the assembly are counted against.
#[derive(Debug)]
pub(super) enum Memory {
    /// A small upload, without a worker.
    Small(Option<OwnedSemaphorePermit>),
    /// A streaming one.
    Blocks(Option<Share>),
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Takes writes.
    Open,
    /// The worker is to complete it.
    Finishing(oneshot::Sender<Result<Finished, IngestError>>),
    /// The worker is to make durable what is there.
    Parking(oneshot::Sender<Parked>),
    /// Nothing more is taken.
    Closed,
}

impl Shared {
    pub(super) fn new(context: UploadContext, state: State) -> Self {
        let durable = state.source.as_ref().map_or(0, |staged| staged.length);
        let reached = watch::Sender::new(Reached { generation: 0, durable, cut_to: u64::MAX, ended: false });
        Self {
            context,
            state: Mutex::new(state),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            reached,
        }
    }

    /// A panic while the lock was held can't have left a half-made state that matters: the upload then fails on its own.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails the upload, unless it has failed before, and frees its memory. Returns the first error.
    pub(super) fn fail(&self, error: IngestError) -> IngestError {
        let mut state = self.lock();
        if let Some(first) = &state.failed {
            return first.clone();
        }
        match &error {
            IngestError::Store(source) => {
                tracing::warn!(blob = ?state.blob, error = %source, "upload failed: the blob store did not take it");
            }
            IngestError::Stalled(_) => {
                tracing::warn!(blob = ?state.blob, error = %error, "upload failed");
            }
            refused => tracing::debug!(error = %refused, "upload failed"),
        }
        state.failed = Some(error.clone());
        state.free();
        if matches!(error, IngestError::NotResumable) {
            state.source = None;
            state.publish(None);
        }
        state.progress = None;
        drop(state);
        self.stop.cancel();
        error
    }

    /// Ends the upload as it is: the worker stops, the memory is freed.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.end();
        drop(state);
        self.stop.cancel();
    }
}

impl State {
    /// What stands against taking more, if anything.
    pub(super) fn check_open(&self) -> Result<(), IngestError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Finishing(_) | Phase::Parking(_) | Phase::Closed => Err(IngestError::Closed),
        }
    }

    /// Puts `data` where it belongs, against memory that was taken for it, and lines up the blocks that became full.
    /// Tells whether the worker has something to do.
    pub(super) fn place(&mut self, shared: &Shared, offset: u64, data: &[u8]) -> Result<bool, IngestError> {
        let before = self.assembly.contiguous();
        let placed = self.assembly.place(offset, data)?;
        self.untouched = false;
        if placed.restarted {
            self.start_over(shared);
        }
        let work = placed.restarted || !placed.full.is_empty();
        for data in placed.full {
            let share = self.memory.split(data.len());
            let block = self.block(data, Hold::Share { _share: share });
            self.ready.push_back(block);
        }
        // Bytes that took the place of others need no memory of their own.
        self.memory.shrink_to(self.assembly.held());
        if !self.assembly.has_gap() {
            self.gap_since = None;
        } else if self.gap_since.is_none() || self.assembly.contiguous() != before {
            self.gap_since = Some(Instant::now());
        }
        Ok(work)
    }

    /// Everything before is void: what the worker has lined up, and the blob it staged to.
    pub(super) fn start_over(&mut self, shared: &Shared) {
        self.ready.clear();
        self.source = None;
        self.replaced.extend(self.blob.take());
        self.generation += 1;
        self.sync_wanted = 0;
        if self.durable.is_some() {
            self.publish(None);
        }
        let generation = self.generation;
        shared.reached.send_modify(|reached| {
            *reached = Reached { generation, durable: 0, cut_to: u64::MAX, ..*reached }
        });
    }

    /// The file was cut, which is no more than what was not staged yet.
    pub(super) fn cut_to(&mut self, shared: &Shared, size: u64) {
        self.sync_wanted = self.sync_wanted.min(size);
        self.memory.shrink_to(self.assembly.held());
        if !self.assembly.has_gap() {
            self.gap_since = None;
        }
        shared.reached.send_modify(|reached| reached.cut_to = reached.cut_to.min(size));
    }

    /// Takes what has collected since the last full block.
    pub(super) fn take_fill(&mut self) -> Block {
        let data = self.assembly.take_fill();
        let hold = match &mut self.memory {
            Memory::Small(permit) => Hold::Small { _permit: permit.take() },
            Memory::Blocks(_) => Hold::Share { _share: self.memory.split(data.len()) },
        };
        self.block(data, hold)
    }

    fn block(&self, data: Vec<u8>, hold: Hold) -> Block {
        Block { data, _hold: hold, spare: Arc::clone(self.assembly.spare()) }
    }

    /// All blobs that this upload made or had, for deletion.
    pub(super) fn all_blobs(&mut self) -> Vec<BlobId> {
        let mut blobs = std::mem::take(&mut self.replaced);
        blobs.extend(self.blob.take());
        blobs
    }

    /// Makes progress known that is durable now.
    pub(super) fn publish(&mut self, staged: Option<Staged>) {
        self.durable.clone_from(&staged);
        if let Some(progress) = &self.progress {
            progress.send_replace(staged);
        }
    }

    /// Nothing more is taken, and no more progress comes.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Closed;
        self.progress = None;
        self.free();
    }

    fn free(&mut self) {
        self.assembly.clear();
        self.ready.clear();
        self.memory = Memory::Blocks(None);
        self.gap_since = None;
    }
}

impl Memory {
    /// Adds memory for a streaming upload; that of a small one is given back, since `share` stands for all of it.
    pub(super) fn add_share(&mut self, share: Share) {
        match self {
            Self::Blocks(Some(mine)) => mine.merge(share),
            Self::Blocks(None) | Self::Small(_) => *self = Self::Blocks(Some(share)),
        }
    }

    /// Adds memory for a small upload.
    pub(super) fn add_small(&mut self, more: OwnedSemaphorePermit) {
        match self {
            Self::Small(Some(mine)) => mine.merge(more),
            Self::Small(none) => *none = Some(more),
            Self::Blocks(_) => {}
        }
    }

    fn split(&mut self, bytes: usize) -> Option<Share> {
        match self {
            Self::Blocks(Some(mine)) => mine.split(bytes),
            Self::Blocks(None) | Self::Small(_) => None,
        }
    }

    pub(super) fn shrink_to(&mut self, bytes: usize) {
        match self {
            // Nearly every WRITE leaves nothing over.
            Self::Blocks(Some(mine)) if mine.bytes() > bytes => drop(mine.split(mine.bytes() - bytes)),
            Self::Small(Some(mine)) if mine.num_permits() > bytes => {
                drop(mine.split(mine.num_permits() - bytes));
            }
            Self::Blocks(_) | Self::Small(_) => {}
        }
    }
}

/// The worker's side of ending: whatever ends it, also a panic or the end of the runtime, those who wait are told.
pub(super) struct Ends(pub(super) Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.reached.send_modify(|reached| reached.ended = true);
        let mut state = self.0.lock();
        state.end();
        drop(state);
    }
}
