//! Speaks SFTP version 3: bytes in, replies out. Knows nothing of SSH, so it can be driven in memory.
//!
//! The rule that keeps a session alive: taking in may wait for storage, never for output. [`Engine::feed`] waits for room
//! in the upload's memory budget and for a free place among the requests in flight, both of which storage frees; replies
//! go into a [`ReplySink`] that never waits.

pub mod attrs;
pub mod frame;
mod handles;
mod lanes;
mod longname;
pub mod reply;
pub mod request;
mod requests;
pub mod session;
pub mod status;

use crate::{ingest::OpenFile, vfs::Refusal};
use frame::{Piece, Splitter};
use request::{Request, decode};
use session::Session;
use std::sync::Arc;

/// Where replies go. Never waits; over its bound it refuses and the session ends.
pub trait ReplySink: Send + Sync + 'static {
    /// Queues a whole packet for the client.
    ///
    /// # Errors
    /// If the client can't be reached any more, or does not read.
    fn push(&self, reply: &[u8]) -> Result<(), SinkClosed>;

    /// Bytes that were queued and have not left yet.
    fn unsent(&self) -> usize;
}

/// Replies can't be delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client does not take replies any more")]
pub struct SinkClosed;

/// The channel must be closed; nothing that follows may be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolEnd(pub String);

/// One channel's SFTP engine.
pub struct Engine {
    splitter: Splitter,
    session: Arc<Session>,
    initialised: bool,
    writing: Option<Writing>,
}

/// A WRITE whose payload is arriving.
struct Writing {
    id: u32,
    offset: u64,
    length: u32,
    target: Result<Arc<OpenFile>, Refusal>,
}

impl Engine {
    /// An engine for one channel.
    #[must_use]
    pub fn new(session: Arc<Session>) -> Self {
        Self { splitter: Splitter::default(), session, initialised: false, writing: None }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The channel must be closed: the stream makes no sense, or the client takes no replies.
    pub async fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolEnd> {
        loop {
            let piece = match self.splitter.next(&mut bytes) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.session.protocol_error(error.to_string())),
            };
            match piece {
                Piece::Packet(packet) => match decode(packet) {
                    Err(error) => return Err(self.session.protocol_error(error.to_string())),
                    Ok(Request::Init { .. }) if self.initialised => {
                        return Err(self.session.protocol_error("a second INIT".to_owned()));
                    }
                    Ok(Request::Init { version }) => {
                        tracing::debug!(version, "INIT");
                        self.initialised = true;
                        self.session.send(&reply::version())?;
                    }
                    Ok(Request::Numbered { .. }) if !self.initialised => {
                        return Err(self.session.protocol_error("a request before INIT".to_owned()));
                    }
                    Ok(Request::Numbered { id, body }) => self.session.dispatch(id, body).await?,
                },
                Piece::WriteHead { .. } if !self.initialised => {
                    return Err(self.session.protocol_error("a request before INIT".to_owned()));
                }
                Piece::WriteHead { id, handle, offset, length } => {
                    let target = if length > frame::MAX_WRITE {
                        Err(Refusal::failure("WRITE takes at most 261120 bytes"))
                    } else {
                        self.session.file(handle)
                    };
                    self.writing = Some(Writing { id, offset, length, target });
                }
                Piece::WriteData(data) => {
                    if let Some(writing) = &mut self.writing {
                        self.session.write(writing, data).await;
                    }
                }
                Piece::WriteEnd => {
                    if let Some(writing) = self.writing.take() {
                        self.session.end_write(writing)?;
                    }
                }
            }
        }
    }

    /// Ends the engine: answers what is in flight, then keeps what was not closed for a resume. `answers_arrive` tells
    /// whether the client still reads.
    pub async fn end(&mut self, why: &str) {
        if let Some(writing) = self.writing.take() {
            tracing::debug!(request = writing.id, "the stream ended inside a WRITE");
        }
        self.session.end(why).await;
    }
}
