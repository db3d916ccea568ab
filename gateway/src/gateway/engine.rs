//! Where SSH hands over to SFTP: an engine for each channel.

use crate::{
    ingest::{Budget, Committer, Ingest, LiveUploads},
    journal::Journal,
    session::SessionFacts,
    sftp::{
        Engine, ReplySink, SinkClosed,
        session::{Session, SessionLimits},
    },
    ssh::{ChannelEngine, EndReason, EngineClosed, EngineContext, EngineFactory, Lifecycle, Outbox},
    vfs::Tree,
};
use async_trait::async_trait;
use dropgate_schemas::id::{InstanceId, SessionId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Makes engines.
pub(super) struct Engines {
    ingest: Ingest,
    journal: Arc<Journal>,
    limits: SessionLimits,
    connection_bytes: usize,
    instance: InstanceId,
    node: String,
    /// The channels of one connection share its memory.
    connections: Mutex<HashMap<SessionId, Weak<Budget>>>,
}

impl Engines {
    pub(super) fn new(
        ingest: Ingest,
        journal: Arc<Journal>,
        limits: SessionLimits,
        connection_bytes: usize,
        instance: InstanceId,
        node: String,
    ) -> Self {
        Self { ingest, journal, limits, connection_bytes, instance, node, connections: Mutex::default() }
    }

    fn connection_budget(&self, session: SessionId) -> Arc<Budget> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, budget| budget.strong_count() > 0);
        if let Some(budget) = connections.get(&session).and_then(Weak::upgrade) {
            return budget;
        }
        let budget = Budget::new(self.connection_bytes);
        connections.insert(session, Arc::downgrade(&budget));
        budget
    }
}

impl EngineFactory for Engines {
    fn open(&self, context: EngineContext) -> Box<dyn ChannelEngine> {
        let EngineContext { session: info, account, outbox, lifecycle } = context;
        let facts = Arc::new(SessionFacts::new(
            info.id,
            account,
            info.peer.to_string(),
            info.credential.to_string(),
            self.instance,
            self.node.clone(),
            &info.client_software,
        ));
        let tree = Arc::new(Tree::new(Arc::clone(&self.ingest.backends.state), facts));
        let committer =
            Arc::new(Committer::new(&self.ingest, Arc::clone(&tree), self.connection_budget(info.id)));
        let sink: Arc<dyn ReplySink> = Arc::new(Sink(outbox));
        let session = Session::new(tree, committer, Arc::clone(&self.journal), sink, self.limits);
        self.ingest.live.channel_began(info.id);
        let channel = LiveChannel { live: Arc::clone(&self.ingest.live), session: info.id };
        Box::new(Channel { engine: Engine::new(Arc::clone(&session)), session, lifecycle, _channel: channel })
    }
}

struct Sink(Outbox);

impl ReplySink for Sink {
    fn push(&self, reply: &[u8]) -> Result<(), SinkClosed> {
        self.0.push(reply).map_err(|_| SinkClosed)
    }
    fn unsent(&self) -> usize {
        self.0.len()
    }
}

/// Counts the channel as connected for as long as it lives, however it ends.
struct LiveChannel {
    live: Arc<LiveUploads>,
    session: SessionId,
}

impl Drop for LiveChannel {
    fn drop(&mut self) {
        self.live.channel_ended(self.session);
    }
}

struct Channel {
    engine: Engine,
    session: Arc<Session>,
    lifecycle: Lifecycle,
    _channel: LiveChannel,
}

#[async_trait]
impl ChannelEngine for Channel {
    async fn feed(&mut self, bytes: &[u8]) -> Result<(), EngineClosed> {
        let fed = self.engine.feed(bytes).await;
        // A draining server lets sessions with something under way finish it.
        self.session.keep_busy(|| Box::new(self.lifecycle.busy()));
        fed.map_err(|end| {
            tracing::debug!(%end, "the engine closes the channel");
            EngineClosed
        })
    }

    async fn end(&mut self, why: EndReason) {
        self.engine
            .end(match why {
                EndReason::Eof => "the client ended the session without closing the file",
                EndReason::ChannelClosed => "the client closed the channel without closing the file",
                EndReason::EngineClosed => "the channel was closed after a protocol error",
                EndReason::ConnectionLost => "the connection was lost",
                EndReason::SessionEnded => "the server ended the session",
            })
            .await;
    }
}
