//! A relay on loopback before a server: it can stop answering, and damage what passes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The bytes by which the relay finds what to damage.
pub(super) const MARK: &[u8] = b"<<here-a-bit-is-flipped>>";

#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Mode {
    Pass,
    /// Connections stay open and nothing is answered.
    Stall,
    /// A bit of what is sent to the server is flipped.
    DamageSent,
    /// A bit of what the server sends is flipped.
    DamageAnswered,
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    mode: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// `upstream`: host and port.
    pub(super) async fn start(upstream: &str, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(mode as u8));
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&mode));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, mode, task }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &mut buffer[..n];
            if pass(bytes, &mode, Mode::DamageSent).await || to_server.write_all(bytes).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            let bytes = &mut buffer[..n];
            if pass(bytes, &mode, Mode::DamageAnswered).await || to_client.write_all(bytes).await.is_err() {
                break;
            }
        }
    };
    // Either side ending ends both.
    tokio::select! { () = up => {}, () = down => {} }
}

/// Does to `bytes` what the mode says; never comes back while it is to stall.
async fn pass(bytes: &mut [u8], mode: &AtomicU8, damage: Mode) -> bool {
    let now = mode.load(Ordering::SeqCst);
    if now == Mode::Stall as u8 {
        std::future::pending::<()>().await;
    }
    if now == damage as u8
        && let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK)
    {
        bytes[at + 3] ^= 1;
    }
    false
}
