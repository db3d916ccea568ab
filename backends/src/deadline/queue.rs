use super::{Failure, deadlines, sentence};
use crate::queue::{Claimed, JobQueue, QueueError};
use dropgate_schemas::job::Job;
use std::time::Duration;

impl Failure for QueueError {
    fn late(after: Duration) -> Self {
        Self::Unavailable(sentence(after))
    }
    fn is_ours(&self) -> bool {
        match self {
            Self::Full(_) | Self::Unavailable(_) | Self::Rejected(_) => true,
        }
    }
}

deadlines! { JobQueue, QueueError, ErrorsQueue {
    async fn publish(&self, jobs: &[Job]) -> ();
    async fn take(&self, limit: usize, wait: Duration) -> Vec<Claimed>, longer by wait;
    async fn ack(&self, tags: &[u64]) -> ();
    async fn release(&self, tag: u64, delay: Duration) -> ();
    async fn depth(&self) -> u64;
    async fn check(&self) -> ();
}
    fn wants_ringing(&self) -> bool {
        self.inner.wants_ringing()
    }

    async fn close(&self) {
        let _ = tokio::time::timeout(self.limit, self.inner.close()).await;
    }
}
