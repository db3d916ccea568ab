//! The flow-control trap: clients that do not read, stores that do not take, connections that vanish meanwhile. Nothing
//! may hang, and memory stays bounded.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dropgate_gateway::ssh::{CloseReason, EndReason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::engines::Behaviour;
use crate::server::Server;

/// A proxy that can stop passing on what the server sends, down to the TCP window.
struct Valve {
    address: SocketAddr,
    shut: Arc<AtomicBool>,
}

impl Valve {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shut = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&shut);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let upstream = TcpStream::connect(server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = upstream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let mut buffer = vec![0; 16 * 1024];
            loop {
                while state.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                match from_server.read(&mut buffer).await {
                    Ok(n) if n > 0 && to_client.write_all(&buffer[..n]).await.is_ok() => {}
                    _ => break,
                }
            }
        });
        Self { address, shut }
    }

    fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_whose_replies_are_never_read() {
    let server = Server::start_with(Behaviour::Amplify(100), |config| {
        config.keepalive_seconds = 1;
        config.keepalive_tries = 1;
        config.ssh.outbox_bytes = 1 << 20;
    })
    .await;
    let valve = Valve::before(server.address).await;
    let mut client = server.connect_to(valve.address, Default::default()).await;
    server.log_in(&mut client).await;
    let channel = server.sftp_channel(&client).await;
    valve.shut();
    let sending = async {
        for _ in 0..10_000 {
            // 20 bytes are answered with 2,000: 20 MB in all, more than every buffer on the way.
            if channel.data(&[1; 20][..]).await.is_err() {
                break;
            }
        }
    };
    let ended = tokio::select! {
        reason = server.end_of_connection() => reason,
        () = async { sending.await; std::future::pending::<()>().await } => unreachable!(),
    };
    assert!(matches!(ended, CloseReason::NotReading | CloseReason::Unresponsive), "{ended:?}");
    server.engines_until("the engine is gone", |engines| engines.live.load(Ordering::SeqCst) == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_its_window_closed_overflows_the_outbox() {
    let server =
        Server::start_with(Behaviour::Amplify(1000), |config| config.ssh.outbox_bytes = 1 << 20).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    // Nobody reads ssh's output: it stops reading the channel, but goes on with the connection.
    let mut ssh = server.openssh("ssh", Some(&key)).args(["-s", "bob@127.0.0.1", "sftp"]).spawn().unwrap();
    let _unread = ssh.stdout.take().unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    let feeding = tokio::spawn(async move {
        for _ in 0..20_000 {
            if stdin.write_all(&[1; 100]).await.is_err() {
                break;
            }
        }
    });
    assert_eq!(server.end_of_connection().await, CloseReason::NotReading);
    server.engines_until("the engine is gone", |engines| engines.live.load(Ordering::SeqCst) == 0).await;
    feeding.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_and_half_close_during_a_stall_free_everything() {
    for half_close in [true, false] {
        let server = Server::start_with(Behaviour::Gated, |config| config.storage_stall_seconds = 2).await;
        let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
        let mut ssh = server
            .openssh("ssh", Some(&key))
            .args(["-s", "bob@127.0.0.1", "sftp"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = ssh.stdin.take().unwrap();
        stdin.write_all(&[1; 300_000]).await.unwrap();
        server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
        let started = Instant::now();
        if half_close {
            drop(stdin);
        } else {
            ssh.kill().await.unwrap();
        }
        let reason = server.end_of_connection().await;
        assert!(
            matches!(
                reason,
                CloseReason::StorageStalled | CloseReason::ClosedByClient | CloseReason::Lost(_)
            ),
            "{reason:?}"
        );
        server.engines_until("the engine is gone", |engines| engines.live.load(Ordering::SeqCst) == 0).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_in_a_stall_that_ends_is_answered_and_ends_in_order() {
    let server = Server::start(Behaviour::Gated).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let mut ssh = server.openssh("ssh", Some(&key)).args(["-s", "bob@127.0.0.1", "sftp"]).spawn().unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(&[1; 300_000]).await.unwrap();
    server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
    drop(stdin);
    server.engines.gate.add_permits(1_000_000);
    let output = ssh.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 300_000);
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::Eof]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_the_engine_as_lost() {
    let server = Server::start(Behaviour::Echo).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let mut ssh = server
        .openssh("ssh", Some(&key))
        .args(["-s", "bob@127.0.0.1", "sftp"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(&[1; 1000]).await.unwrap();
    server.engines_until("fed", |engines| engines.fed.load(Ordering::SeqCst) > 0).await;
    ssh.kill().await.unwrap();
    server.engines_until("ended", |engines| engines.live.load(Ordering::SeqCst) == 0).await;
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::ConnectionLost]);
    server.stop().await;
}
