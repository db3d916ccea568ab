//! What every credential store does, whatever it is made of.
#![expect(clippy::expect_used, reason = "a suite that fails panics, like the tests that call it")]

use super::CredentialStore;
use dropgate_schemas::{
    account::{AccountName, Credentials, PublicKey},
    time::Timestamp,
};

/// Runs the suite on two openings of one store, which stand for two processes. Accounts whose names begin with `conf-`
/// are used; others may be in it.
///
/// # Panics
/// If the store does anything else than the port promises.
pub async fn suite(store: &dyn CredentialStore, other: &dyn CredentialStore) {
    store.check().await.expect("an open store answers");
    let (alice, bob) = (name("conf-alice"), name("conf-bob"));
    for account in [&alice, &bob] {
        store.remove(account).await.expect("removing what is not there is fine");
        assert_eq!(store.lookup(account).await.expect("lookup"), None);
    }

    let mut full = Credentials {
        account: alice.clone(),
        password_hash: Some("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".to_owned()),
        public_keys: vec![key("one \"quoted\" \\ comment"), key("two")],
    };
    let empty = Credentials { account: bob.clone(), password_hash: None, public_keys: Vec::new() };
    store.put(full.clone()).await.expect("put");
    store.put(empty.clone()).await.expect("put");
    for reader in [store, other] {
        assert_eq!(reader.lookup(&alice).await.expect("lookup"), Some(full.clone()));
        assert_eq!(reader.lookup(&bob).await.expect("lookup"), Some(empty.clone()));
    }

    // A change by one is seen by the other on its next look, every time.
    for round in 0..20 {
        full.password_hash = Some(format!("hash {round}"));
        full.public_keys.truncate(round % 3);
        let (writer, reader) = if round % 2 == 0 { (other, store) } else { (store, other) };
        writer.put(full.clone()).await.expect("put");
        assert_eq!(reader.lookup(&alice).await.expect("lookup"), Some(full.clone()));
    }

    // Writers do not undo each other.
    let (a, b) = (name("conf-a"), name("conf-b"));
    let put = |account: &AccountName| Credentials { account: account.clone(), ..empty.clone() };
    for _ in 0..5 {
        let (one, two) = tokio::join!(store.put(put(&a)), other.put(put(&b)));
        one.expect("put");
        two.expect("put");
        for reader in [store, other] {
            for account in [&a, &b] {
                assert!(reader.lookup(account).await.expect("lookup").is_some(), "{account} was lost");
            }
        }
        let (one, two) = tokio::join!(store.remove(&a), other.remove(&b));
        one.expect("remove");
        two.expect("remove");
    }

    store.remove(&alice).await.expect("remove");
    for reader in [store, other] {
        assert_eq!(reader.lookup(&alice).await.expect("lookup"), None);
        assert_eq!(reader.lookup(&bob).await.expect("lookup"), Some(empty.clone()));
    }
    store.remove(&bob).await.expect("remove");
}

fn name(text: &str) -> AccountName {
    text.parse().expect("a name")
}

fn key(comment: &str) -> PublicKey {
    PublicKey {
        key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEZPgk45udX0U8wwnhJ3a/Tf6N4LYM1JrcY4WlS9dVFT".to_owned(),
        fingerprint: "SHA256:RZYe4fblfxoSgriodvGiZcvhD+g0llsaNAH9/zvXnuI".to_owned(),
        comment: comment.to_owned(),
        from: vec!["192.0.2.0/24".to_owned()],
        expires_at: Some(Timestamp::from_millis(1_900_000_000_123)),
        added_at: Timestamp::from_millis(1_700_000_000_456),
    }
}
