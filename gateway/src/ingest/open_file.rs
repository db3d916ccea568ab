//! One open handle of an upload: the bytes on their way and the record that goes with them.

use super::{
    OpenUpload,
    commit::{CloseAnswer, Committer},
    error::IngestError,
};
use crate::{sftp::attrs::Attrs, vfs::Refusal};
use dropgate_backends::{
    StateError,
    observe::{Gauge, Inside},
};
use dropgate_schemas::{
    digest::Sha256,
    path::VirtualPath,
    upload::{Attributes, Grade, Staged, Upload},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

/// An old handle that got nothing for so long may be taken over.
const IDLE_TAKE_OVER: Duration = Duration::from_secs(10);

/// What a handle is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Done,
}

/// How the first bytes may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// At 0, or where an unfinished upload ended: [`OpenUpload`] watches over it.
    Free,
    /// At 0 only. A WRITE that begins at `shown`, the size a client was told, is an attempt to resume and gets `refusal`
    /// at once, and so does any WRITE to a file that was opened to append; other offsets are only out of order.
    Whole {
        /// The size that STAT showed at OPEN.
        shown: u64,
        /// It was opened to append.
        append: bool,
        /// What to answer.
        refusal: Refusal,
    },
    /// At `from`, where an unfinished upload ended that was opened to append. Bytes before it would be meant for its end.
    End {
        /// The durable length at OPEN.
        from: u64,
    },
}

/// One open handle.
pub struct OpenFile {
    path: VirtualPath,
    bytes: OpenUpload,
    beginning: Beginning,
    /// The record as it was last written, and therefore its revision.
    record: AsyncMutex<Upload>,
    /// Complete under a temp name already, with this size and digest: as long as nothing is written, CLOSE leaves it as it is.
    complete_before: Option<(u64, Sha256)>,
    /// Held from the start of an interrupted upload: a CLOSE without any WRITE does not complete it.
    resumed: bool,
    /// The accepted version that stays as it is if nothing is written.
    keeps: Option<Upload>,
    /// Whether a WRITE came, taken or not.
    wrote: AtomicBool,
    phase: Mutex<Phase>,
    last_write: Mutex<Instant>,
    gone: AtomicBool,
    said: Mutex<Said>,
    saver: OnceLock<()>,
    reopened: OnceCell<()>,
    _counted: Inside,
}

/// What the client told of the file while it was open.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    attributes: Attributes,
    at_open: Option<u64>,
    by_fsetstat: Option<u64>,
    /// FSETSTAT with SIZE 0: an empty file is meant.
    emptied: bool,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a new handle starts with.
pub struct NewFile {
    /// The record as written.
    pub record: Upload,
    /// The bytes.
    pub bytes: OpenUpload,
    /// How they may begin.
    pub beginning: Beginning,
    /// Size that the client declared at OPEN.
    pub declared_at_open: Option<u64>,
    /// Size and digest, if it was complete under a temp name before.
    pub complete_before: Option<(u64, Sha256)>,
    /// It continues an interrupted upload.
    pub resumed: bool,
    /// The accepted version of the name, if the client did not ask for an empty file in its place.
    pub keeps: Option<Upload>,
}

impl OpenFile {
    /// A new handle.
    #[must_use]
    pub fn new(new: NewFile) -> Arc<Self> {
        if let Some(size) = new.declared_at_open {
            new.bytes.declare_size(size);
        }
        Arc::new(Self {
            path: new.record.path.clone(),
            beginning: new.beginning,
            said: Mutex::new(Said {
                attributes: new.record.attributes,
                at_open: new.declared_at_open,
                by_fsetstat: None,
                emptied: false,
            }),
            record: AsyncMutex::new(new.record),
            bytes: new.bytes,
            complete_before: new.complete_before,
            resumed: new.resumed,
            keeps: new.keeps,
            wrote: AtomicBool::new(false),
            phase: Mutex::new(Phase::Open),
            last_write: Mutex::new(Instant::now()),
            gone: AtomicBool::new(false),
            _counted: Gauge::UploadsReceiving.enter(),
            saver: OnceLock::new(),
            reopened: OnceCell::new(),
        })
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &VirtualPath {
        &self.path
    }

    /// Takes a part of the payload of a WRITE. Waits for the storage budget only.
    ///
    /// # Errors
    /// What the WRITE must be answered with; later parts and WRITEs are discarded with the same answer.
    pub async fn write(
        self: &Arc<Self>,
        offset: u64,
        data: &[u8],
        committer: &Arc<Committer>,
    ) -> Result<(), Refusal> {
        if *lock(&self.phase) != Phase::Open {
            return Err(taken_over());
        }
        self.wrote.store(true, Ordering::Relaxed);
        self.check_beginning(offset)?;
        *lock(&self.last_write) = Instant::now();
        if self.complete_before.is_some() {
            // Complete under its temp name until the first byte of something else comes.
            self.reopened.get_or_try_init(|| committer.reopen(self)).await?;
        }
        self.bytes.write(offset, data).await.map_err(|e| refusal(&e))?;
        if self.bytes.received() > committer.inline_max() {
            self.saver.get_or_init(|| {
                let saving = Arc::clone(self).save_progress(Arc::clone(committer));
                tokio::spawn(saving);
            });
        }
        Ok(())
    }

    fn check_beginning(&self, offset: u64) -> Result<(), Refusal> {
        match &self.beginning {
            Beginning::Whole { shown, append, refusal }
                if (*append || (*shown > 0 && offset == *shown)) && self.bytes.is_untouched() =>
            {
                Err(refusal.clone())
            }
            Beginning::End { from } if offset < *from && !lock(&self.said).emptied => {
                Err(self.before_the_end(*from))
            }
            Beginning::Whole { .. } | Beginning::End { .. } | Beginning::Free => Ok(()),
        }
    }

    /// Saves durable progress in the record for as long as the upload runs.
    async fn save_progress(self: Arc<Self>, committer: Arc<Committer>) {
        let mut progress = self.bytes.progress();
        while progress.changed().await.is_ok() {
            let staged: Option<Staged> = progress.borrow_and_update().clone();
            let mut record = self.record.lock().await;
            if *lock(&self.phase) != Phase::Open {
                return;
            }
            match committer.save_progress(&record, staged).await {
                Ok(saved) => *record = saved,
                Err(StateError::Conflict { .. } | StateError::NotFound(_)) => {
                    // Somebody else owns the upload now: nothing of ours may get into it any more.
                    *lock(&self.phase) = Phase::Done;
                    committer.live.remove(record.upload_id, &self);
                    // Its blobs are the new owner's, so they are left alone; the memory is free now.
                    let _ = self.bytes.abandon().await;
                    return;
                }
                // The next progress is saved instead; until then a resume begins further back.
                Err(error) => tracing::warn!(upload = %record.upload_id, %error, "progress was not saved"),
            }
        }
    }

    /// FSETSTAT.
    ///
    /// # Errors
    /// If the size can't be what the client says.
    pub fn set_attributes(&self, attrs: &Attrs) -> Result<(), Refusal> {
        if *lock(&self.phase) == Phase::Done {
            return Err(taken_over());
        }
        if let Some(size) = attrs.size {
            self.bytes.truncate(size).map_err(|e| refusal(&e))?;
        }
        let mut said = lock(&self.said);
        match attrs.size {
            Some(0) => said.emptied = true,
            Some(_) => said.by_fsetstat = attrs.size,
            None => {}
        }
        said.attributes = crate::vfs::attributes::merge(said.attributes, attrs);
        Ok(())
    }

    /// What the client said of mode, owner and times.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        lock(&self.said).attributes
    }

    /// Bytes received without a gap.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.bytes.received()
    }

    /// The size that STAT and FSTAT show: what was received, or before the first WRITE onto an accepted name, its size.
    #[must_use]
    pub fn visible_size(&self) -> u64 {
        match &self.beginning {
            Beginning::Whole { shown, .. } if self.bytes.is_untouched() => *shown,
            Beginning::Whole { .. } | Beginning::End { .. } | Beginning::Free => self.bytes.received(),
        }
    }

    /// `fsync@openssh.com`.
    ///
    /// # Errors
    /// If not all that arrived is durable.
    pub async fn fsync(&self) -> Result<(), Refusal> {
        if *lock(&self.phase) == Phase::Done {
            return Err(taken_over());
        }
        self.bytes.flush_durable().await.map_err(|e| refusal(&e))
    }

    /// How sure we are that the client had sent `size` bytes and no more, before any rename.
    #[must_use]
    pub fn evidence(&self, size: u64) -> Grade {
        let said = *lock(&self.said);
        if said.at_open == Some(size) {
            Grade::DeclaredSize
        } else if said.by_fsetstat == Some(size) {
            Grade::FsetstatSize
        } else {
            Grade::CloseOnly
        }
    }

    /// Whether nothing was written and the file was complete before.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.complete_before.is_some() && self.bytes.is_untouched()
    }

    /// Whether it continues an interrupted upload, nothing was written, and the client did not say either that what is
    /// there is all.
    #[must_use]
    pub fn is_resumed_untouched(&self) -> bool {
        let said = *lock(&self.said);
        let whole = Some(self.bytes.received());
        self.resumed
            && !self.wrote.load(Ordering::Relaxed)
            && !said.emptied
            && said.by_fsetstat != whole
            && said.at_open != whole
    }

    /// The accepted version of the name, if the client neither wrote anything nor asked for another size. That is how a
    /// client ends that wanted to resume and found everything there, and what `touch` does.
    #[must_use]
    pub fn kept(&self) -> Option<&Upload> {
        let said = *lock(&self.said);
        let as_it_is = |size: Option<u64>, kept: &Upload| size.is_none() || size == kept.size;
        self.keeps.as_ref().filter(|kept| {
            !self.wrote.load(Ordering::Relaxed)
                && !said.emptied
                && as_it_is(said.at_open, kept)
                && as_it_is(said.by_fsetstat, kept)
        })
    }

    /// Size and digest, as long as what was complete before stays as it is.
    #[must_use]
    pub fn digest(&self) -> Option<(u64, Sha256)> {
        if self.is_unchanged() {
            return self.complete_before;
        }
        self.kept().and_then(|kept| kept.size.zip(kept.sha256))
    }

    /// Why nothing was taken, if all that came was an attempt to resume what can't be resumed, or not like that.
    #[must_use]
    pub fn refused_resume(&self) -> Option<Refusal> {
        let nothing_taken =
            self.wrote.load(Ordering::Relaxed) && self.bytes.is_untouched() && self.bytes.failure().is_none();
        match &self.beginning {
            Beginning::Whole { refusal, .. } if nothing_taken => Some(refusal.clone()),
            Beginning::End { from } if nothing_taken => Some(self.before_the_end(*from)),
            Beginning::Whole { .. } | Beginning::End { .. } | Beginning::Free => None,
        }
    }

    fn before_the_end(&self, from: u64) -> Refusal {
        Refusal::failure(format!(
            "{} was opened to append and has {from} bytes: go on there, or open it anew to start at 0",
            self.path
        ))
    }

    /// The bytes.
    pub(super) const fn bytes(&self) -> &OpenUpload {
        &self.bytes
    }

    /// The record; whoever holds the lock may write it.
    pub(super) const fn record(&self) -> &AsyncMutex<Upload> {
        &self.record
    }

    /// CLOSE. Run it on a task of its own: it should go on when the client goes away.
    ///
    /// # Errors
    /// Why the upload was not accepted.
    pub async fn close(&self, committer: &Committer) -> Result<CloseAnswer, Refusal> {
        if !self.leave_open(Phase::Closing) {
            return Err(taken_over());
        }
        let answer = committer.close(self).await;
        *lock(&self.phase) = Phase::Done;
        answer
    }

    /// The connection is gone: what arrived is kept for a resume. Does nothing if the handle was closed.
    pub async fn interrupt(&self, committer: &Committer, why: &str) {
        self.gone.store(true, Ordering::Relaxed);
        if self.leave_open(Phase::Done) {
            committer.interrupt(self, why).await;
        }
    }

    /// REMOVE of the upload in progress: nothing is kept.
    ///
    /// # Errors
    /// If it was not open any more, or its record can't be written.
    pub async fn withdraw(&self, committer: &Committer) -> Result<(), Refusal> {
        if !self.leave_open(Phase::Done) {
            return Err(Committer::in_use(&self.path));
        }
        committer.withdraw(self).await
    }

    /// Whether another session of the account may take the upload over: its connection is gone, or it got nothing for a
    /// while. Never while it is being closed.
    #[must_use]
    pub fn may_be_taken(&self) -> bool {
        *lock(&self.phase) == Phase::Open
            && (self.gone.load(Ordering::Relaxed) || lock(&self.last_write).elapsed() >= IDLE_TAKE_OVER)
    }

    /// Whether it still takes bytes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *lock(&self.phase) == Phase::Open
    }

    /// Whether CLOSE came and is not answered yet.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        *lock(&self.phase) == Phase::Closing
    }

    /// The connection of this handle broke; its clean-up may still be under way.
    pub fn mark_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    fn leave_open(&self, to: Phase) -> bool {
        let mut phase = lock(&self.phase);
        let was_open = *phase == Phase::Open;
        if was_open {
            *phase = to;
        }
        was_open
    }
}

/// The answer on a handle that lost its upload.
fn taken_over() -> Refusal {
    Refusal::failure("this upload was closed or continued by another session of the account")
}

/// Bytes that were not taken, as the partner reads it.
#[must_use]
pub(super) fn refusal(error: &IngestError) -> Refusal {
    match error {
        IngestError::Store(source) => {
            tracing::error!(%source, "the blob store failed an upload");
            Refusal::Unavailable(error.to_string())
        }
        IngestError::Stalled(_) => Refusal::Unavailable(error.to_string()),
        IngestError::StartElsewhere { .. }
        | IngestError::Rewrite { .. }
        | IngestError::TooFarAhead { .. }
        | IngestError::Hole { .. }
        | IngestError::Short { .. }
        | IngestError::TooLarge { .. }
        | IngestError::OverQuota { .. }
        | IngestError::NotResumable
        | IngestError::Closed => Refusal::failure(error.to_string()),
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
