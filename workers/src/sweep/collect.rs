//! Takes away what nobody needs any more: blobs without a record, blobs of aborted uploads, temporary files at
//! destinations.

use super::PAGE;
use crate::{
    deliver::{Replace, Target},
    worker::Shop,
};
use dropgate_backends::{BlobError, StateError, UploadQuery};
use dropgate_schemas::{
    delivery::{Delivery, DeliveryState},
    id::{BlobId, DeliveryId},
    time::Timestamp,
    upload::{BlobRef, Upload, UploadState},
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Blobs looked at in one go.
const BLOBS: usize = 100;
/// Deliveries remembered as cleaned up; over that all are forgotten, and some are cleaned again.
const REMEMBERED: usize = 20_000;
/// Uploads older than this left nothing that was not taken away already.
const OLD: Duration = Duration::from_secs(3 * 24 * 3600);

/// How far the collector has come.
#[derive(Default)]
pub(super) struct Collection {
    next: Option<Instant>,
    under_way: Option<BlobId>,
    cleaned: HashSet<DeliveryId>,
}

impl Collection {
    /// A piece of the way through the blob store; after its end a pause, then the temporary files and the next round.
    pub(super) async fn step(&mut self, shop: &Shop) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        if self.under_way.is_none() {
            super::note("temporary files", self.leftovers(shop).await);
        }
        match blobs(shop, self.under_way).await {
            Ok(Some(last)) => self.under_way = Some(last),
            Ok(None) => {
                self.under_way = None;
                self.next = Some(now + shop.config.sweep.collect_every_seconds.duration());
            }
            Err(error) => tracing::warn!(%error, "collecting orphaned blobs failed; it is tried again"),
        }
    }

    /// Temporary files of deliveries that nobody will claim again.
    async fn leftovers(&mut self, shop: &Shop) -> Result<(), StateError> {
        if self.cleaned.len() >= REMEMBERED {
            self.cleaned.clear();
        }
        let query = UploadQuery {
            states: vec![UploadState::Failed, UploadState::Superseded, UploadState::Quarantined],
            since: Some(Timestamp::now().minus(OLD)),
            limit: 5 * PAGE,
            ..UploadQuery::default()
        };
        for upload in shop.backends.state.find(query).await? {
            for delivery in &upload.deliveries {
                let ended = matches!(delivery.state, DeliveryState::Dead | DeliveryState::Cancelled);
                if ended && delivery.attempts > 0 && !self.cleaned.contains(&delivery.delivery_id) {
                    self.clean(shop, &upload, delivery).await;
                }
            }
        }
        Ok(())
    }

    async fn clean(&mut self, shop: &Shop, upload: &Upload, delivery: &Delivery) {
        let Some(lane) = shop.lanes.get(&delivery.destination) else { return };
        let Some(target) = Target::of(upload, delivery, Replace::Nothing) else { return };
        // One that is down is asked another time.
        let Some(permit) = lane.probe() else { return };
        match lane
            .destination
            .discard_later(&target, delivery.epoch.saturating_sub(32).max(1)..delivery.epoch + 1)
            .await
        {
            Ok(()) => {
                self.cleaned.insert(delivery.delivery_id);
                permit.worked();
            }
            Err(error) => {
                tracing::warn!(%error, destination = %lane.name, "temporary files could not be removed yet");
                permit.failed();
            }
        }
    }
}

/// Looks at one page of old blobs and removes those that belong to nothing. Returns where to go on; none at the end.
async fn blobs(shop: &Shop, after: Option<BlobId>) -> Result<Option<BlobId>, BlobError> {
    let old = shop.config.sweep.orphan_seconds.duration();
    let page = shop.backends.blob.list(old, after, BLOBS).await?;
    for blob in &page {
        match is_needed(shop, *blob).await {
            Ok(true) => {}
            Ok(false) => {
                // Nothing can begin to need it: a blob's id is written into its record before its first byte is staged,
                // and an aborted upload never comes back.
                shop.backends.blob.delete(*blob).await?;
                tracing::info!(%blob, "removed a blob that belonged to no upload");
            }
            Err(error) => return Err(BlobError::Unavailable(error.to_string())),
        }
    }
    Ok(page.last().copied().filter(|_| page.len() == BLOBS))
}

/// Whether some upload's bytes are in a blob, or may yet be.
async fn is_needed(shop: &Shop, blob: BlobId) -> Result<bool, StateError> {
    let query = UploadQuery { blob: Some(blob), limit: 10, ..UploadQuery::default() };
    let settled = Timestamp::now().minus(shop.config.sweep.aborted_seconds.duration());
    let found = shop.backends.state.find(query).await?;
    Ok(found.iter().any(|upload| {
        let sealed = matches!(upload.blob, Some(BlobRef::Stored { blob: stored }) if stored == blob);
        let staged = upload.staged.as_ref().and_then(|s| s.blob.as_ref()).is_some_and(|s| s.blob == blob);
        // A store that does not know the condition answers with anything: then nothing is removed.
        (!sealed && !staged) || upload.state != UploadState::Aborted || upload.updated_at > settled
    }))
}
