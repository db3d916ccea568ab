//! Messages in the wrong state, of the wrong kind or of the wrong size: refused, and nothing breaks.

use std::sync::atomic::Ordering;

use dropgate_gateway::listener::ListenerConfig;
use dropgate_gateway::ssh::CloseReason;
use dropgate_gateway::ssh::observer::SessionFact;

use crate::engines::Behaviour;
use crate::raw::{self, RawClient};
use crate::server::{PASSWORD, Server};

fn many_connections(config: &mut ListenerConfig) {
    config.limits.new_per_second_per_source = 100_000;
    config.limits.new_burst_per_source = 100_000;
}

/// Payloads that a message with this number could have, so that it gets past the parser where there is one.
fn payloads(number: u8) -> Vec<Vec<u8>> {
    let with = |rest: &[u8]| [&[number], rest].concat();
    vec![
        with(&[]),
        with(&[0; 40]),
        with(&[0xff; 12]),
        with(&[&0u32.to_be_bytes()[..], &raw::string("session"), &[1], &raw::string("sftp")].concat()),
    ]
}

fn panics(server: &Server) -> Vec<String> {
    server
        .facts()
        .iter()
        .filter_map(|fact| match fact {
            SessionFact::Disconnected { reason: CloseReason::ProtocolError(text), .. }
                if text.contains("panic") =>
            {
                Some(text.clone())
            }
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_login_no_message_number_gets_anywhere() {
    let server = Server::start_with(Behaviour::Echo, many_connections).await;
    for service_accepted in [false, true] {
        for number in 0..=255u8 {
            let mut client = RawClient::connect(server.address).await;
            if service_accepted {
                client.request_service().await;
            }
            // The server may hang up at any of these; then the rest goes nowhere, which is as good.
            for payload in payloads(number) {
                let _ = client.try_send(&payload).await;
            }
            let mut attempt = vec![raw::channel_open()];
            for channel in 0..4 {
                attempt.push(raw::subsystem(channel));
                attempt.push(raw::data(channel, b"get in"));
            }
            attempt.push(raw::service_request());
            attempt.push(raw::auth_none("alice"));
            for payload in attempt {
                let _ = client.try_send(&payload).await;
            }
            while let Some(answer) = client.answer().await {
                match answer[0] {
                    raw::USERAUTH_SUCCESS | raw::CHANNEL_OPEN_CONFIRMATION | raw::CHANNEL_SUCCESS => {
                        panic!("message {number} opened the door: {answer:?}")
                    }
                    raw::USERAUTH_FAILURE => break,
                    _ => {}
                }
            }
        }
    }
    assert_eq!(server.engines.opened.load(Ordering::SeqCst), 0);
    assert!(!server.facts().iter().any(|fact| matches!(fact, SessionFact::LoginAccepted { .. })));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_login_no_message_number_breaks_the_server() {
    let server = Server::start_with(Behaviour::Echo, many_connections).await;
    let mut connections = 0;
    let mut live: Option<(RawClient, u32)> = None;
    for number in 0..=255u8 {
        for payload in payloads(number) {
            let (mut client, channel) = match live.take() {
                Some(live) => live,
                None => {
                    connections += 1;
                    let mut client = RawClient::connect(server.address).await;
                    client.log_in("alice", PASSWORD).await;
                    let channel = client.open_sftp().await;
                    (client, channel)
                }
            };
            // Either the server hangs up, or the session goes on as if nothing had been.
            let _ = client.try_send(&payload).await;
            let _ = client.try_send(&raw::data(channel, &[number, 1, 2, 3])).await;
            while let Some(answer) = client.answer().await {
                if answer[0] == raw::CHANNEL_DATA {
                    assert_eq!(&answer[9..], [number, 1, 2, 3]);
                    live = Some((client, channel));
                    break;
                }
            }
        }
    }
    assert!(connections < 400, "{connections}: sessions should survive most of it");
    let server_facts = panics(&server);
    assert!(server_facts.is_empty(), "{server_facts:?}");
    server.stop().await;
}

#[tokio::test]
async fn empty_data_is_no_request() {
    let server = Server::start(Behaviour::Echo).await;
    let mut client = RawClient::connect(server.address).await;
    client.log_in("alice", PASSWORD).await;
    let channel = client.open_sftp().await;
    for _ in 0..1000 {
        client.send(&raw::data(channel, b"")).await;
    }
    client.send(&raw::data(channel, b"abc")).await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer, [&[raw::CHANNEL_DATA, 0, 0, 0, 0][..], &raw::string("abc")].concat());
    assert_eq!(server.engines.empty_feeds.load(Ordering::SeqCst), 0);
    assert_eq!(server.engines.fed.load(Ordering::SeqCst), 3);
    server.stop().await;
}

#[tokio::test]
async fn encrypted_packets_before_login_are_counted() {
    let server = Server::start(Behaviour::Echo).await;
    let mut client = RawClient::connect(server.address).await;
    let ignore = [&[2][..], &raw::string("x")].concat();
    for _ in 0..150 {
        if client.try_send(&ignore).await.is_err() {
            break;
        }
    }
    assert_eq!(server.end_of_connection().await, CloseReason::FloodBeforeLogin);
    server.stop().await;

    // A login that needs many packets, but not too many, is not taken for a flood.
    let server = Server::start(Behaviour::Echo).await;
    let mut client = RawClient::connect(server.address).await;
    for _ in 0..80 {
        client.send(&ignore).await;
    }
    client.log_in("alice", PASSWORD).await;
    for _ in 0..500 {
        client.send(&ignore).await;
    }
    client.open_sftp().await;
    server.stop().await;
}

#[tokio::test]
async fn a_packet_of_a_megabyte_and_a_forged_one_end_the_connection() {
    let length = (1u32 << 20).to_be_bytes();
    for bytes in [&length[..], &[&[0, 0, 0, 32][..], &[7; 48]].concat()] {
        let server = Server::start(Behaviour::Echo).await;
        let mut client = RawClient::connect(server.address).await;
        client.log_in("alice", PASSWORD).await;
        client.open_sftp().await;
        client.send_bytes(bytes).await;
        assert_eq!(client.answer().await, None);
        assert!(matches!(server.end_of_connection().await, CloseReason::ProtocolError(_)));
        server.stop().await;
    }
}
