//! Accepted uploads that nobody works on: their bells are rung again.

use super::{PAGE, Rung, ring};
use crate::worker::Shop;
use dropgate_backends::{StateError, UploadQuery, observe::Counter, state::UploadOrder};
use dropgate_schemas::{
    delivery::{Delivery, DeliveryState},
    id::UploadId,
    job::{Job, Work},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// With so many jobs in the queue nothing is rung for because it waits long: it waits its turn.
const BUSY: u64 = 1_000;
/// How often it is rung for one orphaned claim.
const AGAIN: Duration = Duration::from_secs(20);

/// How far the uploads that wait were looked through.
#[derive(Default)]
pub(super) struct Backlog(Option<UploadId>);

impl Backlog {
    /// Whether there is more to look through.
    pub(super) const fn goes_on(&self) -> bool {
        self.0.is_some()
    }
}

/// Claims of this instance that this process does not work on: those of its former self, or of a task that ended without
/// settling.
pub(super) async fn own_claims(shop: &Shop, rung: &mut Rung) -> Result<(), StateError> {
    let query = UploadQuery {
        owner: Some(shop.me),
        states: vec![UploadState::Delivering],
        limit: PAGE,
        ..UploadQuery::default()
    };
    let ours = |d: &Delivery| d.owner == Some(shop.me) && !shop.is_active(d.delivery_id);
    let jobs = jobs(rung, &shop.backends.state.find(query).await?, ours);
    ring(shop, jobs).await;
    Ok(())
}

/// Claims of workers that are dead.
pub(super) async fn lost_claims(shop: &Shop, rung: &mut Rung) -> Result<(), StateError> {
    let lease = shop.config.lease_seconds.duration();
    let dead =
        |d: &Delivery| d.owner.is_none_or(|owner| owner != shop.me && shop.peers.is_dead(owner, lease));
    let mut order = UploadOrder::NewestFirst;
    loop {
        let query = UploadQuery {
            states: vec![UploadState::Delivering],
            order,
            limit: PAGE,
            ..UploadQuery::default()
        };
        let page = shop.backends.state.find(query).await?;
        ring(shop, jobs(rung, &page, dead)).await;
        match page.last() {
            Some(last) if page.len() == PAGE => order = UploadOrder::Before(last.upload_id),
            Some(_) | None => return Ok(()),
        }
    }
}

fn jobs(rung: &mut Rung, uploads: &[Upload], orphaned: impl Fn(&Delivery) -> bool) -> Vec<Job> {
    let mut jobs = Vec::new();
    for upload in uploads {
        for delivery in upload.deliveries.iter().filter(|d| d.state.is_claimed() && orphaned(d)) {
            let work = Work::Deliver { delivery: delivery.delivery_id };
            jobs.extend(rung.job(upload.upload_id, work, AGAIN));
        }
    }
    jobs
}

/// Accepted uploads whose bell was lost: those that wait for long, or all of them. A page each time, round and round.
pub(super) async fn unclaimed(
    shop: &Shop,
    rung: &mut Rung,
    backlog: &mut Backlog,
    all: bool,
) -> Result<(), StateError> {
    let waits = shop.config.sweep.unclaimed_seconds.duration();
    match shop.backends.queue.depth().await {
        Ok(depth) if depth < BUSY => {}
        Ok(_) => return Ok(()),
        Err(error) => {
            Counter::ErrorsQueue.one();
            tracing::warn!(%error, "the queue does not tell how long it is; nothing is rung for");
            return Ok(());
        }
    }
    let now = Timestamp::now();
    let late = if all { now } else { now.minus(waits) };
    let query = UploadQuery {
        states: vec![UploadState::Committed],
        updated_before: Some(late),
        order: backlog.0.map_or(UploadOrder::NewestFirst, UploadOrder::Before),
        limit: PAGE,
        ..UploadQuery::default()
    };
    let page = shop.backends.state.find(query).await?;
    backlog.0 = page.last().filter(|_| page.len() == PAGE).map(|last| last.upload_id);
    let mut jobs = Vec::new();
    for upload in &page {
        let id = upload.upload_id;
        if upload.current_deliveries().next().is_none() {
            jobs.extend(rung.job(id, Work::Route, waits));
        }
        for delivery in upload.current_deliveries() {
            let due = delivery.next_attempt_at.is_none_or(|due| due < late);
            if matches!(delivery.state, DeliveryState::Pending | DeliveryState::RetryWait) && due {
                jobs.extend(rung.job(id, Work::Deliver { delivery: delivery.delivery_id }, waits));
            }
        }
    }
    ring(shop, jobs).await;
    Ok(())
}
