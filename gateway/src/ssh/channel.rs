//! One channel with the `sftp` subsystem: the engine, its outbox, the task that writes, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use russh::ChannelId;
use russh::server::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::control::{CloseReason, SessionControl};
use super::{ChannelEngine, EndReason, Outbox};

/// How long queued replies may take to reach russh after the engine ended.
const DRAIN: Duration = Duration::from_secs(30);
/// Deadline for one message into russh's queue.
const SEND: Duration = Duration::from_secs(10);

/// Where a channel's tasks live: they outlast the session task, and shutdown waits for them.
#[derive(Clone, Debug)]
pub(crate) struct TaskHome {
    pub(crate) tracker: TaskTracker,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) finish_within: Duration,
}

/// A channel that speaks SFTP.
pub(crate) struct SftpChannel {
    id: ChannelId,
    engine: Box<dyn ChannelEngine>,
    outbox: Outbox,
    writer: JoinHandle<()>,
    handle: Handle,
    control: Arc<SessionControl>,
}

impl SftpChannel {
    pub(crate) fn start(
        id: ChannelId,
        engine: Box<dyn ChannelEngine>,
        outbox: Outbox,
        handle: Handle,
        control: Arc<SessionControl>,
        home: &TaskHome,
    ) -> Self {
        let writing = write(id, outbox.clone(), handle.clone(), Arc::clone(&control));
        let writer = home.tracker.spawn_on(writing, &home.runtime);
        Self { id, engine, outbox, writer, handle, control }
    }

    pub(crate) fn engine(&mut self) -> &mut dyn ChannelEngine {
        &mut *self.engine
    }

    /// Ends the engine on a task of its own, so that neither the session task nor a dropped handler has to wait.
    /// `slot` is the channel's place in the cap, held to the end.
    pub(crate) fn finish<P: Send + 'static>(self, why: EndReason, slot: P, home: &TaskHome) {
        let within = home.finish_within;
        home.tracker.spawn_on(
            async move {
                self.run_finish(why, within).await;
                drop(slot);
            },
            &home.runtime,
        );
    }

    async fn run_finish(mut self, why: EndReason, within: Duration) {
        let answerable = match why {
            EndReason::Eof | EndReason::EngineClosed => true,
            EndReason::ChannelClosed | EndReason::ConnectionLost | EndReason::SessionEnded => false,
        };
        if !answerable {
            self.outbox.abandon();
        }
        if tokio::time::timeout(within, self.engine.end(why)).await.is_err() {
            tracing::warn!(session = %self.control.id, "requests in flight did not finish in time after the end");
        }
        drop(self.engine);
        self.outbox.close();
        if tokio::time::timeout(DRAIN, &mut self.writer).await.is_err() {
            self.outbox.abandon();
            self.control.close(CloseReason::NotReading);
            return;
        }
        if answerable {
            let status = match why {
                EndReason::Eof => 0,
                _ => 1,
            };
            // Errors mean that the session ended meanwhile: nobody is left to be told.
            let farewell = async {
                self.handle.exit_status_request(self.id, status).await?;
                self.handle.eof(self.id).await?;
                self.handle.close(self.id).await
            };
            let _ = tokio::time::timeout(SEND, farewell).await;
        }
    }
}

/// Hands the outbox to russh, piece by piece. The only place that waits for the client to read.
async fn write(id: ChannelId, outbox: Outbox, handle: Handle, control: Arc<SessionControl>) {
    let killed = control.kill_token();
    while let Some(piece) = outbox.next().await {
        let sent = tokio::select! {
            sent = handle.data(id, piece) => sent.is_ok(),
            () = killed.cancelled() => false,
        };
        if !sent {
            break;
        }
    }
    outbox.abandon();
}
