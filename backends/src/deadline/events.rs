use super::{Failure, deadlines, sentence};
use crate::{
    events::{EventError, EventPublisher},
    state::LoggedEvent,
};
use std::time::Duration;

impl Failure for EventError {
    fn late(after: Duration) -> Self {
        Self::Unavailable(sentence(after))
    }
    fn is_ours(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Rejected(_) => true,
        }
    }
}

deadlines! { EventPublisher, EventError, ErrorsEvents {
    async fn publish(&self, events: &[LoggedEvent]) -> usize;
    async fn check(&self) -> ();
}
    async fn close(&self) {
        let _ = tokio::time::timeout(self.limit, self.inner.close()).await;
    }
}
