use super::*;
use crate::{
    blob, credentials, events,
    instance::{Identity, Liveness, Role, heartbeat},
    secrets,
    state::conformance::samples,
};
use std::{fs, time::Duration};
use tokio_util::sync::CancellationToken;

async fn open(dir: &Path) -> Result<Backends, OpenError> {
    Backends::open(&BackendsConfig::default(), dir).await
}

/// The ports as the roles get them: embedded adapters with their deadlines.
#[tokio::test]
async fn the_embedded_defaults_conform() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open(dir.path()).await.unwrap(), open(dir.path()).await.unwrap());
    blob::conformance::suite(one.blob.as_ref()).await;
    credentials::conformance::suite(one.credentials.as_ref(), other.credentials.as_ref()).await;
    let heard = async || {
        let text = fs::read_to_string(dir.path().join("events.ndjson")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    events::conformance::suite(one.events.as_ref(), other.events.as_ref(), heard).await;
    fs::write(dir.path().join("canary"), "canary-2q7f").unwrap();
    secrets::conformance::suite(one.secrets.as_ref(), "file:canary", "canary-2q7f", "file:missing").await;
}

#[tokio::test]
async fn what_was_kept_is_there_after_closing_and_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/yet/there");
    let backends = open(&data).await.unwrap();
    let upload = samples::upload("demo", "/upload/a", 1);
    backends.state.apply(samples::created(&upload)).await.unwrap();
    backends.close().await;
    backends.close().await;
    drop(backends);
    let backends = open(&data).await.unwrap();
    assert!(backends.state.upload(upload.upload_id).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_wrong_is_named_with_file_key_and_remedy_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = open(&file.join("data")).await.unwrap_err().to_string();
    assert!(error.contains("file/data (--data-dir)") && error.contains("another place"), "{error}");
    let error = open(&file).await.unwrap_err().to_string();
    assert!(error.contains("(--data-dir)"), "{error}");

    for (name, content, key) in [
        (
            "dropgate.db",
            &b"this is no database, whatever its name says, and quite long enough to be one"[..],
            "[backends.state] path",
        ),
        ("credentials.toml", b"[accounts", "[backends.credentials] path"),
    ] {
        let data = dir.path().join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join(name), content).unwrap();
        let error = open(&data).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(&format!("{name} ({key}) is corrupt: ")) && said.contains("; "), "{said}");
        assert_eq!(fs::read(data.join(name)).unwrap(), content);
    }
    for (name, key) in [
        ("dropgate.db", "[backends.state] path"),
        ("credentials.toml", "[backends.credentials] path"),
        ("events.ndjson", "[backends.events] path"),
    ] {
        let data = dir.path().join(format!("{name}-is-a-directory"));
        fs::create_dir_all(data.join(name)).unwrap();
        let error = open(&data).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(key) && error.contains("; "), "{error}");
    }
}

#[tokio::test]
async fn an_instance_is_known_from_its_first_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await.unwrap();
    let identity = Arc::new(Identity::claim(dir.path(), Role::Worker).unwrap());
    let (peers, stop) = (Arc::new(Liveness::new()), CancellationToken::new());
    let beating =
        tokio::spawn(heartbeat(backends.state.clone(), identity.clone(), peers.clone(), stop.clone()));
    let known = async {
        loop {
            let instances = backends.state.instances().await.unwrap();
            if let [instance] = instances.as_slice() {
                return instance.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let instance = tokio::time::timeout(Duration::from_secs(20), known).await.unwrap();
    assert_eq!((instance.id, instance.role.as_str()), (identity.id(), "worker"));
    assert_eq!(instance.node, identity.node());
    assert!(!peers.is_dead(identity.id(), Duration::from_secs(15)));
    stop.cancel();
    beating.await.unwrap();
}

#[cfg(feature = "webhooks")]
#[tokio::test]
async fn secrets_of_webhooks_are_read_by_workers_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BackendsConfig::default();
    let webhook = serde_json::json!({
        "name": "crm", "url": "http://127.0.0.1:9/", "secrets": ["file:only-workers-have-it"],
    });
    let events = serde_json::json!({ "kind": "ndjson", "webhook": [webhook] });
    config.events = serde_json::from_value(events).unwrap();
    for roles in [&[][..], &[Role::Gateway], &[Role::Ops]] {
        let backends = Backends::open_for(roles, &config, dir.path()).await.unwrap();
        assert!(backends.subscribers.is_empty(), "{roles:?}");
        backends.close().await;
    }
    let error = Backends::open_for(&[Role::Worker], &config, dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("only-workers-have-it"), "{error}");
    fs::write(dir.path().join("only-workers-have-it"), "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
        .unwrap();
    let backends = Backends::open_for(&[Role::Gateway, Role::Worker], &config, dir.path()).await.unwrap();
    assert_eq!(backends.subscribers.len(), 1);
}
