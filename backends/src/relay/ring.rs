//! Ringing for one's own commits right after the answer, where that is quicker than to wait for the relay.

use super::{BATCH, job::job_of};
use crate::{Backends, observe::Counter};
use dropgate_schemas::{
    change::{OutboxEntry, OutboxMessage},
    id::OutboxId,
    job::{Job, Work},
    time::Timestamp,
};
use std::time::Duration;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// What was rung for is marked together after so long, for by then a relay has put it where marking is cheap;
const MARKED: Duration = Duration::from_secs(2);
/// or once so many wait for it.
const MARKED_AT_ONCE: usize = 64;
/// The relay leaves what is due to be routed for so long to whoever committed it.
const LEFT: Duration = Duration::from_secs(6);

/// Rings for the jobs among `entries` that are due at once, and marks them. What fails is left to the relay: it loses
/// nothing but time.
pub async fn ring(backends: &Backends, entries: &[OutboxEntry]) {
    let rung = ring_all(backends, &jobs(entries)).await;
    mark(backends, &rung).await;
}

fn jobs(entries: &[OutboxEntry]) -> Vec<Job> {
    entries.iter().filter(|entry| entry.not_before.is_none()).filter_map(job_of).collect()
}

/// Rings, and says what for.
async fn ring_all(backends: &Backends, jobs: &[Job]) -> Vec<OutboxId> {
    if jobs.is_empty() {
        return Vec::new();
    }
    match backends.queue.publish(jobs).await {
        Ok(()) => {
            Counter::JobsPublished.add(jobs.len() as u64);
            jobs.iter().map(|job| job.entry).collect()
        }
        Err(error) => {
            tracing::debug!(%error, jobs = jobs.len(), "could not ring for own commits; the relay will");
            Vec::new()
        }
    }
}

async fn mark(backends: &Backends, rung: &[OutboxId]) {
    if rung.is_empty() {
        return;
    }
    if let Err(error) = backends.state.outbox_done(rung).await {
        tracing::debug!(%error, jobs = rung.len(), "could not mark what was rung for; the relay rings again");
    }
}

/// Whether a job was committed so lately that whoever committed it may be about to ring for it. A host whose clock is
/// ahead is not waited for.
pub(super) fn is_fresh(entry: &OutboxEntry, now: Timestamp) -> bool {
    let routes = matches!(entry.message, OutboxMessage::Job { work: Work::Route });
    // Its id tells when it was made.
    let made = entry.id.uuid().get_timestamp().map(|at| at.to_unix());
    let made = made.and_then(|(seconds, _)| i64::try_from(seconds).ok()?.checked_mul(1_000));
    let left = Timestamp::from_millis(made.unwrap_or_default()).plus(LEFT);
    routes && entry.not_before.is_none() && now < left && left.since(now) <= LEFT
}

/// A bell that a gateway or worker pulls after each of its commits without waiting. Cheap to clone.
///
/// What was asked for while the last ring was under way is rung for together. At most 1,024 commits wait; for those above
/// that the relay rings, as it does for everything where [`crate::JobQueue::wants_ringing`] says no.
#[derive(Clone, Debug)]
pub struct Ringer {
    waiting: Option<mpsc::Sender<Vec<Job>>>,
}

impl Ringer {
    /// Starts the task that rings, until `shutdown`; what waits then is left to the relay.
    #[must_use]
    pub fn start(backends: &Backends, shutdown: CancellationToken) -> Self {
        if !backends.queue.wants_ringing() {
            return Self { waiting: None };
        }
        let backends = backends.clone();
        let (waiting, mut asked) = mpsc::channel::<Vec<Job>>(1024);
        tokio::spawn(async move {
            let (mut batch, mut rung, mut due) = (Vec::new(), Vec::new(), None);
            loop {
                let marking = async {
                    match due {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    () = marking => {
                        mark(&backends, &std::mem::take(&mut rung)).await;
                        due = None;
                    }
                    asked = asked.recv_many(&mut batch, BATCH) => {
                        if asked == 0 {
                            break;
                        }
                        let jobs: Vec<Job> = batch.drain(..).flatten().collect();
                        rung.extend(ring_all(&backends, &jobs).await);
                        if rung.len() >= MARKED_AT_ONCE {
                            due = Some(Instant::now());
                        } else if !rung.is_empty() {
                            due.get_or_insert_with(|| Instant::now() + MARKED);
                        }
                    }
                }
            }
        });
        Self { waiting: Some(waiting) }
    }

    /// Rings for the jobs among `entries`, soon.
    pub fn ring(&self, entries: &[OutboxEntry]) {
        let Some(waiting) = &self.waiting else { return };
        let jobs = jobs(entries);
        if !jobs.is_empty() && waiting.try_send(jobs).is_err() {
            tracing::debug!("the bell is busy; the relay rings");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_schemas::id::{DeliveryId, UploadId};

    #[test]
    fn only_what_was_just_committed_to_be_routed_is_left_to_who_committed_it() {
        let (upload, now) = (UploadId::new(), Timestamp::now());
        let entry = OutboxEntry::job(upload, Work::Route);
        assert!(is_fresh(&entry, now));
        assert!(!is_fresh(&entry, now.plus(LEFT + Duration::from_secs(1))), "it was left");
        let behind = now.minus(Duration::from_secs(60));
        assert!(!is_fresh(&entry, behind), "its host's clock is ahead, and tells nothing");
        assert!(!is_fresh(&entry.at(now), now), "it is due later, and nobody waits to ring for it");
        let work = Work::Deliver { delivery: DeliveryId::derive(upload, "lake", 1) };
        assert!(!is_fresh(&OutboxEntry::job(upload, work), now), "workers leave it to the relay");
        assert!(MARKED < LEFT);
    }
}
