//! Listing, for the collector of orphans. The service continues a listing by a marker of its own, so the one of the page
//! given out last is kept: somebody who goes on from there needs no second look at what lies before.

use super::{BlobAzure, to_error};
use crate::blob::BlobError;
use azure_storage_blob::models::{
    BlobContainerClientListBlobsOptions, BlobItem, ListBlobsIncludeItem, ListBlobsResponse,
};
use dropgate_schemas::{id::BlobId, time::Timestamp};
use futures::StreamExt as _;
use std::time::Duration;

/// Where the listing that ended with `after` goes on.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    after: BlobId,
    marker: Option<String>,
}

pub(super) async fn list(
    store: &BlobAzure,
    older_than: Duration,
    after: Option<BlobId>,
    limit: usize,
) -> Result<Vec<BlobId>, BlobError> {
    let known = store.cursor.lock().await.take().filter(|cursor| Some(cursor.after) == after);
    let mut marker = match known {
        Some(Cursor { marker: None, .. }) => return Ok(Vec::new()),
        Some(Cursor { marker, .. }) => marker,
        None => None,
    };
    let mut found = Vec::new();
    while found.len() < limit {
        let page = page(store, marker, limit - found.len()).await?;
        for item in &page.blob_items {
            let Some(blob) = ours(store, item) else { continue };
            if after.is_none_or(|after| blob.to_string() > after.to_string()) && is_old(item, older_than) {
                found.push(blob);
            }
        }
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            break;
        }
    }
    if let Some(last) = found.last() {
        *store.cursor.lock().await = Some(Cursor { after: *last, marker });
    }
    Ok(found)
}

async fn page(
    store: &BlobAzure,
    marker: Option<String>,
    limit: usize,
) -> Result<ListBlobsResponse, BlobError> {
    let options = BlobContainerClientListBlobsOptions {
        include: Some(vec![ListBlobsIncludeItem::UncommittedBlobs]),
        marker,
        maxresults: Some(i32::try_from(limit.clamp(1, 5000)).unwrap_or(5000)),
        prefix: (!store.prefix.is_empty()).then(|| store.prefix.to_string()),
        ..BlobContainerClientListBlobsOptions::default()
    };
    let page = store.container.patiently(|| async {
        let mut pages = store.container.client().list_blobs(Some(options.clone()))?.into_pages();
        match pages.next().await {
            Some(page) => page?.into_model(),
            None => Ok(ListBlobsResponse::default()),
        }
    });
    page.await.map_err(|failure| to_error(BlobId::from_uuid(uuid::Uuid::nil()), failure))
}

/// The blob of an item, if it is one of ours.
fn ours(store: &BlobAzure, item: &BlobItem) -> Option<BlobId> {
    item.name.as_deref()?.strip_prefix(&*store.prefix)?.parse().ok()
}

fn is_old(item: &BlobItem, older_than: Duration) -> bool {
    if older_than.is_zero() {
        return true;
    }
    let Some(properties) = &item.properties else { return false };
    // Without a time it is left alone: the service drops uncommitted blocks by itself after a week.
    let Some(written) = properties.last_modified.or(properties.creation_time) else { return false };
    let written = Timestamp::from_millis(written.unix_timestamp().saturating_mul(1000));
    Timestamp::now().since(written) > older_than
}
