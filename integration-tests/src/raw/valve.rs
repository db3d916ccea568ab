//! A socket whose reading can be stopped: the client that never reads its replies, down to the TCP window.

use futures::task::AtomicWaker;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Opens, shuts and cuts a [`Valved`] socket from outside.
#[derive(Clone, Default)]
pub struct Valve(Arc<Inner>);

#[derive(Default)]
struct Inner {
    shut: AtomicBool,
    half_closed: AtomicBool,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Valve {
    /// Reads nothing more from the socket, until opened again.
    pub fn shut(&self) {
        self.0.shut.store(true, Ordering::SeqCst);
    }
    /// Reads on.
    pub fn open(&self) {
        self.0.shut.store(false, Ordering::SeqCst);
        self.0.reader.wake();
    }
    /// Sends FIN and drops what would be written later; reading goes on.
    pub fn half_close(&self) {
        self.0.half_closed.store(true, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }
    /// Drops the connection at once, without a word of SSH.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }
}

/// The socket behind a [`Valve`].
pub struct Valved {
    stream: TcpStream,
    valve: Valve,
}

impl Valved {
    /// Puts `valve` in front of `stream`.
    #[must_use]
    pub fn new(stream: TcpStream, valve: Valve) -> Self {
        Self { stream, valve }
    }
    fn is_cut(&self) -> bool {
        self.valve.0.cut.load(Ordering::SeqCst)
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

impl AsyncRead for Valved {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.valve.0.reader.register(cx.waker());
        if self.is_cut() {
            return gone();
        }
        if self.valve.0.half_closed.load(Ordering::SeqCst) {
            // The session task may never write again: it is here that the FIN is sure to be sent.
            if let Poll::Ready(Err(e)) = Pin::new(&mut self.stream).poll_shutdown(cx) {
                return Poll::Ready(Err(e));
            }
        }
        if self.valve.0.shut.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Valved {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.valve.0.writer.register(cx.waker());
        if self.is_cut() {
            return gone();
        }
        if self.valve.0.half_closed.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return gone();
        }
        if self.valve.0.half_closed.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
