//! The byte stream under russh: buffered reads, a kill switch, limits before login, and an eye on the first KEXINITs.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::kexinit::Sniffer;
use crate::ssh::{CloseReason, SessionControl};

/// Read buffer of a session. russh reads a 4-byte length and then the body of each packet: without a buffer, that is
/// two system calls a packet.
const READ_BUFFER: usize = 64 * 1024;
/// Read buffer before login, when nothing large may come.
const READ_BUFFER_BEFORE_LOGIN: usize = 8 * 1024;
/// After a read of at least this much, the buffer is kept over the wait for the next one.
const READ_BUFFER_KEPT: usize = 8 * 1024;

/// What a client may send before its login succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BeforeLogin {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// A client's connection as russh sees it.
///
/// Dropping russh's session future only detaches its task, so the way to end a session for sure is to fail its stream:
/// when the kill token of the [`SessionControl`] is cancelled, every pending and later read or write is an error.
pub(crate) struct ClientStream<S> {
    socket: S,
    control: Arc<SessionControl>,
    limits: BeforeLogin,
    buffer: BytesMut,
    start: usize,
    received: u64,
    exact_reads: u64,
    sniffed: Option<Box<Sniffed>>,
    killed_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    killed_writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

struct Sniffed {
    client: Sniffer,
    server: Sniffer,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(socket: S, control: Arc<SessionControl>, limits: BeforeLogin) -> Self {
        let killed = control.kill_token();
        Self {
            socket,
            limits,
            buffer: BytesMut::new(),
            start: 0,
            received: 0,
            exact_reads: 0,
            sniffed: Some(Box::new(Sniffed { client: Sniffer::new(), server: Sniffer::new() })),
            killed_reading: Box::pin(killed.clone().cancelled_owned()),
            killed_writing: Box::pin(killed.cancelled_owned()),
            control,
        }
    }

    fn sniff(&mut self, from_client: bool, bytes: &[u8]) {
        let Some(sniffed) = &mut self.sniffed else { return };
        let side = if from_client { &mut sniffed.client } else { &mut sniffed.server };
        if !side.observe(bytes) {
            return;
        }
        if let Some(identification) = sniffed.client.identification() {
            self.control.set_client_software(identification);
        }
        if let Some(algorithms) = Sniffer::negotiated(&sniffed.client, &sniffed.server) {
            self.control.set_algorithms(algorithms);
        }
        let done = |side: &Sniffer| !matches!(side, Sniffer::Collecting(_));
        if done(&sniffed.client) && done(&sniffed.server) {
            self.sniffed = None;
        }
    }

    /// Counts what came before login. Packet lengths are encrypted after the key exchange, but russh reads each packet
    /// with two exact reads (length, body), so half the reads that were filled to the last byte is the packet count.
    fn check_before_login(&mut self, read_was_exact: bool) -> io::Result<()> {
        if self.control.is_authenticated() {
            return Ok(());
        }
        self.exact_reads += u64::from(read_was_exact);
        if self.received > self.limits.bytes || self.exact_reads / 2 > self.limits.packets {
            self.control.note(CloseReason::FloodBeforeLogin);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too much data before login"));
        }
        Ok(())
    }
}

fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was ended")
}

impl<S: AsyncRead + Unpin> ClientStream<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.killed_reading.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(killed()));
        }
        let last = self.buffer.len();
        self.start = 0;
        self.buffer.clear();
        let size = if self.control.is_authenticated() { READ_BUFFER } else { READ_BUFFER_BEFORE_LOGIN };
        if self.buffer.capacity() < size {
            self.buffer = BytesMut::with_capacity(size);
        }
        match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.buffer) {
            Poll::Pending => {
                // A session that waits after little traffic keeps no buffer: most sessions of a gateway wait most of
                // the time. One in the middle of an upload keeps it.
                if last < READ_BUFFER_KEPT {
                    self.buffer = BytesMut::new();
                }
                Poll::Pending
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Ready(Ok(received)) => {
                self.received += received as u64;
                self.control.count_received(received);
                if self.sniffed.is_some() {
                    let seen = self.buffer.clone();
                    self.sniff(true, &seen);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.buffer.len() {
            match this.poll_fill(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        let available = this.buffer.get(this.start..).unwrap_or_default();
        let taken = available.len().min(out.remaining());
        out.put_slice(available.get(..taken).unwrap_or_default());
        this.start += taken;
        let exact = taken > 0 && out.remaining() == 0;
        Poll::Ready(this.check_before_login(exact))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.killed_writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(killed()));
        }
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        match &written {
            Poll::Pending => this.control.write_blocked(),
            Poll::Ready(Ok(n)) => {
                this.control.write_went_through(*n);
                if this.sniffed.is_some() {
                    this.sniff(false, bytes.get(..*n).unwrap_or_default());
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.killed_writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(killed()));
        }
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}
