//! The servers of a cluster, seen through clients from other makers: a Python program with their libraries.

use crate::{
    checker::{Evidence, Stored, Version},
    harness::{sshd::HostKeys, until::within},
};
use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::process::Command;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to read all that the servers hold: thousands of files in the longest test.
const ALL: Duration = Duration::from_secs(600);

/// What a cluster has on the servers under one name.
pub(super) struct Foreign {
    name: String,
}

/// How much is still under way.
#[derive(Debug, Deserialize)]
struct Rest {
    in_flight: u64,
    unplaced: u64,
    outbox: u64,
    unpublished: u64,
}

#[derive(Deserialize)]
struct Seen {
    versions: Vec<SeenVersion>,
    delivered: BTreeMap<String, SeenBytes>,
    blobs: BTreeMap<String, SeenBytes>,
    published: Vec<Value>,
    logged: Vec<(u64, Value)>,
    outbox: Vec<String>,
    audit: Vec<String>,
}

#[derive(Deserialize)]
struct SeenVersion {
    doc: Value,
    inline: Option<SeenBytes>,
}

#[derive(Deserialize)]
struct SeenBytes {
    size: u64,
    sha256: String,
}

impl From<SeenBytes> for Stored {
    fn from(seen: SeenBytes) -> Self {
        Self { size: seen.size, sha256: seen.sha256 }
    }
}

impl Foreign {
    /// Makes what a cluster needs, under a name of its own.
    pub(super) async fn prepare(keys: &HostKeys) -> Result<Self> {
        let foreign = Self { name: format!("dropgate-{:08x}", rand::rng().random::<u32>()) };
        let (ed25519, rsa) = (keys.ed25519.display().to_string(), keys.rsa.display().to_string());
        let _: Value = foreign.run("prepare", &[&ed25519, &rsa]).await?;
        Ok(foreign)
    }

    /// Name of the database, virtual host, container, bucket and path of secrets.
    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A SAS of the container that may be used with and without TLS.
    pub(super) async fn sas(&self) -> Result<String> {
        self.run("sas", &[]).await
    }

    pub(super) async fn wipe_broker(&self) -> Result<()> {
        self.run::<Value>("wipe", &[]).await.map(|_| ())
    }

    pub(super) async fn remove(&self) -> Result<()> {
        self.run::<Value>("remove", &[]).await.map(|_| ())
    }

    /// Waits until every accepted upload is in a final state, every event is published (unless the broker was wiped) and
    /// nothing is due.
    pub(super) async fn at_rest(&self, limit: Duration, wiped: bool) -> Result<()> {
        let (wiped, seconds) = (wiped.to_string(), limit.as_secs().to_string());
        let rest: Rest = self.run_within(limit + LIMIT, "rest", &[&wiped, &seconds]).await?;
        ensure!(
            rest.in_flight + rest.unplaced + rest.outbox + rest.unpublished == 0,
            "waited {limit:?} for the cluster to come to rest: {rest:?}"
        );
        Ok(())
    }

    /// Everything that the servers hold.
    pub(super) async fn evidence(&self) -> Result<Evidence> {
        let seen: Seen = self.run_within(ALL, "evidence", &[]).await?;
        let bytes =
            |seen: BTreeMap<String, SeenBytes>| seen.into_iter().map(|(k, v)| (k, v.into())).collect();
        Ok(Evidence {
            versions: seen
                .versions
                .into_iter()
                .map(|v| {
                    let id = v.doc.get("upload_id").and_then(Value::as_str).unwrap_or_default().to_owned();
                    (id, Version { doc: v.doc, inline: v.inline.map(Stored::from) })
                })
                .collect(),
            delivered: bytes(seen.delivered),
            blobs: bytes(seen.blobs),
            published: seen.published,
            logged: seen.logged,
            outbox: seen.outbox,
            audit: seen.audit.into_iter().map(String::into_bytes).collect(),
            ..Evidence::default()
        })
    }

    async fn run<T: DeserializeOwned>(&self, command: &str, more: &[&str]) -> Result<T> {
        self.run_within(LIMIT, command, more).await
    }

    async fn run_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        command: &str,
        more: &[&str],
    ) -> Result<T> {
        let python = std::env::var("DROPGATE_TEST_PYTHON")
            .context("DROPGATE_TEST_PYTHON is not set: run this under `scripts/services run --`")?;
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/cluster.py");
        let mut child = Command::new(python);
        child.arg(program).arg(command).arg(&self.name).args(more);
        child.stdin(Stdio::null()).kill_on_drop(true);
        let output = within(limit, command, child.output()).await?.context("running Python")?;
        ensure!(
            output.status.success(),
            "foreign/cluster.py {command} {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("what foreign/cluster.py {command} printed"))
    }
}
