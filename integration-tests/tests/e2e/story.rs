//! The exact ordered events and audit entries of whole stories, as snapshots. Ids, times and addresses are replaced by
//! what they are; which id is which stays visible.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Setup, payload},
    raw::{Overwrite, Request},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Replaces what differs from run to run: each id by its kind and the number in which it was first seen.
#[derive(Default)]
struct Redactor {
    ids: BTreeMap<String, String>,
}

impl Redactor {
    fn value(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                // The position is the order itself.
                let kept = fields.iter().filter(|(k, _)| *k != "position");
                kept.map(|(k, v)| (k.clone(), self.value(k, v))).collect()
            }
            Value::Array(items) => items.iter().map(|v| self.value(key, v)).collect(),
            Value::String(text) => Value::String(self.text(key, text)),
            other => other.clone(),
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        match key {
            "at" | "time" | "received_at" | "delivered_at" | "next_attempt_at" => return "[time]".to_owned(),
            "source" if text != "dropgate" => return "[address]".to_owned(),
            "node" => return "[node]".to_owned(),
            "software" | "client" => return "[software]".to_owned(),
            "reference" => return "[reference]".to_owned(),
            "sequence" => return "[sequence]".to_owned(),
            "seconds" | "received_bytes" | "sent_bytes" => return "[number]".to_owned(),
            "uri" => return "[uri]".to_owned(),
            "lasted_ms" | "duration_ms" => return "[duration]".to_owned(),
            _ => {}
        }
        if text.starts_with("SHA256:") {
            return "[fingerprint]".to_owned();
        }
        let mut out = String::new();
        for word in text.split_inclusive([' ', '=', ',', '/', '"']) {
            let bare = word.trim_end_matches([' ', '=', ',', '/', '"']);
            if is_uuid(bare) {
                let next = self.ids.len() + 1;
                let name = self.ids.entry(bare.to_owned()).or_insert_with(|| format!("[id {next}]"));
                out.push_str(name);
                out.push_str(word.strip_prefix(bare).unwrap_or_default());
            } else {
                out.push_str(word);
            }
        }
        out
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text
            .char_indices()
            .all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// Events and audit entries of each version of a path, in their order, redacted with one numbering.
async fn told(gate: &Gate, path: &str) -> Result<Value> {
    let mut redactor = Redactor::default();
    let mut versions = gate.uploads().await?;
    versions.retain(|u| u.path == path);
    versions.sort_by_key(|u| u.version);
    ensure!(!versions.is_empty(), "no upload {path}");
    let (events, audit) = (gate.events()?, gate.audit(&[]).await?);
    let mut told = Vec::new();
    for version in versions {
        let id = version.upload_id.as_str();
        let events: Vec<Value> =
            events.iter().filter(|e| e["uploadid"] == id).map(|e| redactor.value("", e)).collect();
        let audit: Vec<Value> =
            audit.iter().filter(|e| e["upload"] == id).map(|e| redactor.value("", e)).collect();
        told.push(serde_json::json!({ "version": version.version, "audit": audit, "events": events }));
    }
    Ok(Value::Array(told))
}

/// A gate whose worker is away until [`deliver`], so that what the client does is over before delivery begins: otherwise
/// the two race, and both orders would be right.
async fn gate_without_worker() -> Result<Gate> {
    let mut gate = Gate::start(Setup::default().three_roles()).await?;
    gate.kill_role("worker")?;
    Ok(gate)
}

/// Lets a worker do what there is to do, until so many versions of the path are announced as delivered.
async fn deliver(gate: &mut Gate, path: &str, versions: usize) -> Result<()> {
    gate.launch_role("worker").await?;
    gate.event_about("upload.delivered", path, versions).await?;
    gate.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_put_from_open_to_delivered() -> Result<()> {
    let mut gate = gate_without_worker().await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/story.csv", b"id;name\n1;one\n2;two\n").await?;
    deliver(&mut gate, "/upload/story.csv", 1).await?;
    insta::assert_json_snapshot!(told(&gate, "/upload/story.csv").await?);
    gate.finish().await
}

#[tokio::test]
async fn an_overwrite_by_winscp() -> Result<()> {
    let mut gate = gate_without_worker().await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.winscp_large("/upload/story.bin", &payload::bytes(1, 120_000), Overwrite::No).await?;
    deliver(&mut gate, "/upload/story.bin", 1).await?;
    gate.kill_role("worker")?;
    raw.winscp_large("/upload/story.bin", &payload::bytes(2, 130_000), Overwrite::RemoveThenRename).await?;
    deliver(&mut gate, "/upload/story.bin", 2).await?;
    gate.event_about("upload.superseded", "/upload/story.bin", 1).await?;
    insta::assert_json_snapshot!(told(&gate, "/upload/story.bin").await?);
    gate.finish().await
}

#[tokio::test]
async fn an_overwrite_of_what_was_never_delivered() -> Result<()> {
    let mut gate = gate_without_worker().await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/story.txt", b"first").await?;
    raw.put("/upload/story.txt", b"second").await?;
    deliver(&mut gate, "/upload/story.txt", 1).await?;
    gate.event_about("upload.superseded", "/upload/story.txt", 1).await?;
    insta::assert_json_snapshot!(told(&gate, "/upload/story.txt").await?);
    gate.finish().await
}

#[tokio::test]
async fn a_session_from_connect_to_disconnect() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    raw.names("/").await?;
    raw.call(Request::Mkdir { path: b"/upload/d" }).await?.ok()?;
    raw.call(Request::Mkdir { path: b"/sent/d" }).await?.status()?;
    raw.call(Request::Rmdir { path: b"/upload/d" }).await?.ok()?;
    drop(raw);
    drop(connection);
    let entries = dropgate_integration_tests::harness::until::until(
        std::time::Duration::from_secs(20),
        "the disconnect",
        || async {
            let mut entries = gate.audit(&[]).await?;
            // Entries of the operator who made the account are another story.
            entries.retain(|e| !e["session"].is_null());
            Ok(entries.iter().any(|e| e["action"] == "session.disconnect").then_some(entries))
        },
    )
    .await?;
    let mut redactor = Redactor::default();
    let mut redacted = entries;
    // What changes nothing is written in batches: where it stands among the others is not fixed.
    redacted.sort_by_key(|e| {
        let order =
            ["session.login", "directory.make", "directory.remove", "request.refuse", "session.reads"];
        order.iter().position(|action| e["action"] == *action).unwrap_or(order.len())
    });
    let redacted: Vec<Value> = redacted.iter().map(|e| redactor.value("", e)).collect();
    insta::assert_json_snapshot!(redacted);
    gate.finish().await
}
