//! Limits that protect the process.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Setup, until::within},
    raw::{Attrs, Connection, Credential, Login, Request, Transport, frame, reply},
};
use std::time::{Duration, Instant};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Reads until the server hangs up.
async fn hung_up(mut socket: TcpStream) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    // A reset is a hang-up as well.
    let _ = within(Duration::from_secs(20), "the server to hang up", socket.read_to_end(&mut said)).await?;
    Ok(said)
}

#[tokio::test]
async fn login_grace_is_absolute() -> Result<()> {
    let config = "[gateway.listener]\nlogin_grace_seconds = 3\nidentification_seconds = 2\n";
    let gate = Gate::start(Setup::default().config(config)).await?;
    // Silence: the identification never comes.
    let begun = Instant::now();
    let said = hung_up(TcpStream::connect(gate.sftp()?).await?).await?;
    ensure!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    ensure!(said.starts_with(b"SSH-2.0-"), "{}", String::from_utf8_lossy(&said));
    for word in ["OpenSSH", "ProFTPD", "Bitvise"] {
        ensure!(!String::from_utf8_lossy(&said).contains(word), "WinSCP would ask for version 6");
    }
    // Key exchange done, no login: keeping the line busy does not help.
    let connection = Connection::greet(gate.sftp()?, &Transport::default()).await?;
    let begun = Instant::now();
    while !connection.is_closed() {
        ensure!(begun.elapsed() < Duration::from_secs(12), "still connected");
        let _ = connection.rekey().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // One that is logged in stays.
    let (_kept, mut raw) = gate.raw("acme").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    raw.names("/").await?;
    gate.finish().await
}

#[tokio::test]
async fn caps_on_connections_sessions_channels_and_handles() -> Result<()> {
    let config = "[gateway.listener.limits]\nunauthenticated_per_source = 4\nnew_burst_per_source = 1000\n\
                  new_per_second_per_source = 1000\nsessions_per_account = 3\n[gateway.uploads]\nhandles = 5\n";
    let gate = Gate::start(Setup::default().config(config).accounts(&["acme", "other"])).await?;

    // Four may wait to log in, a fifth is turned away; when they go, the next gets in.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(gate.sftp()?).await?;
        let mut banner = [0; 8];
        within(Duration::from_secs(10), "the banner", socket.read_exact(&mut banner)).await??;
        waiting.push(socket);
    }
    let said = hung_up(TcpStream::connect(gate.sftp()?).await?).await?;
    ensure!(said.len() < 300, "the fifth was served: {}", String::from_utf8_lossy(&said));
    drop(waiting);

    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(
            dropgate_integration_tests::harness::until::until(
                Duration::from_secs(10),
                "a session",
                || async { gate.raw("acme").await.map(Some) },
            )
            .await?,
        );
    }
    ensure!(gate.raw("acme").await.is_err(), "a fourth session of one account");
    gate.raw("other").await?;

    // Ten channels on a connection.
    let (connection, raw) = &mut sessions[0];
    let mut channels = Vec::new();
    for _ in 0..9 {
        channels.push(connection.sftp().await?);
    }
    ensure!(connection.channel().await.is_err(), "an eleventh channel");
    // Five handles on a session, of both kinds; one closed makes room for one.
    let mut handles = Vec::new();
    for number in 0..4 {
        let path = format!("/upload/h{number}");
        handles.push(raw.open(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none()).await?);
    }
    raw.call(Request::Opendir { path: b"/" }).await?.handle()?;
    let sixth = raw.call(Request::Opendir { path: b"/" }).await?;
    sixth.refused(reply::FAILURE)?;
    raw.call(Request::Close { handle: &handles[0] }).await?.ok()?;
    raw.call(Request::Opendir { path: b"/" }).await?.handle()?;
    drop(sessions);
    drop(channels);
    gate.finish().await
}

#[tokio::test]
async fn offers_of_strange_keys_are_capped_and_then_the_connection_ends() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let stranger = dropgate_integration_tests::harness::sshd::keypair(&gate.path("stranger.key"))?;
    let login = Login { user: "acme".to_owned(), with: Credential::Key(stranger) };
    let mut connection = Connection::greet(gate.sftp()?, &Transport::default()).await?;
    let mut tries = 0;
    while let Ok(answer) = connection.authenticate(&login).await {
        ensure!(!answer.success());
        tries += 1;
        // An offer without a signature is no try yet: agents hold many keys.
        ensure!(tries <= 21, "{tries} offers on one connection");
        if connection.is_closed() {
            break;
        }
    }
    // The account is none the worse for it.
    gate.raw("acme").await?;
    gate.finish().await
}

#[tokio::test]
async fn a_client_that_says_nonsense_is_sent_away() -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let gate = Gate::start(Setup::default()).await?;
    for nonsense in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 70_000],
        b"SSH-1.5-old\r\n".to_vec(),
        [b"SSH-2.0-x\r\n".as_slice(), &[0xff; 64]].concat(),
    ] {
        let mut socket = TcpStream::connect(gate.sftp()?).await?;
        let _ = socket.write_all(&nonsense).await;
        hung_up(socket).await?;
    }
    gate.raw("acme").await?;
    gate.finish().await
}
