//! The worker of one streaming upload: takes its blocks in order, hashes and stages them.
//!
//! It is the only one that talks to the blob store for this upload, one call at a time.

use super::{
    Content, Finished, Parked,
    state::{Ends, Phase, Shared, State},
};
use crate::ingest::{block::Block, budget::Pressure, digest::RunningDigest, error::IngestError};
use bytes::Bytes;
use dropgate_backends::{BlobError, BlobWriter};
use dropgate_schemas::{content::ContentType, id::BlobId};
use std::{future::Future, sync::Arc};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// Hashing goes in pieces of this size, so that a large block doesn't keep other tasks from a core for long.
const HASH_PIECE: usize = 512 << 10;

pub(super) struct Worker {
    shared: Arc<Shared>,
    pressure: Pressure,
    generation: u64,
    writer: Option<Box<dyn BlobWriter>>,
    digest: RunningDigest,
    /// Bytes of `digest` that the store has made durable.
    synced: u64,
    synced_at: Instant,
}

/// What there is to do, most urgent first.
enum Step {
    /// Nothing more: the upload is closed or failed.
    End,
    /// Stage this.
    Stage(Block),
    /// Make durable what is staged.
    Sync,
    /// Complete the upload; the block is its whole content if that is small and nothing was staged.
    Finish(oneshot::Sender<Result<Finished, IngestError>>, Option<Block>),
    /// Everything was made durable for a later resume.
    Parked(oneshot::Sender<Parked>),
    /// Nothing now.
    Wait,
}

/// Starts the worker. It ends by itself when the upload does.
///
/// # Errors
/// `NotResumable` if the state to continue from can't be read.
pub(super) fn spawn(shared: &Arc<Shared>, state: &mut State) -> Result<(), IngestError> {
    let digest = match &state.source {
        Some(staged) => RunningDigest::resume(staged)?,
        None => RunningDigest::default(),
    };
    let worker = Worker {
        shared: Arc::clone(shared),
        pressure: shared.context.budgets.pressure(),
        generation: state.generation,
        writer: None,
        synced: digest.length(),
        digest,
        synced_at: Instant::now(),
    };
    state.has_worker = true;
    tokio::spawn(worker.run());
    Ok(())
}

impl Worker {
    async fn run(self) {
        // Dropped last: nobody is told of the end before the writer is gone.
        let _ends = Ends(Arc::clone(&self.shared));
        let mut worker = self;
        worker.work().await;
        drop(worker);
    }

    async fn work(&mut self) {
        let mut pressed = false;
        loop {
            let done = match self.next_step(pressed) {
                Step::End => return,
                Step::Stage(block) => self.stage(block.into_bytes()).await,
                Step::Sync => self.sync().await,
                Step::Finish(answer, inline) => {
                    let finished = match inline {
                        Some(content) => Ok(finish_inline(&self.shared, content).await),
                        None => self.finish().await,
                    };
                    // Nobody waits any more if the session has ended: the sealed blob is left to the collector.
                    let _ = answer.send(finished.map_err(|error| self.shared.fail(error)));
                    return;
                }
                Step::Parked(answer) => {
                    let _ = answer.send(self.shared.parked());
                    return;
                }
                Step::Wait => {
                    pressed = self.wait().await;
                    continue;
                }
            };
            pressed = false;
            if let Err(error) = done {
                self.shared.fail(error);
                return;
            }
        }
    }

    fn next_step(&mut self, pressed: bool) -> Step {
        let mut state = self.shared.lock();
        if state.failed.is_some() || matches!(state.phase, Phase::Closed) {
            return Step::End;
        }
        if state.generation != self.generation {
            self.generation = state.generation;
            self.writer = None;
            self.digest = RunningDigest::default();
            self.synced = 0;
        }
        if let Some(block) = state.ready.pop_front() {
            return Step::Stage(block);
        }
        if pressed && let Some(since) = state.gap_since {
            // A client that left a gap and then went quiet holds memory that others wait for.
            if since.elapsed() > self.shared.context.options.stall_limit {
                let missing = state.assembly.contiguous();
                drop(state);
                self.shared.fail(IngestError::Hole { missing });
                return Step::End;
            }
        }
        let (finishing, parking) = match state.phase {
            Phase::Open | Phase::Closed => (false, false),
            Phase::Finishing(_) => (true, false),
            Phase::Parking(_) => (false, true),
        };
        let nothing_staged = state.source.is_none() && self.digest.length() == 0 && state.sync_wanted == 0;
        if finishing && nothing_staged && state.assembly.filled() <= self.shared.context.options.inline_max {
            let content = state.take_fill();
            return match std::mem::replace(&mut state.phase, Phase::Closed) {
                Phase::Finishing(answer) => Step::Finish(answer, Some(content)),
                Phase::Open | Phase::Parking(_) | Phase::Closed => Step::End,
            };
        }
        let wanted = pressed || finishing || parking || state.sync_wanted > self.digest.length();
        if wanted && state.assembly.filled() > 0 {
            return Step::Stage(state.take_fill());
        }
        if !finishing && (state.sync_wanted > self.synced || (parking && self.is_dirty())) {
            return Step::Sync;
        }
        match std::mem::replace(&mut state.phase, Phase::Closed) {
            Phase::Finishing(answer) => Step::Finish(answer, None),
            Phase::Parking(answer) => Step::Parked(answer),
            Phase::Closed => Step::End,
            Phase::Open => {
                state.phase = Phase::Open;
                if self.is_dirty()
                    && self.synced_at.elapsed() >= self.shared.context.options.progress_interval
                {
                    return Step::Sync;
                }
                Step::Wait
            }
        }
    }

    /// Bytes are staged that are not known to be durable.
    fn is_dirty(&self) -> bool {
        self.digest.length() > self.synced
    }

    /// Waits for work, for the time to save progress, or for somebody who needs memory (then true).
    async fn wait(&mut self) -> bool {
        let due = self.synced_at + self.shared.context.options.progress_interval;
        let dirty = self.is_dirty();
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => false,
            () = self.shared.wake.notified() => false,
            () = self.pressure.wanted() => true,
            () = sleep_until(due), if dirty => false,
        }
    }

    /// Hashes and stages one block. The store works on it while it is hashed.
    async fn stage(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        self.open_writer().await?;
        // None: the client has started again just now, and these bytes don't count.
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let stage = unless_over(&self.shared, writer.stage(bytes.clone()));
        let hash = async {
            for piece in bytes.chunks(HASH_PIECE) {
                self.digest.update(piece);
                if bytes.len() > HASH_PIECE {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (staged, ()) = tokio::join!(stage, hash);
        drop(bytes);
        staged?;
        let options = &self.shared.context.options;
        let (bytes, elapsed) = (self.digest.length() - self.synced, self.synced_at.elapsed());
        // A fast upload is not slowed down by a sync every 64 MiB: it would re-send those within a second.
        let due = elapsed >= options.progress_interval
            || (bytes >= options.progress_bytes && elapsed >= options.progress_interval / 4);
        if due { self.sync().await } else { Ok(()) }
    }

    /// Makes durable what is staged, and publishes it as progress.
    async fn sync(&mut self) -> Result<(), IngestError> {
        self.open_writer().await?;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let blob = unless_over(&self.shared, writer.sync()).await?;
        self.synced = self.digest.length();
        self.synced_at = Instant::now();
        let staged = self.digest.staged(blob);
        let mut state = self.shared.lock();
        // If the client has started again meanwhile, this is progress of bytes that don't count.
        if state.generation == self.generation {
            state.publish(Some(staged));
            let durable = self.synced;
            self.shared.reached.send_modify(|reached| reached.durable = durable);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<Finished, IngestError> {
        self.open_writer().await?;
        let Some(writer) = self.writer.take() else { return Err(IngestError::Closed) };
        let size = self.digest.length();
        // The store works on it while its type is looked for.
        let seal = unless_over(&self.shared, writer.seal(size));
        let detector = &self.shared.context.detector;
        let (sealed, content_type) = tokio::join!(seal, detector.detect(self.digest.edges()));
        sealed?;
        let mut state = self.shared.lock();
        let Some(blob) = state.blob.take() else { return Err(IngestError::Closed) };
        let replaced = std::mem::take(&mut state.replaced);
        drop(state);
        self.shared.reached.send_modify(|reached| reached.durable = size);
        Ok(finished(Content::Stored(blob), &self.digest, content_type, replaced))
    }

    /// The writer is opened when it is first needed: a client that starts again never needs the old blob.
    async fn open_writer(&mut self) -> Result<(), IngestError> {
        if self.writer.is_some() {
            return Ok(());
        }
        let context = &self.shared.context;
        let source = {
            let mut state = self.shared.lock();
            let source = state.source.as_ref().and_then(|staged| Some((staged.blob.clone()?, staged.length)));
            if source.is_none() && state.generation == self.generation {
                state.blob = Some(BlobId::new());
            }
            source.ok_or(state.blob)
        };
        let writer = match source {
            Ok((blob, length)) => {
                let resumed =
                    unless_over(&self.shared, context.store.resume(&blob, length, context.epoch)).await;
                resumed.map_err(|error| match error {
                    IngestError::Store(BlobError::NotFound(_) | BlobError::Conflict { .. } | BlobError::Corrupt { .. }) => {
                        tracing::warn!(blob = ?blob.blob, length, error = ?error, "an interrupted upload can't be continued");
                        IngestError::NotResumable
                    }
                    other => other,
                })?
            }
            Err(Some(blob)) => unless_over(&self.shared, context.store.begin(blob, context.epoch)).await?,
            // The client has started again just now: the next step sees that.
            Err(None) => return Ok(()),
        };
        self.writer = Some(writer);
        Ok(())
    }
}

impl Shared {
    /// The last durable progress, as what is left of the upload.
    pub(super) fn parked(&self) -> Parked {
        let mut state = self.lock();
        let staged = state.durable.clone();
        let kept = staged.as_ref().and_then(|staged| staged.blob.as_ref()).map(|blob| blob.blob);
        let mut replaced = state.all_blobs();
        replaced.retain(|blob| Some(*blob) != kept);
        Parked { staged, replaced }
    }
}

/// A call of the blob store. It is dropped when the upload ends: then nobody wants its result.
async fn unless_over<T>(
    shared: &Shared,
    call: impl Future<Output = Result<T, BlobError>>,
) -> Result<T, IngestError> {
    tokio::select! {
        biased;
        answer = call => answer.map_err(IngestError::Store),
        () = shared.stop.cancelled() => Err(IngestError::Closed),
    }
}

/// Settles an upload whose whole content is `content`.
pub(super) async fn finish_inline(shared: &Shared, content: Block) -> Finished {
    let mut digest = RunningDigest::default();
    digest.update(content.as_ref());
    let replaced = shared.lock().all_blobs();
    let content_type = shared.context.detector.detect(digest.edges()).await;
    finished(Content::Inline(content.into_bytes()), &digest, content_type, replaced)
}

fn finished(
    content: Content,
    digest: &RunningDigest,
    content_type: ContentType,
    replaced: Vec<BlobId>,
) -> Finished {
    Finished { content, size: digest.length(), sha256: digest.finish(), content_type, replaced }
}
