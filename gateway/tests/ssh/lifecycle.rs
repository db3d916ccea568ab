//! How sessions end when the client did not ask for it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dropgate_gateway::ssh::{CloseReason, EndReason};
use russh::ChannelMsg;

use crate::engines::Behaviour;
use crate::server::Server;

#[tokio::test]
async fn sessions_of_changed_accounts_end_within_a_second() {
    type Change = fn(&mut dropgate_schemas::account::Account);
    let changes: [(&str, Change); 3] = [
        ("disabled", |account| account.enabled = false),
        ("removed", |account| account.removed = true),
        ("credential revoked", |account| account.revocation_epoch += 1),
    ];
    for (what, change) in changes {
        let server = Server::start(Behaviour::Gated).await;
        let client = server.logged_in().await;
        let channel = server.sftp_channel(&client).await;
        // The worst case: the session task is stuck in a stall while the account is disabled.
        channel.data(&b"stuck"[..]).await.unwrap();
        server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
        let started = Instant::now();
        server.stores.change_account("alice", change);
        assert_eq!(server.end_of_connection().await, CloseReason::Revoked, "{what}");
        let took = started.elapsed();
        assert!(took < Duration::from_millis(1100), "{what} took {took:?}");
        server.engines_until("ended", |engines| engines.live.load(Ordering::SeqCst) == 0).await;
        assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::SessionEnded]);
        server.stop().await;
    }
}

#[tokio::test]
async fn other_changes_and_a_store_that_is_down_do_not_end_sessions() {
    let server = Server::start(Behaviour::Echo).await;
    let client = server.logged_in().await;
    let mut channel = server.sftp_channel(&client).await;
    server.stores.change_account("alice", |account| account.revision += 1);
    server.stores.down.store(true, Ordering::SeqCst);
    // Three polls.
    let seen = server.stores.lookups.load(Ordering::SeqCst);
    while server.stores.lookups.load(Ordering::SeqCst) < seen + 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    channel.data(&b"still here"[..]).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if data == "still here"));
    server.stop().await;
}

#[tokio::test]
async fn shutdown_ends_idle_sessions_at_once_and_lets_busy_ones_finish() {
    let server = Server::start(Behaviour::BusyUntilGate).await;
    let idle = server.logged_in().await;
    let busy = server.logged_in().await;
    let mut channel = server.sftp_channel(&busy).await;
    channel.data(&b"commit me"[..]).await.unwrap();
    server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
    let started = Instant::now();
    server.shutdown.cancel();
    assert_eq!(server.end_of_connection().await, CloseReason::ShuttingDown);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!busy.is_closed());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody is let in any more");
    server.engines.gate.add_permits(10);
    assert!(
        matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if data == "commit me"),
        "the answer to what was accepted is delivered before the end"
    );
    drop(idle);
    server.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_what_a_client_begins_after_it() {
    let server = Server::start(Behaviour::BusyAgain).await;
    let client = server.logged_in().await;
    let mut channel = server.sftp_channel(&client).await;
    channel.data(&b"commit me"[..]).await.unwrap();
    server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
    let started = Instant::now();
    server.shutdown.cancel();
    server.engines.gate.add_permits(1);
    assert!(
        matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if data == "commit me"),
        "the answer to what was accepted is delivered before the end"
    );
    assert_eq!(server.end_of_connection().await, CloseReason::ShuttingDown);
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let server = Server::start_with(Behaviour::BusyUntilGate, |config| config.drain_seconds = 1).await;
    let client = server.logged_in().await;
    let channel = server.sftp_channel(&client).await;
    channel.data(&b"never done"[..]).await.unwrap();
    server.engines_until("feeding", |engines| engines.feeding.load(Ordering::SeqCst)).await;
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn idle_sessions_are_closed_though_their_client_answers_keepalives() {
    let server = Server::start_with(Behaviour::Echo, |config| {
        config.idle_seconds = 2;
        config.keepalive_seconds = 1;
    })
    .await;
    let client = server.logged_in().await;
    let mut channel = server.sftp_channel(&client).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        channel.data(&b"x"[..]).await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Data { .. })), "requests keep it open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.end_of_connection().await, CloseReason::Idle);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_client_is_noticed() {
    let server = Server::start_with(Behaviour::Echo, |config| {
        config.keepalive_seconds = 1;
        config.keepalive_tries = 2;
    })
    .await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let ssh = server.openssh("ssh", Some(&key)).args(["-s", "bob@127.0.0.1", "sftp"]).spawn().unwrap();
    server.engines_until("opened", |engines| engines.opened.load(Ordering::SeqCst) == 1).await;
    let stopped =
        std::process::Command::new("kill").args(["-STOP", &ssh.id().unwrap().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(server.end_of_connection().await, CloseReason::Unresponsive);
    server.stop().await;
}
