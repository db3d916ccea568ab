//! A stretch of wire between a real client and a server: a loopback proxy that can be cut, after so many bytes or now.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// The proxy. Dropping it cuts all connections through it.
pub struct Wire {
    /// Where clients connect to.
    pub address: SocketAddr,
    cut: watch::Sender<u64>,
    up: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Wire {
    /// A wire to `server` that breaks after `limit` bytes from client to server (`u64::MAX`: never by itself), each
    /// connection counted for itself.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn to(server: SocketAddr, limit: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, watched) = watch::channel(0);
        let up = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&up);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, limit, Arc::clone(&counted), watched.clone()));
            }
        });
        Ok(Self { address, cut, up, task })
    }

    /// Bytes carried from clients to the server so far.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.up.load(Ordering::SeqCst)
    }

    /// Cuts every connection through it; new ones can be made.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    limit: u64,
    up: Arc<AtomicU64>,
    mut cut: watch::Receiver<u64>,
) {
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(server).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let unlimited = Arc::new(AtomicU64::new(0));
    let both = async {
        tokio::try_join!(
            pump(client_read, server_write, limit, up),
            pump(server_read, client_write, u64::MAX, unlimited)
        )
    };
    tokio::select! {
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// The wire broke in this direction: both halves go.
struct Broken;

/// An orderly end of one direction is passed on, and the other goes on.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    limit: u64,
    count: Arc<AtomicU64>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = limit;
    while left > 0 {
        let read = from.read(&mut buffer).await.map_err(|_| Broken)?;
        if read == 0 {
            return to.shutdown().await.map_err(|_| Broken);
        }
        let pass = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        to.write_all(buffer.get(..pass).unwrap_or_default()).await.map_err(|_| Broken)?;
        left -= pass as u64;
        count.fetch_add(pass as u64, Ordering::SeqCst);
    }
    Err(Broken)
}
