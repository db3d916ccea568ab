//! What may be opened and requested on a connection after login.

use std::sync::atomic::Ordering;

use dropgate_gateway::ssh::EndReason;
use russh::ChannelMsg;

use crate::engines::Behaviour;
use crate::server::Server;

#[tokio::test]
async fn ten_channels_and_a_place_for_each_that_closes() {
    let server = Server::start(Behaviour::Echo).await;
    let client = server.logged_in().await;
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(server.sftp_channel(&client).await);
    }
    assert!(client.channel_open_session().await.is_err(), "the eleventh");
    let leaving = channels.pop().unwrap();
    leaving.close().await.unwrap();
    server.engines_until("one engine ended", |engines| engines.live.load(Ordering::SeqCst) == 9).await;
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::ChannelClosed]);
    // The place is given back on the task that ended the engine, an instant later.
    let mut opened = client.channel_open_session().await;
    while opened.is_err() {
        tokio::task::yield_now().await;
        opened = client.channel_open_session().await;
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn one_subsystem_a_channel_and_nothing_else() {
    let server = Server::start(Behaviour::Echo).await;
    let client = server.logged_in().await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.set_env(true, "LD_PRELOAD", "x").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.agent_forward(true).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.exec(true, "rm -rf /").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.request_shell(true).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    // Data before the subsystem goes nowhere.
    channel.data(&b"too early"[..]).await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    channel.request_subsystem(true, "sftp").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    channel.exec(true, "true").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    // stderr data is not part of the stream.
    channel.extended_data(1, &b"stderr"[..]).await.unwrap();
    channel.data(&b"now"[..]).await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Data { data }) if data == "now"));
    assert_eq!(server.engines.opened.load(Ordering::SeqCst), 1);
    server.stop().await;
}

#[tokio::test]
async fn an_engine_that_gives_up_closes_its_channel_only() {
    let server = Server::start(Behaviour::Refuse).await;
    let client = server.logged_in().await;
    let mut bad = server.sftp_channel(&client).await;
    let _other = server.sftp_channel(&client).await;
    bad.data(&b"garbage"[..]).await.unwrap();
    let mut seen = Vec::new();
    while let Some(message) = bad.wait().await {
        match message {
            ChannelMsg::ExitStatus { exit_status } => seen.push(format!("exit {exit_status}")),
            ChannelMsg::Eof => seen.push("eof".to_owned()),
            ChannelMsg::Close => seen.push("close".to_owned()),
            ChannelMsg::WindowAdjusted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["exit 1", "eof", "close"]);
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::EngineClosed]);
    assert!(!client.is_closed());
    server.sftp_channel(&client).await;
    server.stop().await;
}

#[tokio::test]
async fn eof_ends_with_status_zero_after_the_last_reply() {
    let server = Server::start(Behaviour::Echo).await;
    let client = server.logged_in().await;
    let mut channel = server.sftp_channel(&client).await;
    let sent = vec![3; 300_000];
    channel.data(&sent[..]).await.unwrap();
    channel.eof().await.unwrap();
    let (mut received, mut status) = (0, None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                assert_eq!(status, None, "data after the exit status");
                received += data.len();
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    assert_eq!((received, status), (sent.len(), Some(0)));
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::Eof]);
    server.stop().await;
}
