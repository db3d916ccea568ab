//! A relay on loopback between a client and a server, which can stop answering.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const PASS: u8 = 0;
const STALL: u8 = 1;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    mode: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// `upstream`: host and port.
    pub(super) async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cuts) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (upstream, m, c) = (upstream.to_owned(), Arc::clone(&mode), Arc::clone(&cuts));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&m), Arc::clone(&c)));
            }
        });
        Self { address, mode, cuts, task }
    }

    /// Connections stay open and nothing is answered.
    pub(super) fn stall(&self) {
        self.mode.store(STALL, Ordering::SeqCst);
    }

    pub(super) fn pass(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }

    /// The next `count` answers are lost, and their connections with them.
    pub(super) fn cut(&self, count: usize) {
        self.cuts.store(count, Ordering::SeqCst);
    }

    pub(super) fn cuts_left(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, server: TcpStream, mode: Arc<AtomicU8>, cuts: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            if mode.load(Ordering::SeqCst) == STALL {
                std::future::pending::<()>().await;
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if mode.load(Ordering::SeqCst) == STALL {
                std::future::pending::<()>().await;
            }
            let cut = cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            if cut.is_ok() || to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    // Either side ending ends both.
    tokio::select! { () = up => {}, () = down => {} }
}
