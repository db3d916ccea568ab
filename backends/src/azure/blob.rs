//! What is done with the blobs of a container, by the blob store and by the destination.

use super::{Container, Failure, crc64};
use crate::config::AzureBlockSum;
use azure_core::http::{Etag, NoFormat, RequestContent, XmlFormat, headers::Headers};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders as _,
    BlockBlobClientCommitBlockListOptions, BlockBlobClientCommitBlockListResultHeaders as _,
    BlockBlobClientStageBlockOptions, BlockListType, BlockLookupList, DeleteSnapshotsOptionType, HttpRange,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
};

/// What has to hold for a list of blocks to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing was committed so far.
    NothingThere,
    /// What is committed has this ETag.
    Tag(String),
}

/// What becomes of a blob when a list is committed.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Metadata; names are letters, digits and underscores.
    pub metadata: HashMap<String, String>,
    /// Content type.
    pub content_type: Option<String>,
}

/// What is known of a committed blob.
#[derive(Clone, Debug)]
pub struct Properties {
    /// Bytes.
    pub size: u64,
    /// ETag.
    pub tag: String,
    /// Metadata.
    pub metadata: HashMap<String, String>,
}

/// A part of a committed blob.
#[derive(Clone, Debug)]
pub struct Part {
    /// The bytes; fewer than asked for at the end.
    pub bytes: Bytes,
    /// Of the whole blob, at the time.
    pub properties: Properties,
}

impl Container {
    /// Puts a block, with its sum, which the service checks. The bytes are not copied.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn put_block(&self, name: &str, id: &[u8], block: Bytes) -> Result<(), Failure> {
        let client = self.client.blob_client(name).block_blob_client();
        let (crc64, md5) = match self.block_sum {
            AzureBlockSum::Crc64 => (Some(crc64(&block)), None),
            AzureBlockSum::Md5 => (None, Some(md5::compute(&block).to_vec())),
        };
        let options = BlockBlobClientStageBlockOptions {
            transactional_content_crc64: crc64,
            transactional_content_md5: md5,
            ..BlockBlobClientStageBlockOptions::default()
        };
        self.patiently(|| async {
            let body: RequestContent<Bytes, NoFormat> = block.clone().into();
            client.stage_block(id, block.len() as u64, body, Some(options.clone())).await.map(|_| ())
        })
        .await
    }

    /// Commits blocks, in order, if `condition` holds; answers with the new ETag. All other uncommitted blocks of the blob
    /// are gone then.
    ///
    /// # Errors
    /// [`Failure`]: `Conflict` if the condition does not hold, `NoBlock` if a block is not there. With `unsure` the condition
    /// may be broken by an earlier try of this very call.
    pub async fn commit(
        &self,
        name: &str,
        blocks: Vec<Vec<u8>>,
        condition: &Condition,
        finished: &Finished,
    ) -> Result<Option<String>, Failure> {
        let client = self.client.blob_client(name).block_blob_client();
        let list = BlockLookupList { latest: Some(blocks), ..BlockLookupList::default() };
        let list: RequestContent<BlockLookupList, XmlFormat> =
            list.try_into().map_err(|e| Failure::of(self.address(), &e))?;
        let (if_match, if_none_match) = match condition {
            Condition::NothingThere => (None, Some(Etag::from("*"))),
            Condition::Tag(tag) => (Some(Etag::from(tag.clone())), None),
        };
        let options = BlockBlobClientCommitBlockListOptions {
            if_match,
            if_none_match,
            metadata: Some(finished.metadata.clone()),
            blob_content_type: finished.content_type.clone(),
            ..BlockBlobClientCommitBlockListOptions::default()
        };
        self.patiently(|| {
            let call = client.commit_block_list(list.clone(), Some(options.clone()));
            async move { call.await?.etag() }
        })
        .await
        .map(|tag| tag.map(|tag| tag.to_string()))
    }

    /// Looks at a committed blob. None if there is none.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn look(&self, name: &str) -> Result<Option<Properties>, Failure> {
        let client = self.client.blob_client(name);
        let found = self.patiently(|| async {
            let found = client.get_properties(None).await?;
            Ok(Properties {
                size: found.content_length()?.unwrap_or_default(),
                tag: found.etag()?.map(|tag| tag.to_string()).unwrap_or_default(),
                metadata: lower_case(found.metadata()?),
            })
        });
        match found.await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.cause == super::Cause::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The bytes from `start` up to `end`, of the version with the ETag `tag` if given. In memory all at once: ask for a few
    /// MiB.
    ///
    /// # Errors
    /// [`Failure`]: `Range` if `start` lies at or behind the end, `Conflict` if it was replaced.
    pub async fn part(&self, name: &str, start: u64, end: u64, tag: Option<&str>) -> Result<Part, Failure> {
        let client = self.client.blob_client(name);
        let length = end.saturating_sub(start).max(1);
        let options = BlobClientDownloadOptions {
            range: Some(HttpRange::new(start, length)),
            if_match: tag.map(|tag| Etag::from(tag.to_owned())),
            // One request: what is asked for is one part.
            parallel: NonZero::new(1),
            partition_size: NonZero::new(usize::try_from(length).unwrap_or(usize::MAX)),
            ..BlobClientDownloadOptions::default()
        };
        self.patiently(|| {
            let call = client.download(Some(options.clone()));
            async move {
                let answer = call.await?;
                let total = total(&answer.headers);
                let tag = answer.properties.etag.map(|tag| tag.to_string()).unwrap_or_default();
                let metadata = lower_case(answer.properties.metadata);
                let bytes = answer.body.collect().await?;
                let size = total.unwrap_or(start + bytes.len() as u64);
                Ok(Part { bytes, properties: Properties { size, tag, metadata } })
            }
        })
        .await
    }

    /// Removes a committed blob, the version with the ETag `tag` if given. False if there was none.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delete(&self, name: &str, tag: Option<&str>) -> Result<bool, Failure> {
        let client = self.client.blob_client(name);
        let options = BlobClientDeleteOptions {
            delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
            if_match: tag.map(|tag| Etag::from(tag.to_owned())),
            ..BlobClientDeleteOptions::default()
        };
        match self.patiently(|| client.delete(Some(options.clone()))).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.cause == super::Cause::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Names of the blocks that were put and not committed.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn uncommitted(&self, name: &str) -> Result<HashSet<Vec<u8>>, Failure> {
        let client = self.client.blob_client(name).block_blob_client();
        let listed = self.patiently(|| async {
            client.get_block_list(BlockListType::Uncommitted, None).await?.into_model()
        });
        match listed.await {
            Ok(listed) => {
                let blocks = listed.uncommitted_blocks.unwrap_or_default();
                Ok(blocks.into_iter().filter_map(|block| block.name).collect())
            }
            Err(failure) if failure.cause == super::Cause::NotFound => Ok(HashSet::new()),
            Err(failure) => Err(failure),
        }
    }
}

/// Names of metadata are compared without regard to case: some proxies change it.
fn lower_case(metadata: HashMap<String, String>) -> HashMap<String, String> {
    metadata.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

/// The number behind the slash of `Content-Range: bytes 0-99/1234`; none for an answer that is the whole blob.
fn total(headers: &Headers) -> Option<u64> {
    let range = headers.get_optional_str(&"content-range".into())?;
    range.rsplit_once('/')?.1.parse().ok()
}
