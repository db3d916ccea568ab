//! Logins: who gets in, how often one may try, what a refused client learns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dropgate_gateway::ssh::observer::SessionFact;
use dropgate_gateway::ssh::{CloseReason, Refusal};
use dropgate_schemas::account::Credentials;
use dropgate_schemas::time::Timestamp;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::{Algorithm, PrivateKey, PublicKey, Signature};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};

use crate::engines::Behaviour;
use crate::server::{PASSWORD, Server, russh_key, stored};

fn refusals(server: &Server) -> Vec<(String, Refusal)> {
    server
        .facts()
        .iter()
        .filter_map(|fact| match fact {
            SessionFact::LoginRefused { user, refusal, .. } => Some((user.clone(), *refusal)),
            _ => None,
        })
        .collect()
}

fn with_hash(key: Arc<PrivateKey>) -> PrivateKeyWithHashAlg {
    PrivateKeyWithHashAlg::new(key, None)
}

fn new_key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap())
}

#[track_caller]
fn remaining(result: AuthResult) -> MethodSet {
    match result {
        AuthResult::Failure { remaining_methods, partial_success: false } => remaining_methods,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn three_wrong_passwords_close_the_connection_at_once() {
    let server = Server::start(Behaviour::Echo).await;
    let mut client = server.connect().await;
    let both = MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice());
    assert_eq!(remaining(client.authenticate_none("alice").await.unwrap()), both);
    for _ in 0..3 {
        let methods = remaining(client.authenticate_password("alice", "wrong").await.unwrap());
        assert_eq!(methods, both, "a wrong password does not take the method off the list");
    }
    assert_eq!(server.end_of_connection().await, CloseReason::TooManyTries);
    assert!(client.authenticate_password("alice", PASSWORD).await.is_err());
    assert_eq!(refusals(&server), vec![("alice".to_owned(), Refusal::WrongPassword); 3]);
    server.stop().await;
}

#[tokio::test]
async fn alternating_names_gives_no_further_tries() {
    let server = Server::start(Behaviour::Echo).await;
    let mut client = server.connect().await;
    for name in ["alice", "nobody", "UPPER/../case"] {
        remaining(client.authenticate_password(name, "wrong").await.unwrap());
    }
    assert_eq!(server.end_of_connection().await, CloseReason::TooManyTries);
    assert_eq!(
        refusals(&server),
        [
            ("alice".to_owned(), Refusal::WrongPassword),
            ("nobody".to_owned(), Refusal::UnknownAccount),
            ("UPPER/../case".to_owned(), Refusal::UnknownAccount),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_good_login_works_after_failures_within_the_limit() {
    let server = Server::start(Behaviour::Echo).await;
    let mut client = server.connect().await;
    remaining(client.authenticate_password("alice", "wrong").await.unwrap());
    remaining(client.authenticate_password("nobody", PASSWORD).await.unwrap());
    assert!(client.authenticate_password("alice", PASSWORD).await.unwrap().success());
    server.sftp_channel(&client).await;
    server.stop().await;
}

#[tokio::test]
async fn key_offers_are_capped_and_do_not_count_as_tries() {
    let server = Server::start_with(Behaviour::Echo, |config| config.auth.key_offers = 8).await;
    let mut client = server.connect().await;
    for _ in 0..8 {
        remaining(client.authenticate_publickey("alice", with_hash(new_key())).await.unwrap());
    }
    // An agent with eight other keys and the right one at last: nine offers are one too many here.
    let ninth = client.authenticate_publickey("alice", with_hash(russh_key())).await;
    assert!(!ninth.is_ok_and(|result| result.success()));
    assert_eq!(server.end_of_connection().await, CloseReason::TooManyTries);
    let refused_keys = server
        .fact(|fact| match fact {
            SessionFact::Disconnected { refused_keys, .. } => Some(*refused_keys),
            _ => None,
        })
        .await;
    assert_eq!(refused_keys, 8);

    let mut client = server.connect().await;
    for _ in 0..7 {
        remaining(client.authenticate_publickey("alice", with_hash(new_key())).await.unwrap());
    }
    assert!(client.authenticate_publickey("alice", with_hash(russh_key())).await.unwrap().success());
    server.stop().await;
}

#[tokio::test]
async fn refusals_take_the_same_time_for_known_and_unknown_accounts_and_none_is_free() {
    let server = Server::start_with(Behaviour::Echo, |config| config.auth.failure_delay_ms = 600).await;
    let mut client = server.connect().await;
    let started = Instant::now();
    client.authenticate_none("alice").await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "none took {:?}", started.elapsed());
    let mut times = Vec::new();
    for name in ["alice", "nobody"] {
        let started = Instant::now();
        client.authenticate_password(name, "wrong").await.unwrap();
        times.push(started.elapsed());
    }
    for time in &times {
        assert!(*time >= Duration::from_millis(600), "{times:?}");
    }
    server.stop().await;
}

/// Signs with this key, whichever it is asked for.
struct SignsWith(Arc<PrivateKey>);

impl russh::Signer for SignsWith {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        use russh::keys::signature::Signer;
        use russh::keys::ssh_encoding::Encode as _;
        let signature: Signature = Signer::try_sign(&*self.0, &to_sign).unwrap();
        let mut blob = Vec::new();
        signature.encode(&mut blob).unwrap();
        let mut request = to_sign;
        blob.encode(&mut request).unwrap();
        Ok(request)
    }
}

#[tokio::test]
async fn the_signature_decides_not_the_offer() {
    let server = Server::start(Behaviour::Echo).await;
    let mallory = new_key();
    server.stores.put_account(
        "mallory",
        Credentials {
            account: "mallory".parse().unwrap(),
            password_hash: None,
            public_keys: vec![stored(mallory.public_key())],
        },
    );
    // Alice's key is offered (and welcome), but mallory signs.
    let mut client = server.connect().await;
    let alices: PublicKey = russh_key().public_key().clone();
    let mut impostor = SignsWith(mallory.clone());
    remaining(
        client.authenticate_publickey_with("alice", alices.clone(), None, &mut impostor).await.unwrap(),
    );
    // On the same connection mallory is nobody but mallory.
    remaining(client.authenticate_publickey("alice", with_hash(mallory.clone())).await.unwrap());
    assert!(client.authenticate_publickey("mallory", with_hash(mallory)).await.unwrap().success());
    let account = server
        .fact(|fact| match fact {
            SessionFact::LoginAccepted { account, .. } => Some(account.name.clone()),
            _ => None,
        })
        .await;
    assert_eq!(account.as_str(), "mallory");
    // The test's own signer is not why the first one failed.
    let mut alice = server.connect().await;
    let mut herself = SignsWith(russh_key());
    assert!(alice.authenticate_publickey_with("alice", alices, None, &mut herself).await.unwrap().success());
    server.stop().await;
}

#[tokio::test]
async fn keys_expire_and_are_bound_to_networks() {
    let server = Server::start(Behaviour::Echo).await;
    let key = new_key();
    let give = |from: &[&str], expires_in: Option<i64>| {
        let mut stored = stored(key.public_key());
        stored.from = from.iter().map(|network| (*network).to_owned()).collect();
        stored.expires_at =
            expires_in.map(|seconds| Timestamp::from_millis(Timestamp::now().millis() + seconds * 1000));
        server.stores.put_account(
            "bob",
            Credentials { account: "bob".parse().unwrap(), password_hash: None, public_keys: vec![stored] },
        );
    };
    for (from, expires_in, welcome) in [
        (&["127.0.0.0/8"][..], None, true),
        (&["192.0.2.0/24", "127.0.0.1"], Some(60), true),
        (&["192.0.2.0/24"], None, false),
        (&["nonsense"], None, false),
        (&[], Some(-1), false),
    ] {
        give(from, expires_in);
        let mut client = server.connect().await;
        let result = client.authenticate_publickey("bob", with_hash(key.clone())).await.unwrap();
        assert_eq!(result.success(), welcome, "{from:?} {expires_in:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn disabled_removed_and_passwordless_accounts_stay_out() {
    let server = Server::start(Behaviour::Echo).await;
    server.stores.put_account(
        "keyonly",
        Credentials { account: "keyonly".parse().unwrap(), password_hash: None, public_keys: Vec::new() },
    );
    let mut client = server.connect().await;
    remaining(client.authenticate_password("keyonly", "").await.unwrap());
    server.stores.change_account("alice", |account| account.enabled = false);
    remaining(client.authenticate_password("alice", PASSWORD).await.unwrap());
    remaining(client.authenticate_publickey("alice", with_hash(russh_key())).await.unwrap());
    server.stores.change_account("alice", |account| {
        account.enabled = true;
        account.removed = true;
    });
    remaining(client.authenticate_password("alice", PASSWORD).await.unwrap());
    let why: Vec<Refusal> = refusals(&server).into_iter().map(|(_, refusal)| refusal).collect();
    assert_eq!(why, [Refusal::NoPassword, Refusal::AccountDisabled, Refusal::UnknownAccount]);
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_is_down_or_hangs_says_try_again_later() {
    for hanging in [false, true] {
        let server = Server::start_with(Behaviour::Echo, |config| config.auth.lookup_seconds = 1).await;
        let trouble = if hanging { &server.stores.hanging } else { &server.stores.down };
        trouble.store(true, Ordering::SeqCst);
        let mut client = server.connect().await;
        let _ = client.authenticate_password("alice", PASSWORD).await;
        assert_eq!(server.end_of_connection().await, CloseReason::LoginUnavailable, "hanging: {hanging}");
        assert!(CloseReason::LoginUnavailable.to_string().contains("try again later"));
        trouble.store(false, Ordering::SeqCst);
        server.logged_in().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn while_the_state_store_is_out_of_order_accounts_it_confirmed_lately_log_in() {
    for hanging in [false, true] {
        let server = Server::start_with(Behaviour::Echo, |config| config.auth.lookup_seconds = 2).await;
        server.logged_in().await;
        server.stores.verifiers_are_well.store(true, Ordering::SeqCst);
        let trouble = if hanging { &server.stores.hanging } else { &server.stores.down };
        trouble.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        let client = server.logged_in().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "hanging: {hanging}: {:?}", begun.elapsed());
        assert_eq!(
            remaining(server.connect().await.authenticate_password("alice", "wrong").await.unwrap()).len(),
            2,
            "what is remembered is the account, not that its password was right"
        );
        // The first look that succeeds ends what a change meanwhile does not allow.
        server.stores.change_account("alice", |account| account.enabled = false);
        trouble.store(false, Ordering::SeqCst);
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(begun.elapsed() < Duration::from_secs(30), "a disabled account is still logged in");
        }
        // And is remembered from then on.
        trouble.store(true, Ordering::SeqCst);
        remaining(server.connect().await.authenticate_password("alice", PASSWORD).await.unwrap());
        let refused = refusals(&server).into_iter().map(|(_, refusal)| refusal).collect::<Vec<_>>();
        assert_eq!(refused, [Refusal::WrongPassword, Refusal::AccountDisabled], "hanging: {hanging}");
        trouble.store(false, Ordering::SeqCst);
        server.stop().await;
    }
}

#[tokio::test]
async fn what_the_state_store_said_is_remembered_for_so_long_only() {
    let server = Server::start_with(Behaviour::Echo, |config| config.auth.remember_seconds = 0).await;
    server.logged_in().await;
    server.stores.verifiers_are_well.store(true, Ordering::SeqCst);
    server.stores.down.store(true, Ordering::SeqCst);
    let mut client = server.connect().await;
    let _ = client.authenticate_password("alice", PASSWORD).await;
    let unavailable = |fact: &SessionFact| {
        matches!(fact, SessionFact::Disconnected { reason: CloseReason::LoginUnavailable, .. }).then_some(())
    };
    server.fact(unavailable).await;
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_refused_and_counted_by_nobody_else() {
    let server = Server::start_with(Behaviour::Echo, |config| {
        config.auth.tries = 6;
        config.auth.key_offers = 4;
    })
    .await;
    let mut client = server.connect().await;
    let mut refused = 0;
    while let Ok(answer) = client.authenticate_keyboard_interactive_start("alice", None).await {
        assert!(
            matches!(answer, russh::client::KeyboardInteractiveAuthResponse::Failure { .. }),
            "{answer:?}"
        );
        refused += 1;
        assert!(refused < 50, "methods that nobody counts could be tried for ever");
    }
    assert!(refused >= 6, "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn nobody_gets_in_unrecorded() {
    let server = Server::start(Behaviour::Echo).await;
    server.recorder.full.store(true, Ordering::SeqCst);
    let mut client = server.connect().await;
    let result = client.authenticate_password("alice", PASSWORD).await;
    assert!(!result.is_ok_and(|result| result.success()));
    assert_eq!(server.end_of_connection().await, CloseReason::LoginUnavailable);
    server.recorder.full.store(false, Ordering::SeqCst);
    server.logged_in().await;
    server.stop().await;
}
