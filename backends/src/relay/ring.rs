//! Ringing for one's own commits right after the answer, where that is quicker than to wait for the relay.

use super::{BATCH, job::job_of};
use crate::{Backends, observe::Counter};
use dropgate_schemas::{change::OutboxEntry, job::Job};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Rings for the jobs among `entries` that are due at once, and marks them. What fails is left to the relay: it loses
/// nothing but time.
pub async fn ring(backends: &Backends, entries: &[OutboxEntry]) {
    ring_all(backends, &jobs(entries)).await;
}

fn jobs(entries: &[OutboxEntry]) -> Vec<Job> {
    entries.iter().filter(|entry| entry.not_before.is_none()).filter_map(job_of).collect()
}

async fn ring_all(backends: &Backends, jobs: &[Job]) {
    if jobs.is_empty() {
        return;
    }
    let ids: Vec<_> = jobs.iter().map(|job| job.entry).collect();
    let rung = backends.queue.publish(jobs).await.map_err(|e| e.to_string());
    let marked = match rung {
        Ok(()) => {
            Counter::JobsPublished.add(jobs.len() as u64);
            backends.state.outbox_done(&ids).await.map_err(|e| e.to_string())
        }
        Err(error) => Err(error),
    };
    if let Err(error) = marked {
        tracing::debug!(error, jobs = jobs.len(), "could not ring for own commits; the relay will");
    }
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
            let mut batch = Vec::new();
            while let Some(1..) = shutdown.run_until_cancelled(asked.recv_many(&mut batch, BATCH)).await {
                let jobs: Vec<Job> = batch.drain(..).flatten().collect();
                ring_all(&backends, &jobs).await;
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
