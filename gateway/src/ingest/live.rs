//! Uploads that are open in this process, and who may take them over.

use super::open_file::OpenFile;
use dropgate_schemas::id::{SessionId, UploadId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The uploads this gateway receives now, and the sessions that are connected.
#[derive(Debug, Default)]
pub struct LiveUploads {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    uploads: HashMap<UploadId, Arc<OpenFile>>,
    /// Channels by session.
    sessions: HashMap<SessionId, usize>,
}

impl LiveUploads {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `file` is being received.
    pub fn add(&self, id: UploadId, file: Arc<OpenFile>) {
        self.inner().uploads.insert(id, file);
    }

    /// Notes that `file` is not received any more.
    /// A later handle of the same upload stays.
    pub fn remove(&self, id: UploadId, file: &OpenFile) {
        let mut inner = self.inner();
        if inner.uploads.get(&id).is_some_and(|there| std::ptr::eq(Arc::as_ptr(there), file)) {
            inner.uploads.remove(&id);
        }
    }

    /// The open file of an upload, if this process receives it.
    #[must_use]
    pub fn get(&self, id: UploadId) -> Option<Arc<OpenFile>> {
        self.inner().uploads.get(&id).cloned()
    }

    /// Notes that a session opened a channel.
    pub fn channel_began(&self, session: SessionId) {
        *self.inner().sessions.entry(session).or_default() += 1;
    }

    /// Notes that a channel of a session is over.
    pub fn channel_ended(&self, session: SessionId) {
        let mut inner = self.inner();
        if let Some(channels) = inner.sessions.get_mut(&session) {
            *channels = channels.saturating_sub(1);
            if *channels == 0 {
                inner.sessions.remove(&session);
            }
        }
    }

    /// Whether a session is connected to this process.
    #[must_use]
    pub fn is_connected(&self, session: SessionId) -> bool {
        self.inner().sessions.contains_key(&session)
    }
}
