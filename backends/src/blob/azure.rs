//! Blobs as block blobs of a container of Azure Blob.
//!
//! ```text
//! <prefix>/<id>               uncommitted blocks while it is written; committed, with metadata `dropgatestate`:
//!                             `sealed`: complete; `open`: taken over from an earlier owner, not yet complete
//! <prefix>/dropgate-check     one uncommitted block, written by readiness checks
//! ```
//!
//! A writer only ever writes (Put Block, Put Block List): its credential need not read. What it has to know of the past is in
//! [`StagedBlob`]. An owner is kept out by the conditions of its Put Block List: the first one's list needs that nothing is
//! committed yet. Taking over commits what was recorded, as `open`: from then on the first one's list can't be
//! committed, and its uncommitted blocks are gone. Each further list needs the ETag of the takeover before.

mod flights;
mod list;
mod reader;
mod writer;

use super::{BlobError, BlobReader, BlobStore, BlobWriter, Space};
use crate::{
    azure::{Cause, Condition, Container, Failure, Finished, Limits},
    config::BlobAzureConfig,
    open::OpenError,
    secrets::SecretStore,
};
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::{id::BlobId, upload::StagedBlob};
use flights::Flights;
use list::Cursor;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::Mutex;

const KEY: &str = "[backends.blob]";

/// Bytes of a block: what a connection of the gateway may have in memory is enough for three on the way and one being filled.
const BLOCK_SIZE: usize = 2 << 20;
/// After so many of them (16 GiB) larger ones are sent: with 50,000 in all a blob holds 179 GiB.
const SINGLE_BLOCKS: u32 = 8192;
/// Bytes of a larger one.
const LARGE_BLOCK: usize = 2 * BLOCK_SIZE;
/// The metadata that says how far a committed blob is.
const STATE: &str = "dropgatestate";
const SEALED: &str = "sealed";
const OPEN: &str = "open";

/// See the module.
#[derive(Clone)]
pub(crate) struct BlobAzure {
    container: Container,
    prefix: Arc<str>,
    /// See [`SINGLE_BLOCKS`].
    single_blocks: u32,
    flights: Flights,
    cursor: Arc<Mutex<Option<Cursor>>>,
}

impl BlobAzure {
    /// Opens the store and makes sure that it can be written to.
    pub(crate) async fn open(
        config: &BlobAzureConfig,
        secrets: Arc<dyn SecretStore>,
    ) -> Result<Self, OpenError> {
        let keys = config.keys();
        let remote = |address: &str, what: String, remedy: &str| OpenError::Remote {
            key: KEY,
            address: address.to_owned(),
            what,
            remedy: remedy.to_owned(),
        };
        let named = keys.endpoint.clone().or_else(|| keys.account.clone()).unwrap_or_default();
        let place = keys.place().map_err(|e| remote(&named, format!("{}: {}", e.key, e.what), e.remedy))?;
        if keys.account_key.is_some() && !config.allow_account_key {
            return Err(remote(
                &place.endpoint,
                "account_key: with it one can read and delete everything in the account".to_owned(),
                "use an Entra identity or a write-only SAS, or set allow_account_key = true",
            ));
        }
        let limits = Limits::within(config.deadline_seconds.duration());
        let address = format!("{}/{}", place.endpoint, place.container);
        let unbuilt = |what: String| remote(&address, what, "correct [backends.blob]");
        if config.create_container {
            let creator = Container::for_creation(&place, secrets.clone(), limits).map_err(unbuilt)?;
            match creator.patiently(|| creator.client().create(None)).await {
                Ok(_) => tracing::info!(%address, "made the container"),
                Err(failure) if failure.cause == Cause::Conflict => {}
                Err(failure) => {
                    let remedy = "make the container yourself and remove create_container";
                    return Err(remote(&address, format!("it can't be made: {failure}"), remedy));
                }
            }
        }
        let container = Container::new(&place, secrets, limits).map_err(unbuilt)?;
        let prefix = config.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let store = Self {
            container,
            prefix: prefix.into(),
            single_blocks: SINGLE_BLOCKS,
            flights: Flights::default(),
            cursor: Arc::default(),
        };
        store.probe().await.map_err(|failure| {
            let (what, remedy) = match failure.cause {
                Cause::NoContainer => {
                    ("the container does not exist".to_owned(), "create it, or set create_container = true")
                }
                Cause::Refused => (
                    failure.what.clone(),
                    "give the credential the right to create and write blobs in this container",
                ),
                Cause::NoCredential => {
                    (failure.what.clone(), "correct identity, sas or account_key, or what they refer to")
                }
                Cause::Unavailable => (failure.what.clone(), "check address, network and service"),
                Cause::NotFound
                | Cause::Conflict
                | Cause::NoBlock
                | Cause::Range
                | Cause::Damaged
                | Cause::Full
                | Cause::Other => (failure.what.clone(), "check account, endpoint and container"),
            };
            remote(&address, what, remedy)
        })?;
        Ok(store)
    }

    fn name(&self, blob: BlobId) -> String {
        format!("{}{blob}", self.prefix)
    }

    /// Writes one uncommitted block that nobody reads: all that a credential for writing can be asked to prove.
    async fn probe(&self) -> Result<(), Failure> {
        let name = format!("{}dropgate-check", self.prefix);
        self.container.put_block(&name, &block_id(0, 0), Bytes::from_static(b".")).await
    }

    /// Commits a list of blocks if `condition` holds; answers with the new ETag.
    async fn commit(
        &self,
        blob: BlobId,
        blocks: Vec<Vec<u8>>,
        condition: &Condition,
        state: &str,
    ) -> Result<Option<String>, Failure> {
        let finished =
            Finished { metadata: HashMap::from([(STATE.to_owned(), state.to_owned())]), content_type: None };
        self.container.commit(&self.name(blob), blocks, condition, &finished).await
    }

    async fn delete_committed(&self, blob: BlobId) -> Result<bool, BlobError> {
        self.container.delete(&self.name(blob), None).await.map_err(|failure| to_error(blob, failure))
    }
}

/// Names of blocks: all of one width, as the service wants it; no owner can write another's.
fn block_id(epoch: u64, seq: u32) -> Vec<u8> {
    format!("{epoch:016x}{seq:08x}").into_bytes()
}

/// What a failed call means for the caller of the port.
fn to_error(blob: BlobId, failure: Failure) -> BlobError {
    match failure.cause {
        Cause::NotFound => BlobError::NotFound(blob),
        Cause::Conflict | Cause::NoBlock => BlobError::Conflict { blob, what: failure.what },
        Cause::Full => BlobError::Full(failure.what),
        Cause::NoContainer | Cause::Refused | Cause::Other => BlobError::Rejected(failure.what),
        Cause::Damaged | Cause::Range => BlobError::Corrupt { blob, what: failure.what },
        Cause::NoCredential | Cause::Unavailable => BlobError::Unavailable(failure.what),
    }
}

#[async_trait]
impl BlobStore for BlobAzure {
    fn block_size(&self) -> usize {
        BLOCK_SIZE
    }

    async fn begin(&self, blob: BlobId, epoch: u64) -> Result<Box<dyn BlobWriter>, BlobError> {
        // Nothing to do: whether somebody else has it comes out when it is sealed.
        Ok(Box::new(writer::Writer::new(self.clone(), blob, epoch)))
    }

    async fn resume(
        &self,
        staged: &StagedBlob,
        length: u64,
        epoch: u64,
    ) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(writer::Writer::resume(self.clone(), staged, length, epoch).await?))
    }

    async fn open(&self, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError> {
        reader::open(self, blob, offset).await
    }

    async fn delete(&self, blob: BlobId) -> Result<(), BlobError> {
        // What a writer of this process that was given up still has on the way would come after.
        self.flights.landed(blob).await;
        if self.delete_committed(blob).await? {
            return Ok(());
        }
        // There may be uncommitted blocks. They can't be deleted, but a commit takes them away.
        match self.commit(blob, Vec::new(), &Condition::NothingThere, OPEN).await {
            Ok(_) => {}
            Err(failure) if failure.cause == Cause::Conflict => {}
            Err(failure) => return Err(to_error(blob, failure)),
        }
        self.delete_committed(blob).await.map(|_| ())
    }

    async fn list(
        &self,
        older_than: Duration,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>, BlobError> {
        list::list(self, older_than, after, limit).await
    }

    async fn space(&self) -> Result<Option<Space>, BlobError> {
        Ok(None)
    }

    async fn check(&self) -> Result<(), BlobError> {
        self.probe().await.map_err(|failure| match failure.cause {
            Cause::NoCredential | Cause::Unavailable => BlobError::Unavailable(failure.what),
            Cause::Full => BlobError::Full(failure.what),
            Cause::NotFound
            | Cause::NoContainer
            | Cause::Conflict
            | Cause::NoBlock
            | Cause::Refused
            | Cause::Range
            | Cause::Damaged
            | Cause::Other => BlobError::Rejected(failure.what),
        })
    }
}

#[cfg(test)]
#[cfg(feature = "server-tests")]
mod servers;
