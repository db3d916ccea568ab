//! A container of Azure Blob: blocks are put under the key itself, where nobody sees them, and one call makes them a blob.
//!
//! Blocks are named by delivery, epoch and number, so that no claim touches what another one put; what is left of them is
//! dropped when the blob is committed, or by the service after a week. Whether what is there is ours is told by the
//! delivery id in its metadata. Uncommitted blocks can't be read, so the bytes are compared once they are a blob; should
//! they be wrong, it is taken away again.

mod compare;

use super::{DeliverError, Destination, Proof, Recovered, Replace, Source, Staged, Target, part::uri_path};
use crate::config::{AzureConfig, Problem};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dropgate_backends::{
    SecretStore,
    azure::{Cause, Condition, Container, Failure, Finished, Limits, MAX_BLOCKS, Properties},
};
use dropgate_schemas::{
    delivery::{Finalizing, VerifiedBy},
    id::DeliveryId,
};
use std::{collections::HashMap, ops::Range, sync::Arc};
use tokio::task::JoinSet;

/// Bytes of a block, unless the file needs larger ones.
const BLOCK: u64 = 4 << 20;
/// Blocks on the way at a time.
const IN_FLIGHT: usize = 3;
/// Finishing is tried again so often when somebody else changes the blob in between.
const ROUNDS: usize = 3;
/// Metadata.
const DELIVERY: &str = "dropgate_delivery_id";
const UPLOAD: &str = "dropgate_upload_id";
const SHA256: &str = "dropgate_sha256";

/// The adapter.
pub(crate) struct Azure {
    container: Container,
    prefix: String,
    read_back_bytes: u64,
}

impl Azure {
    pub(crate) fn new(config: &AzureConfig, secrets: Arc<dyn SecretStore>) -> Result<Self, Problem> {
        let key = |field: &str| format!("destination {}.{field}", config.name);
        let place = config.keys().place().map_err(|e| Problem::new(key(e.key), e.what, e.remedy))?;
        let limits = Limits::within(config.deadline_seconds.duration());
        let container = Container::new(&place, secrets, limits);
        let container =
            container.map_err(|what| Problem::new(key("endpoint"), what, "correct address or identity"))?;
        let prefix = config.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { container, prefix, read_back_bytes: config.read_back_bytes })
    }

    fn name(&self, target: &Target) -> String {
        format!("{}{}", self.prefix, target.key)
    }

    fn proof(&self, target: &Target, tag: &str, verified_by: VerifiedBy) -> Proof {
        Proof {
            uri: format!("{}/{}", self.container.address(), uri_path(&self.name(target))),
            container: Some(self.container.name().to_owned()),
            version_tag: (!tag.is_empty()).then(|| tag.to_owned()),
            verified_by,
        }
    }

    fn taken(&self, target: &Target) -> DeliverError {
        DeliverError::Collision(format!(
            "{} has {} already, and it is not ours: move it away, or set on_collision of the route",
            self.container.address(),
            self.name(target)
        ))
    }

    /// Puts the bytes as blocks; answers how many.
    async fn fill(&self, target: &Target, source: &mut Source) -> Result<u32, DeliverError> {
        let block_bytes = BLOCK.max(target.size.div_ceil(u64::from(MAX_BLOCKS)));
        let block_bytes = usize::try_from(block_bytes).unwrap_or(usize::MAX);
        let mut in_flight = JoinSet::new();
        let (mut count, mut block) = (0_u32, BytesMut::new());
        loop {
            let piece = source.next().await?;
            let last = piece.is_none();
            let mut piece = piece.unwrap_or_default();
            while !piece.is_empty() || (last && !block.is_empty()) {
                let room = block_bytes - block.len();
                block.extend_from_slice(&piece.split_to(piece.len().min(room)));
                if block.len() == block_bytes || last {
                    if in_flight.len() >= IN_FLIGHT {
                        landed(in_flight.join_next().await)?;
                    }
                    let (container, name) = (self.container.clone(), self.name(target));
                    let id = block_id(target.delivery, target.epoch, count);
                    let full = std::mem::take(&mut block).freeze();
                    in_flight.spawn(async move { container.put_block(&name, &id, full).await });
                    count += 1;
                }
            }
            if last {
                break;
            }
        }
        if count == 0 {
            // Nobody can tell an empty blob that was never committed from one that was taken away, but for this block, which
            // is not in the list and therefore goes when the blob is committed.
            let (container, name) = (self.container.clone(), self.name(target));
            let id = block_id(target.delivery, target.epoch, 0);
            in_flight.spawn(async move { container.put_block(&name, &id, Bytes::from_static(b".")).await });
        }
        while let Some(done) = in_flight.join_next().await {
            landed(Some(done))?;
        }
        Ok(count)
    }

    /// What has to hold for the blob to be committed, or that it can't be.
    async fn condition(&self, target: &Target) -> Result<Condition, DeliverError> {
        if !target.replace.something() {
            return Ok(Condition::NothingThere);
        }
        Ok(match self.container.look(&self.name(target)).await.map_err(failed)? {
            None => Condition::NothingThere,
            Some(found) if target.replace == Replace::Ours && !found.metadata.contains_key(DELIVERY) => {
                return Err(self.taken(target));
            }
            Some(found) => Condition::Tag(found.tag),
        })
    }
}

/// Names of blocks: all of one width, as the service wants it.
fn block_id(delivery: DeliveryId, epoch: u64, seq: u32) -> Vec<u8> {
    format!("{}{epoch:016x}{seq:08x}", delivery.uuid().simple()).into_bytes()
}

/// What was staged, as its name in the record: the epoch of the blocks and their number.
fn staged_name(epoch: u64, count: u32) -> String {
    format!("{epoch}.{count}")
}

fn staged_from(name: &str) -> Option<(u64, u32)> {
    let (epoch, count) = name.split_once('.')?;
    Some((epoch.parse().ok()?, count.parse().ok()?))
}

fn is_of(found: &Properties, target: &Target) -> bool {
    found.metadata.get(DELIVERY).is_some_and(|id| *id == target.delivery.to_string())
}

fn landed(done: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), DeliverError> {
    match done {
        None | Some(Ok(Ok(()))) => Ok(()),
        // The service checked the sum again and again: what arrives is not what was sent.
        Some(Ok(Err(failure))) if failure.cause == Cause::Damaged => Err(DeliverError::Digest(format!(
            "{failure}: a block was damaged on its way; nothing was delivered"
        ))),
        Some(Ok(Err(failure))) => Err(failed(failure)),
        Some(Err(error)) => Err(DeliverError::Unavailable(format!("a block did not arrive: {error}"))),
    }
}

/// What a failed call means for a delivery.
fn failed(failure: Failure) -> DeliverError {
    match failure.cause {
        Cause::NoContainer | Cause::Refused | Cause::Conflict | Cause::Other => {
            DeliverError::Denied(failure.what)
        }
        Cause::NotFound
        | Cause::NoBlock
        | Cause::NoCredential
        | Cause::Range
        | Cause::Damaged
        | Cause::Full
        | Cause::Unavailable => DeliverError::Unavailable(failure.what),
    }
}

#[async_trait]
impl Destination for Azure {
    async fn stage(&self, target: &Target, source: &mut Source) -> Result<Staged, DeliverError> {
        let count = self.fill(target, source).await?;
        source.written().await;
        // Compared once they can be read.
        Ok(Staged { name: staged_name(target.epoch, count), verified_by: VerifiedBy::Size, kept: None })
    }

    async fn finish(&self, target: &Target, staged: &Staged) -> Result<(), DeliverError> {
        let name = self.name(target);
        let (epoch, count) = staged_from(&staged.name).unwrap_or((target.epoch, 0));
        let finished = Finished {
            metadata: HashMap::from([
                (DELIVERY.to_owned(), target.delivery.to_string()),
                (UPLOAD.to_owned(), target.upload.to_string()),
                (SHA256.to_owned(), target.sha256.to_string()),
            ]),
            content_type: target.content_type.as_ref().map(|found| found.mime.clone()),
        };
        for _ in 0..ROUNDS {
            let condition = self.condition(target).await?;
            let blocks = (0..count).map(|seq| block_id(target.delivery, epoch, seq)).collect();
            let failure = match self.container.commit(&name, blocks, &condition, &finished).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            match failure.cause {
                Cause::Conflict | Cause::NoBlock => {}
                Cause::NotFound
                | Cause::NoContainer
                | Cause::Refused
                | Cause::NoCredential
                | Cause::Range
                | Cause::Damaged
                | Cause::Full
                | Cause::Unavailable
                | Cause::Other => return Err(failed(failure)),
            }
            // An earlier try may have done it; then it is there under our own id.
            let found = self.container.look(&name).await.map_err(failed)?;
            match found {
                Some(found) if is_of(&found, target) => return Ok(()),
                Some(_) if failure.cause == Cause::Conflict && !target.replace.something() => {
                    return Err(self.taken(target));
                }
                Some(_) | None if failure.cause == Cause::NoBlock => {
                    let what = format!("{}: what was staged for {name} is gone", self.container.address());
                    return Err(DeliverError::Unavailable(what));
                }
                // It changed between the look and the call.
                Some(_) | None => {}
            }
        }
        let address = self.container.address();
        Err(DeliverError::Unavailable(format!("{address}: {name} is changed by others again and again")))
    }

    async fn verify(&self, target: &Target, _: &Staged) -> Result<Option<Proof>, DeliverError> {
        let found = self.container.look(&self.name(target)).await.map_err(failed)?;
        // Taken away before it could be compared, or replaced: it can't be called right.
        let Some(found) = found.filter(|found| is_of(found, target)) else { return Ok(None) };
        match self.compare(target, &found).await? {
            Ok(verified_by) => Ok(Some(self.proof(target, &found.tag, verified_by))),
            Err(difference) => {
                self.take_away(target, &found).await?;
                Err(DeliverError::Digest(difference))
            }
        }
    }

    async fn recover(&self, target: &Target, finalizing: &Finalizing) -> Result<Recovered, DeliverError> {
        let name = self.name(target);
        let found = self.container.look(&name).await.map_err(failed)?;
        if let Some(found) = found.as_ref().filter(|found| is_of(found, target)) {
            return match self.compare(target, found).await? {
                Ok(verified_by) => Ok(Recovered::Done(self.proof(target, &found.tag, verified_by))),
                Err(difference) => {
                    tracing::warn!(%difference, delivery = %target.delivery, "wrong bytes are taken away");
                    self.take_away(target, found).await?;
                    Ok(Recovered::Again)
                }
            };
        }
        let staged = finalizing.staged_as.as_deref().and_then(staged_from);
        let Some((epoch, count)) = staged else { return Ok(Recovered::Again) };
        let there = self.container.uncommitted(&name).await.map_err(failed)?;
        let wanted = count.max(1);
        let left = (0..wanted).filter(|seq| there.contains(&block_id(target.delivery, epoch, *seq))).count();
        let address = self.container.address();
        Ok(match left {
            left if left == wanted as usize => Recovered::Staged(Staged {
                name: staged_name(epoch, count),
                verified_by: VerifiedBy::Size,
                kept: None,
            }),
            0 if found.is_some() => Recovered::Gone(format!("{address} has another {name} now")),
            0 => Recovered::Gone(format!("{address} no longer has {name}")),
            // A commit takes all of them.
            _ => Recovered::Again,
        })
    }

    fn stages_under_the_key(&self) -> bool {
        true
    }

    async fn discard(&self, _: &Target, _: Range<u64>) -> Result<(), DeliverError> {
        // Uncommitted blocks can't be removed one by one. Nobody sees them, and the service drops them after a week.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_was_staged() {
        let delivery = DeliveryId::new();
        assert_eq!(staged_from(&staged_name(7, 1234)), Some((7, 1234)));
        assert_eq!(staged_from(".a.part"), None);
        let id = block_id(delivery, u64::MAX, u32::MAX);
        assert_eq!(id.len(), 56);
        assert_eq!(id.len(), block_id(delivery, 1, 0).len());
        assert_ne!(block_id(delivery, 1, 0), block_id(delivery, 2, 0));
    }
}

#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;
