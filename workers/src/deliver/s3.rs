//! A bucket of an S3 store.
//!
//! Nothing is visible before one call that finishes: small files are put with their SHA-256 when they are finished, larger ones
//! are uploaded in parts before and completed then. That call is conditional (create only, or replace what was seen), and a
//! look at the key comes before it, for stores that ignore the condition. What is there already is ours only if its metadata
//! has the delivery's id.

mod connection;
mod failure;
mod multipart;
mod object;
#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;

use super::{DeliverError, Destination, Proof, Recovered, Replace, Source, Staged, Target, part::uri_path};
use crate::config::S3Config;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use connection::Connection;
use dropgate_backends::SecretStore;
use dropgate_schemas::delivery::{Finalizing, VerifiedBy};
use failure::{Failure, Place};
use multipart::Multipart;
use object::{Compared, Condition};
use std::{ops::Range, sync::Arc};

/// The name under which small bytes are staged: nowhere but in memory.
const PUT: &str = "put";
/// Finishing is tried so often against others that change the key at the same time.
const ROUNDS: u32 = 4;
/// What is left by an upload in parts that is older can't belong to a delivery under way.
const FORGOTTEN_HOURS: i64 = 48;

/// The adapter.
pub(crate) struct S3 {
    config: S3Config,
    connection: Connection,
}

impl S3 {
    pub(crate) fn new(config: &S3Config, secrets: Arc<dyn SecretStore>) -> Self {
        Self { config: config.clone(), connection: Connection::new(config, secrets) }
    }

    /// Where the file of a target is.
    fn place(&self, target: &Target) -> Place {
        let prefix = self.config.prefix.trim_end_matches('/');
        let key = if prefix.is_empty() { target.key.clone() } else { format!("{prefix}/{}", target.key) };
        Place { bucket: self.config.bucket.clone(), key, region: self.config.region.clone() }
    }

    fn proof(&self, target: &Target, tag: Option<String>, verified_by: VerifiedBy) -> Proof {
        let Place { bucket, key, .. } = self.place(target);
        Proof {
            uri: format!("s3://{bucket}/{}", uri_path(&key)),
            container: Some(bucket),
            version_tag: tag,
            verified_by,
        }
    }

    /// Compares what is there, and takes it away again if it is wrong.
    async fn judge(
        &self,
        target: &Target,
        there: &object::Head,
        crc64nvme: Option<u64>,
    ) -> Result<Proof, DeliverError> {
        let (client, place) = (self.connection.client().await?, self.place(target));
        let compared = object::compare(&client, &place, &self.config, target, there, crc64nvme).await?;
        match compared {
            Compared::Right(by) => Ok(self.proof(target, there.tag(), by)),
            Compared::Wrong(found) => {
                object::remove(&client, &place, there).await?;
                Err(DeliverError::Digest(format!("{found}; it was taken away again")))
            }
        }
    }

    async fn collect(&self, source: &mut Source, size: u64) -> Result<Bytes, DeliverError> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        while let Some(piece) = source.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Small files are put whole.
    fn in_parts(&self, target: &Target) -> bool {
        target.size > self.config.part_bytes
    }

    /// Aborts the upload in parts that the record names. False if it names none.
    async fn abort_begun(&self, target: &Target) -> Result<bool, DeliverError> {
        let Some(id) = &target.begun_as else { return Ok(false) };
        Multipart::begun(id).abort(&self.connection.client().await?, &self.place(target)).await?;
        Ok(true)
    }

    /// Aborts what is uploaded in parts under the key. A role that may not list such uploads leaves it at what the record names.
    async fn abort(&self, target: &Target, older: Option<i64>) -> Result<(), DeliverError> {
        let begun = self.abort_begun(target).await?;
        let client = self.connection.client().await?;
        match multipart::abort_all(&client, &self.place(target), older).await {
            Err(DeliverError::Denied(why)) if begun => {
                tracing::debug!(%why, "other uploads in parts are not looked for");
                Ok(())
            }
            other => other,
        }
    }

    /// The finishing call itself.
    async fn commit(&self, target: &Target, staged: &Staged, condition: &Condition) -> Result<(), Failure> {
        let (client, place) = (self.connection.client().await?, self.place(target));
        if let Some(multipart) = Multipart::parse(&staged.name) {
            return multipart.complete(&client, &place, target, condition).await;
        }
        let Some(bytes) = staged.kept.clone() else {
            return Err(DeliverError::Unavailable(
                "the bytes to put are no longer here: begin again".to_owned(),
            )
            .into());
        };
        object::put(&client, &place, target, bytes, condition).await
    }
}

#[async_trait]
impl Destination for S3 {
    async fn begin(&self, target: &Target) -> Result<Option<String>, DeliverError> {
        if !self.in_parts(target) {
            return Ok(None);
        }
        let client = self.connection.client().await?;
        multipart::begin(&client, &self.place(target), target).await.map(Some)
    }

    async fn stage(&self, target: &Target, source: &mut Source) -> Result<Staged, DeliverError> {
        if !self.in_parts(target) {
            let bytes = self.collect(source, target.size).await?;
            source.written().await;
            return Ok(Staged { name: PUT.to_owned(), verified_by: VerifiedBy::Size, kept: Some(bytes) });
        }
        let Some(begun_as) = target.begun_as.as_deref() else {
            return Err(DeliverError::Source("an upload in parts that was not begun".to_owned()));
        };
        let (client, place) = (self.connection.client().await?, self.place(target));
        let staged = multipart::upload(&client, &place, &self.config, target, source, begun_as).await?;
        source.written().await;
        Ok(Staged { name: staged.name(), verified_by: VerifiedBy::Size, kept: None })
    }

    async fn finish(&self, target: &Target, staged: &Staged) -> Result<(), DeliverError> {
        let (client, place) = (self.connection.client().await?, self.place(target));
        for _ in 0..ROUNDS {
            let there = object::head(&client, &place).await?;
            let condition = match (&there, target.replace) {
                (Some(there), _) if there.is_of(target) => {
                    // Finished before, by a call whose answer was lost. What was staged for it again is not needed.
                    if let Some(multipart) = Multipart::parse(&staged.name) {
                        multipart.abort_quietly(&client, &place).await;
                    }
                    return Ok(());
                }
                (None, _) => Condition::Absent,
                (Some(there), Replace::Anything) => Condition::Is(there.etag.clone()),
                (Some(there), Replace::Ours) if there.is_a_delivery() => Condition::Is(there.etag.clone()),
                (Some(_), Replace::Ours | Replace::Nothing) => {
                    return Err(DeliverError::Collision(format!(
                        "{place} is there already and is not ours: move it away, or set on_collision of the route"
                    )));
                }
            };
            match self.commit(target, staged, &condition).await {
                Ok(()) => return Ok(()),
                // Somebody changed the key meanwhile: look again.
                Err(Failure::Changed | Failure::Absent) => {}
                Err(Failure::NoUpload) => {
                    let there = object::head(&client, &place).await?;
                    if there.is_some_and(|there| there.is_of(target)) {
                        return Ok(());
                    }
                    return Err(DeliverError::Unavailable(format!(
                        "the parts uploaded for {place} are gone: somebody aborted that upload, or completed it and took the file away"
                    )));
                }
                Err(Failure::Wrong(error)) => return Err(error),
            }
        }
        Err(DeliverError::Unavailable(format!("{place} changes all the time, so it was not written")))
    }

    async fn verify(&self, target: &Target, staged: &Staged) -> Result<Option<Proof>, DeliverError> {
        let client = self.connection.client().await?;
        match object::head(&client, &self.place(target)).await? {
            Some(there) if there.is_of(target) => {
                let crc = Multipart::parse(&staged.name).map(|multipart| multipart.crc64nvme);
                self.judge(target, &there, crc).await.map(Some)
            }
            Some(_) => Ok(None),
            // Whoever takes the file away at once may do so: the store confirmed that it was there.
            None => Ok(Some(self.proof(target, None, VerifiedBy::Size))),
        }
    }

    async fn recover(&self, target: &Target, finalizing: &Finalizing) -> Result<Recovered, DeliverError> {
        let (client, place) = (self.connection.client().await?, self.place(target));
        let staged = finalizing.staged_as.clone().unwrap_or_default();
        let multipart = Multipart::parse(&staged);
        match object::head(&client, &place).await? {
            Some(there) if there.is_of(target) => {
                let crc = multipart.as_ref().map(|multipart| multipart.crc64nvme);
                return match self.judge(target, &there, crc).await {
                    Ok(proof) => Ok(Recovered::Done(proof)),
                    Err(DeliverError::Digest(_)) => Ok(Recovered::Again),
                    Err(error) => Err(error),
                };
            }
            Some(_) | None => {}
        }
        // A put that is not there may not have happened. It leaves no trace, so it is made again.
        let Some(multipart) = multipart else { return Ok(Recovered::Again) };
        match multipart.size(&client, &place).await {
            Ok(size) if size == target.size => {
                Ok(Recovered::Staged(Staged { name: staged, verified_by: VerifiedBy::Size, kept: None }))
            }
            Ok(_) => Ok(Recovered::Again),
            Err(Failure::NoUpload | Failure::Absent) => Ok(Recovered::Gone(format!(
                "{place} is not there, and its upload in parts was completed or aborted"
            ))),
            Err(Failure::Changed) => Ok(Recovered::Again),
            Err(Failure::Wrong(error)) => Err(error),
        }
    }

    fn stages_under_the_key(&self) -> bool {
        true
    }

    /// While a delivery is held, nothing else is delivered under its key: whatever is uploaded there in parts was left behind.
    async fn discard(&self, target: &Target, _epochs: Range<u64>) -> Result<(), DeliverError> {
        self.abort(target, None).await
    }

    /// Nobody holds the delivery, or somebody else: what is uploaded now and not named by the target may be theirs.
    async fn discard_later(&self, target: &Target, _epochs: Range<u64>) -> Result<(), DeliverError> {
        self.abort(target, Some(FORGOTTEN_HOURS * 3600)).await
    }
}
