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

/// How far a connection has come, login not included.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Greeted,
    AlgorithmsOffered,
    KeysComputed,
    Encrypted,
    ServiceAccepted,
    PasswordRefused,
    KeyOffered,
}

const STAGES: [Stage; 7] = [
    Stage::Greeted,
    Stage::AlgorithmsOffered,
    Stage::KeysComputed,
    Stage::Encrypted,
    Stage::ServiceAccepted,
    Stage::PasswordRefused,
    Stage::KeyOffered,
];

impl Stage {
    async fn reach(self, server: &Server) -> RawClient {
        let mut client = match self {
            Self::Greeted => return RawClient::greet(server.address).await,
            Self::AlgorithmsOffered => {
                let mut client = RawClient::greet(server.address).await;
                client.offer_algorithms().await;
                return client;
            }
            Self::KeysComputed => {
                let mut client = RawClient::greet(server.address).await;
                client.offer_algorithms().await.exchange_keys(&mut client).await;
                return client;
            }
            _ => RawClient::connect(server.address).await,
        };
        if matches!(self, Self::Encrypted) {
            return client;
        }
        client.request_service().await;
        let (request, answer) = match self {
            Self::PasswordRefused => (raw::auth_password("alice", "wrong"), raw::USERAUTH_FAILURE),
            Self::KeyOffered => {
                let key = crate::server::russh_key().public_key().to_bytes().unwrap();
                (raw::auth_key_offer("alice", "ssh-ed25519", &key), raw::USERAUTH_PK_OK)
            }
            _ => return client,
        };
        client.send(&request).await;
        assert_eq!(client.answer().await.unwrap()[0], answer);
        client
    }
}

/// Sends one message number in all its forms, then knocks at every door. Returns what the server said.
async fn knock(server: &Server, stage: Stage, number: u8) -> Vec<Vec<u8>> {
    let mut client = stage.reach(server).await;
    let mut attempt = payloads(number);
    attempt.push(raw::channel_open());
    for channel in 0..4 {
        attempt.push(raw::subsystem(channel));
        attempt.push(raw::data(channel, b"get in"));
    }
    attempt.push(raw::service_request());
    attempt.push(raw::auth_none("alice"));
    for payload in attempt {
        // The server may hang up at any of these; then the rest goes nowhere, which is as good.
        let _ = client.try_send(&payload).await;
    }
    client.last_words().await
}

/// What the server may say before a login: DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG, EXT_INFO, the messages of a key
/// exchange, and refusals. SERVICE_ACCEPT answers the knocking.
fn harmless(message: u8) -> bool {
    matches!(message, 1..=4 | raw::SERVICE_ACCEPT | 7 | 20 | 21 | 30 | 31 | raw::USERAUTH_FAILURE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_login_no_message_number_gets_anywhere() {
    let server = Server::start_with(Behaviour::Echo, |config| {
        many_connections(config);
        config.limits.unauthenticated_per_source = 1000;
        config.auth.failure_delay_ms = 0;
    })
    .await;
    for stage in STAGES {
        let mut numbers = 0..=255u8;
        loop {
            // Some at a time, since each waits for the other side most of the time.
            let some: Vec<u8> = numbers.by_ref().take(8).collect();
            if some.is_empty() {
                break;
            }
            let knocks = some.iter().map(|number| knock(&server, stage, *number));
            for (number, said) in some.iter().zip(futures::future::join_all(knocks).await) {
                for message in said {
                    let ok = message.first().is_some_and(|first| harmless(*first));
                    assert!(ok, "{stage:?}, message {number} was answered with {message:?}");
                }
            }
        }
    }
    assert_eq!(server.engines.opened.load(Ordering::SeqCst), 0);
    assert!(!server.facts().iter().any(|fact| matches!(fact, SessionFact::LoginAccepted { .. })));
    assert_eq!(panics(&server), [""; 0]);
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
