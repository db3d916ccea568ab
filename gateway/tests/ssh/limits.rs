//! Connections that come too often, say too much too early, or say nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dropgate_gateway::listener::LimitHit;
use dropgate_gateway::ssh::CloseReason;
use dropgate_gateway::ssh::observer::SessionFact;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engines::Behaviour;
use crate::server::{PATIENCE, Server};

/// Everything that the server sends until it hangs up.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset also is an end.
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(n) = stream.read(&mut buffer).await {
            if n == 0 {
                break;
            }
            said.extend_from_slice(&buffer[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the server hangs up");
    said
}

async fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// A clear IGNORE packet.
fn ignore(payload: usize) -> Vec<u8> {
    let mut packet = u32::try_from(1 + 5 + payload + 8).unwrap().to_be_bytes().to_vec();
    packet.extend([8, 2]);
    packet.extend(u32::try_from(payload).unwrap().to_be_bytes());
    packet.extend(vec![0; payload + 8]);
    packet
}

#[tokio::test]
async fn who_says_nothing_or_nonsense_is_cut_off() {
    let server = Server::start_with(Behaviour::Echo, |config| config.identification_seconds = 1).await;
    let started = Instant::now();
    let said = read_to_end(&mut dial(server.address).await).await;
    assert!(said.starts_with(b"SSH-2.0-Dropgate_"), "{said:?}");
    assert!(started.elapsed() >= Duration::from_millis(900));
    assert_eq!(server.end_of_connection().await, CloseReason::NoIdentification);
    server.stop().await;

    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[b'A'; 300],
        b"SSH-1.5-old\r\n",
        &[&b"SSH-2.0-"[..], &[b'a'; 300]].concat(),
    ] {
        let server = Server::start(Behaviour::Echo).await;
        let mut stream = dial(server.address).await;
        stream.write_all(nonsense).await.unwrap();
        read_to_end(&mut stream).await;
        assert!(matches!(server.end_of_connection().await, CloseReason::ProtocolError(_)));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_port_check_is_known_as_such() {
    let server = Server::start(Behaviour::Echo).await;
    drop(dial(server.address).await);
    assert_eq!(server.end_of_connection().await, CloseReason::Probe);
    server.stop().await;
}

#[tokio::test]
async fn login_grace_is_absolute() {
    let server = Server::start_with(Behaviour::Echo, |config| {
        config.login_grace_seconds = 1;
        config.before_login_packets = 100_000;
    })
    .await;
    let started = Instant::now();
    let mut stream = dial(server.address).await;
    stream.write_all(b"SSH-2.0-Slow\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let dribble = tokio::spawn(async move {
        // Keeps any timer alive that restarts with each packet.
        while writer.write_all(&ignore(4)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut said)).await.expect("hangs up");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(server.end_of_connection().await, CloseReason::LoginGrace);
    dribble.abort();
    server.stop().await;
}

#[tokio::test]
async fn too_many_packets_or_bytes_before_login() {
    for (count, payload) in [(200, 4), (20, 30_000)] {
        let server = Server::start(Behaviour::Echo).await;
        let mut stream = dial(server.address).await;
        stream.write_all(b"SSH-2.0-Flood\r\n").await.unwrap();
        let flood: Vec<u8> = (0..count).flat_map(|_| ignore(payload)).collect();
        let _ = stream.write_all(&flood).await;
        read_to_end(&mut stream).await;
        assert_eq!(server.end_of_connection().await, CloseReason::FloodBeforeLogin, "{count} x {payload}");
        server.stop().await;
    }
}

#[tokio::test]
async fn connections_of_one_source_are_capped_and_told_so() {
    let server =
        Server::start_with(Behaviour::Echo, |config| config.limits.unauthenticated_per_source = 2).await;
    let (mut first, mut second) = (dial(server.address).await, dial(server.address).await);
    for waiting in [&mut first, &mut second] {
        waiting.read_u8().await.unwrap();
    }
    let said = read_to_end(&mut dial(server.address).await).await;
    assert!(said.starts_with(b"Too many connections"), "{:?}", String::from_utf8_lossy(&said));
    let limit = server
        .fact(|fact| match fact {
            SessionFact::TurnedAway { limit, .. } => Some(*limit),
            _ => None,
        })
        .await;
    assert_eq!(limit, LimitHit::UnauthenticatedPerSource);
    drop(first);
    server.end_of_connection().await;
    let mut next = dial(server.address).await;
    let mut greeting = [0; 8];
    next.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    server.stop().await;
}

#[tokio::test]
async fn sessions_of_one_account_are_capped_at_login() {
    let server = Server::start_with(Behaviour::Echo, |config| config.limits.sessions_per_account = 1).await;
    let first = server.logged_in().await;
    let mut second = server.connect().await;
    let result = second
        .authenticate_publickey(
            "alice",
            russh::keys::PrivateKeyWithHashAlg::new(crate::server::russh_key(), None),
        )
        .await;
    assert!(!result.is_ok_and(|result| result.success()));
    assert_eq!(server.end_of_connection().await, CloseReason::Limit(LimitHit::SessionsPerAccount));
    first.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    server
        .fact(|fact| matches!(fact, SessionFact::Disconnected { account: Some(_), .. }).then_some(()))
        .await;
    server.logged_in().await;
    server.stop().await;
}
