//! Leases, heartbeats, reservations.

use super::{
    Fixture,
    samples::{account, path},
};
use dropgate_schemas::id::InstanceId;
use std::time::Duration;

/// The holder keeps it by renewing; who watches it stand still for `ttl` takes it, with a higher token.
pub async fn a_lease_has_one_holder_until_it_stands_still(store: &Fixture) {
    let (a, b) = (InstanceId::new(), InstanceId::new());
    let ttl = Duration::from_millis(400);
    let first = store.one.lease("relay", a, ttl).await.unwrap().unwrap();
    // Renewed more often than it expires, it stays where it is, however long that takes.
    for _ in 0..8 {
        assert_eq!(store.two.lease("relay", b, ttl).await.unwrap(), None);
        tokio::time::sleep(ttl / 8).await;
        assert_eq!(store.one.lease("relay", a, ttl).await.unwrap(), Some(first));
    }
    assert!(store.two.lease("other", b, ttl).await.unwrap().is_some(), "another name is another lease");
    // A first look never takes it, however old it is.
    tokio::time::sleep(ttl + ttl / 4).await;
    let taken = tokio::time::Instant::now();
    assert_eq!(store.two.lease("relay", b, ttl).await.unwrap(), None);
    let second = loop {
        if let Some(token) = store.two.lease("relay", b, ttl).await.unwrap() {
            break token;
        }
        assert!(taken.elapsed() < 10 * ttl, "the lease of a dead holder was never given");
        tokio::time::sleep(ttl / 10).await;
    };
    assert!(taken.elapsed() >= ttl, "taken too early");
    assert!(second > first);
    assert_eq!(store.one.lease("relay", a, ttl).await.unwrap(), None, "the old holder is out");
    assert_eq!(store.two.lease("relay", b, ttl).await.unwrap(), Some(second));
}

/// Only by its holder.
pub async fn a_lease_that_is_given_back_is_free_at_once(store: &Fixture) {
    let (a, b) = (InstanceId::new(), InstanceId::new());
    let ttl = Duration::from_secs(60);
    let first = store.one.lease("relay", a, ttl).await.unwrap().unwrap();
    store.two.release_lease("relay", b).await.unwrap();
    assert_eq!(store.two.lease("relay", b, ttl).await.unwrap(), None);
    store.one.release_lease("relay", a).await.unwrap();
    store.one.release_lease("never taken", a).await.unwrap();
    let second = store.two.lease("relay", b, ttl).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(store.one.lease("relay", a, ttl).await.unwrap(), None);
}

/// By both handles.
pub async fn heartbeats_are_counted(store: &Fixture) {
    let (a, b) = (InstanceId::new(), InstanceId::new());
    for _ in 0..3 {
        store.one.heartbeat(a, "gateway", "host (1)").await.unwrap();
    }
    store.two.heartbeat(b, "worker", "host (2)").await.unwrap();
    store.two.heartbeat(a, "gateway", "host (3)").await.unwrap();
    let mut seen = store.two.instances().await.unwrap();
    seen.sort_by_key(|instance| instance.beats);
    let told: Vec<_> = seen.iter().map(|i| (i.id, i.role.as_str(), i.node.as_str(), i.beats)).collect();
    assert_eq!(told, [(b, "worker", "host (2)", 1), (a, "gateway", "host (3)", 4)]);
}

/// For good.
pub async fn a_key_belongs_to_one_path(store: &Fixture) {
    let (acme, other) = (account("acme"), account("other"));
    let (here, there) = (path("/upload/u\u{308}"), path("/upload/there"));
    assert!(store.one.reserve_key("archive", "k", &acme, &here).await.unwrap());
    assert!(store.two.reserve_key("archive", "k", &acme, &path("/upload/\u{fc}")).await.unwrap());
    assert!(!store.two.reserve_key("archive", "k", &acme, &there).await.unwrap());
    assert!(!store.two.reserve_key("archive", "k", &other, &here).await.unwrap());
    assert!(store.two.reserve_key("archive", "K", &acme, &there).await.unwrap());
    assert!(store.two.reserve_key("backup", "k", &acme, &there).await.unwrap());
}
