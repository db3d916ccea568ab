//! A way to a server that can be made slow: every answer comes late and little at a time, and nothing is lost.

use super::variable;
use anyhow::{Context as _, Result};
use rand::RngExt as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
};

/// How late an answer is, in milliseconds.
const LATE: std::ops::Range<u64> = 300..800;
/// Bytes that go through at a time, each way.
const PIECE: usize = 64 << 10;
/// And how many of them in a second.
const BYTES_PER_SECOND: f64 = 512.0 * 1024.0;

/// A relay on loopback in front of one server.
pub struct Detour {
    variable: String,
    uri: String,
    server: String,
    address: String,
    slow: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Detour {
    /// In front of the server that an environment variable names.
    ///
    /// # Errors
    /// If the variable is not set, or nothing can be bound.
    pub async fn to(name: &str) -> Result<Self> {
        let uri = variable(name)?;
        let rest = uri.split_once("://").context("no address")?.1;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let server = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let slow = Arc::new(AtomicBool::new(false));
        let (upstream, shared) = (server.clone(), Arc::clone(&slow));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(pass(client, upstream.clone(), Arc::clone(&shared)));
            }
        });
        Ok(Self { variable: name.to_owned(), uri, server, address, slow, task: task.abort_handle() })
    }

    /// The config with this way to the server in it.
    #[must_use]
    pub fn applied(&self, config: &str) -> String {
        let config = config.replace(&format!("env:{}", self.variable), &self.uri);
        config.replace(&self.server, &self.address)
    }

    /// Makes it slow, or quick again.
    pub fn slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::SeqCst);
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. Either side ending ends both.
async fn pass(client: TcpStream, upstream: String, slow: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(&upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = one_way(from_client, to_server, &slow, false) => {}
        () = one_way(from_server, to_client, &slow, true) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, slow: &AtomicBool, late: bool) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if slow.load(Ordering::SeqCst) {
            let late = if late { rand::rng().random_range(LATE) } else { 0 };
            let seconds = f64::from(u32::try_from(length).unwrap_or_default()) / BYTES_PER_SECOND;
            tokio::time::sleep(Duration::from_millis(late) + Duration::from_secs_f64(seconds)).await;
        }
        let Some(read) = piece.get(..length) else { return };
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}
