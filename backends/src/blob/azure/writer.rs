//! Writing one blob: several blocks on the way at a time, and a list of them at the end.

use super::{BlobAzure, LARGE_BLOCK, OPEN, SEALED, block_id, to_error};
use crate::{
    azure::{Cause, Condition, Failure, MAX_BLOCKS},
    blob::{BlobError, BlobWriter},
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dropgate_schemas::{
    id::BlobId,
    upload::{StagedBlob, StagedBlock},
};
use tokio::task::JoinSet;

/// Blocks of one writer on the way at a time.
const IN_FLIGHT: usize = 3;

pub(super) struct Writer {
    store: BlobAzure,
    blob: BlobId,
    epoch: u64,
    /// One run of blocks an epoch; this epoch's, if there is one, is the last.
    runs: Vec<StagedBlock>,
    /// Blocks in all.
    count: u32,
    length: u64,
    /// Copied together for one large block.
    gathered: BytesMut,
    tag: Option<String>,
    in_flight: JoinSet<Result<(), Failure>>,
    /// Set while a call is under way: if it fails or is given up, nobody knows what was staged.
    spent: bool,
}

impl Writer {
    pub(super) fn new(store: BlobAzure, blob: BlobId, epoch: u64) -> Self {
        Self {
            store,
            blob,
            epoch,
            runs: Vec::new(),
            count: 0,
            length: 0,
            gathered: BytesMut::new(),
            tag: None,
            in_flight: JoinSet::new(),
            spent: false,
        }
    }

    /// Takes over: commits what was recorded, so that older owners are out.
    pub(super) async fn resume(
        store: BlobAzure,
        staged: &StagedBlob,
        length: u64,
        epoch: u64,
    ) -> Result<Self, BlobError> {
        let blob = staged.blob;
        let recorded: u64 = staged.blocks.iter().map(|run| run.length).sum();
        if recorded != length {
            let what = format!("{length} bytes were recorded as durable, and its blocks hold {recorded}");
            return Err(BlobError::Corrupt { blob, what });
        }
        if let Some(later) = staged.blocks.iter().find(|run| run.epoch > epoch) {
            let what = format!("an owner of epoch {} has it, later than {epoch}", later.epoch);
            return Err(BlobError::Conflict { blob, what });
        }
        let mut writer = Self::new(store, blob, epoch);
        writer.runs.clone_from(&staged.blocks);
        writer.count = u32::try_from(ids(&staged.blocks).count()).unwrap_or(u32::MAX);
        writer.length = length;
        let condition = staged.tag.clone().map_or(Condition::NothingThere, Condition::Tag);
        let committed = writer.store.commit(blob, ids(&staged.blocks).collect(), &condition, OPEN).await;
        writer.tag = committed.map_err(|failure| match failure.cause {
            Cause::Conflict => BlobError::Conflict {
                blob,
                what: format!("another owner took it over or sealed it ({})", failure.what),
            },
            // Uncommitted blocks are kept for a week.
            Cause::NoBlock => BlobError::NotFound(blob),
            Cause::NotFound
            | Cause::NoContainer
            | Cause::Refused
            | Cause::NoCredential
            | Cause::Range
            | Cause::Damaged
            | Cause::Full
            | Cause::Unavailable
            | Cause::Other => to_error(blob, failure),
        })?;
        Ok(writer)
    }

    fn enter(&mut self) -> Result<(), BlobError> {
        if self.spent {
            return Err(BlobError::Unavailable("an earlier write of this upload failed".to_owned()));
        }
        self.spent = true;
        Ok(())
    }

    /// Waits until at most `left` blocks are on the way, and for what those that arrived say.
    async fn settle(&mut self, left: usize) -> Result<(), BlobError> {
        loop {
            let done = if self.in_flight.len() > left {
                self.in_flight.join_next().await
            } else {
                self.in_flight.try_join_next()
            };
            match done {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => {
                    return Err(match failure.cause {
                        // There is nothing under this name that could be missing.
                        Cause::NotFound => BlobError::Rejected(failure.what),
                        // Only ever the sum of a block, several times: something on the way is broken, and nothing in the store.
                        Cause::Damaged => BlobError::Unavailable(failure.what),
                        Cause::NoContainer
                        | Cause::Conflict
                        | Cause::NoBlock
                        | Cause::Refused
                        | Cause::NoCredential
                        | Cause::Range
                        | Cause::Full
                        | Cause::Unavailable
                        | Cause::Other => to_error(self.blob, failure),
                    });
                }
                Some(Err(error)) => {
                    return Err(BlobError::Unavailable(format!("a block did not arrive: {error}")));
                }
            }
        }
    }

    /// Sends a block, once few enough are on the way.
    async fn put(&mut self, block: Bytes) -> Result<(), BlobError> {
        self.settle(IN_FLIGHT - 1).await?;
        let id = block_id(self.epoch, self.next(block.len() as u64)?);
        let (store, flight) = (self.store.clone(), self.store.flights.begin(self.blob));
        let name = store.name(self.blob);
        self.in_flight.spawn(async move {
            let staged = store.container.put_block(&name, &id, block).await;
            drop(flight);
            staged
        });
        Ok(())
    }

    /// Sends what waits, and waits until all is there.
    async fn put_all(&mut self) -> Result<(), BlobError> {
        if !self.gathered.is_empty() {
            let block = self.gathered.split().freeze();
            self.put(block).await?;
        }
        self.settle(0).await
    }

    /// The number of the next block.
    fn next(&mut self, length: u64) -> Result<u32, BlobError> {
        if self.count >= MAX_BLOCKS {
            let what = format!("blob {} has {MAX_BLOCKS} blocks, and Azure takes no more", self.blob);
            return Err(BlobError::Full(what));
        }
        self.count += 1;
        match self.runs.last_mut().filter(|run| run.epoch == self.epoch) {
            Some(run) => {
                run.seq += 1;
                run.length += length;
                Ok(run.seq)
            }
            None => {
                self.runs.push(StagedBlock { epoch: self.epoch, seq: 0, length });
                Ok(0)
            }
        }
    }
}

/// Names of the blocks of some runs, in order.
fn ids(runs: &[StagedBlock]) -> impl Iterator<Item = Vec<u8>> {
    // More than the service takes is never asked for, whatever a record says.
    let all = runs.iter().flat_map(|run| (0..=run.seq).map(|seq| block_id(run.epoch, seq)));
    all.take(MAX_BLOCKS as usize + 1)
}

#[async_trait]
impl BlobWriter for Writer {
    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError> {
        self.enter()?;
        if !block.is_empty() {
            self.length += block.len() as u64;
            if self.count < self.store.single_blocks {
                self.put(block).await?;
            } else {
                // Copied, so that what the caller counts as its memory is free while it waits.
                self.gathered.extend_from_slice(&block);
                drop(block);
                if self.gathered.len() >= LARGE_BLOCK {
                    let block = self.gathered.split().freeze();
                    self.put(block).await?;
                }
            }
        }
        self.spent = false;
        Ok(())
    }

    async fn sync(&mut self) -> Result<StagedBlob, BlobError> {
        self.enter()?;
        self.put_all().await?;
        self.spent = false;
        Ok(StagedBlob { blob: self.blob, blocks: self.runs.clone(), tag: self.tag.clone() })
    }

    async fn seal(mut self: Box<Self>, size: u64) -> Result<(), BlobError> {
        self.enter()?;
        let blob = self.blob;
        if size != self.length {
            let what = format!("{size} bytes were to be sealed and {} were staged", self.length);
            return Err(BlobError::Corrupt { blob, what });
        }
        self.put_all().await?;
        let condition = self.tag.clone().map_or(Condition::NothingThere, Condition::Tag);
        match self.store.commit(blob, ids(&self.runs).collect(), &condition, SEALED).await {
            Ok(_) => Ok(()),
            // An earlier try of this very call did it. Had another owner been quicker instead, the record would be its, and
            // ours could not be written.
            Err(failure) if failure.cause == Cause::Conflict && failure.unsure => Ok(()),
            Err(failure) if failure.cause == Cause::Conflict => {
                let what = format!("another owner took it over or sealed it ({})", failure.what);
                Err(BlobError::Conflict { blob, what })
            }
            Err(failure) => Err(to_error(blob, failure)),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What was staged stays; what is on the way arrives.
        self.in_flight.detach_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_name_every_block_once_in_order() {
        let run = |epoch, seq| StagedBlock { epoch, seq, length: 1 };
        let names: Vec<Vec<u8>> = ids(&[run(1, 1), run(4, 0)]).collect();
        assert_eq!(names, [block_id(1, 0), block_id(1, 1), block_id(4, 0)]);
        assert!(names.iter().all(|name| name.len() == 24));
        assert_eq!(ids(&[run(1, u32::MAX)]).count(), MAX_BLOCKS as usize + 1);
    }
}
