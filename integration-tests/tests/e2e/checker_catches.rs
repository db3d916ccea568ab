//! The checker is only worth something if it finds what is wrong: a good state is spoiled in every way that its rules
//! name, and each must be found.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    checker::{Evidence, Ledger, Line, Rule, check, verify},
    harness::{Gate, Setup, payload},
    raw::Overwrite,
};
use serde_json::{Value, json};

type Spoil = fn(&mut Vec<Line>, &mut Evidence);

/// The name of the file whose only version lies in the blob directory.
const LARGE: &str = "/upload/large";

fn id_of(evidence: &Evidence, path: &str, version: u64) -> String {
    evidence
        .versions
        .iter()
        .find(|(_, v)| v.text("path") == path && v.number() == version)
        .map(|(id, _)| id.clone())
        .unwrap_or_default()
}

fn set(evidence: &mut Evidence, path: &str, version: u64, field: &str, value: Value) {
    let id = id_of(evidence, path, version);
    evidence.versions.get_mut(&id).expect("the version is there").doc[field] = value;
}

fn drop_events(evidence: &mut Evidence, kind: &str) {
    let kind = format!("dropgate.{kind}.v1");
    evidence.published.retain(|e| e["type"] != kind.as_str());
    evidence.logged.retain(|(_, e)| e["type"] != kind.as_str());
}

const SPOILS: [(&str, Rule, Spoil); 25] = [
    ("an acknowledged upload without a version", Rule::Acknowledged, |lines, _| {
        let mut lost = lines[0].clone();
        lost.sha256 = "00".repeat(32);
        lines.push(lost);
    }),
    ("an acknowledged upload whose record is gone", Rule::Acknowledged, |_, e| {
        let id = id_of(e, LARGE, 1);
        e.versions.remove(&id);
    }),
    ("two versions of one upload", Rule::Acknowledged, |_, e| {
        let mut twin = e.versions[&id_of(e, LARGE, 1)].clone();
        twin.doc["version"] = json!(2);
        e.versions.insert("another id".to_owned(), twin);
    }),
    ("a version that nobody sent", Rule::Unknown, |lines, _| lines.retain(|l| l.path != LARGE)),
    ("an event about bytes that nobody sent", Rule::Unknown, |_, e| {
        let event = e.published.iter_mut().find(|e| e["type"] == "dropgate.upload.received.v1");
        event.expect("an event")["data"]["sha256"] = json!("11".repeat(32));
    }),
    ("an older version still current", Rule::Order, |_, e| {
        set(e, "/upload/twice", 1, "state", json!("processed"))
    }),
    ("a last version superseded by nothing", Rule::Order, |_, e| {
        set(e, LARGE, 1, "state", json!("superseded"))
    }),
    ("two versions with one number", Rule::Order, |_, e| set(e, "/upload/twice", 2, "version", json!(1))),
    ("versions in another order than the client's", Rule::Order, |_, e| {
        set(e, "/upload/twice", 1, "state", json!("processed"));
        set(e, "/upload/twice", 2, "state", json!("superseded"));
        set(e, "/upload/twice", 1, "version", json!(3));
    }),
    ("something in flight", Rule::InFlight, |_, e| set(e, LARGE, 1, "state", json!("delivering"))),
    ("something left in the outbox", Rule::InFlight, |_, e| e.outbox.push("event".to_owned())),
    ("a blob gone", Rule::Bytes, |_, e| e.blobs.clear()),
    ("a blob cut short", Rule::Bytes, |_, e| e.blobs.values_mut().for_each(|b| b.size -= 1)),
    ("inline bytes changed", Rule::Bytes, |_, e| {
        let id = id_of(e, "/upload/small", 1);
        e.versions.get_mut(&id).expect("there").inline.as_mut().expect("inline").sha256 = "22".repeat(32);
    }),
    ("a delivered file gone", Rule::Destination, |_, e| {
        e.delivered.pop_first();
    }),
    ("a delivered file with a flipped bit", Rule::Destination, |_, e| {
        e.delivered.values_mut().next().expect("one").sha256 = "33".repeat(32);
    }),
    ("a file at the destination from nowhere", Rule::Destination, |_, e| {
        let stray = e.delivered.values().next().expect("one").clone();
        e.delivered.insert("acme-corp/acme/stray.part".to_owned(), stray);
    }),
    ("a received event missing", Rule::Events, |_, e| drop_events(e, "upload.received")),
    ("a delivered event missing", Rule::Events, |_, e| drop_events(e, "upload.delivered")),
    ("an event twice with another id", Rule::Events, |_, e| {
        let mut twice = e.published[0].clone();
        twice["id"] = json!("another");
        e.published.push(twice);
    }),
    ("a gap in the sequence", Rule::Events, |_, e| {
        let last = e.logged.last_mut().expect("one");
        last.1["sequence"] = json!("00000000000000000999");
    }),
    ("events published in another order", Rule::Events, |_, e| e.published.swap(0, 1)),
    ("no audit entry of an acceptance", Rule::Audit, |_, e| {
        e.audit.retain(|bytes| !String::from_utf8_lossy(bytes).contains("upload.accept"));
    }),
    ("an audit entry rewritten", Rule::Audit, |_, e| {
        let text = String::from_utf8_lossy(&e.audit[0]).replace("\":", "\" :");
        e.audit[0] = text.into_bytes();
    }),
    ("a file that its owner does not see", Rule::Listing, |_, e| {
        e.listings.get_mut("acme").expect("acme").get_mut("/sent").expect("/sent").clear();
    }),
];

#[tokio::test]
async fn every_rule_finds_its_violation() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::create(&gate.path("ledger.ndjson"))?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let mut send = Vec::new();
    for (path, seed, length) in [
        ("/upload/small", 1, 100),
        (LARGE, 2, 300_000),
        ("/upload/twice", 3, 5000),
        ("/upload/twice", 4, 6000),
    ] {
        send.push((path, payload::bytes(seed, length)));
    }
    for (number, (path, data)) in send.iter().enumerate() {
        let line = ledger.begin("acme", path, data)?;
        if number == 3 {
            raw.winscp_large(path, data, Overwrite::RemoveThenRename).await?;
        } else {
            raw.put(path, data).await?;
        }
        ledger.acknowledge(line)?;
        gate.settled().await?;
    }
    // One that was begun and never acknowledged, as after a kill.
    ledger.begin("acme", "/upload/never", b"never sent")?;

    let evidence = verify(&gate, &ledger).await?;
    let lines = ledger.lines();
    ensure!(lines.len() == 5 && evidence.blobs.len() == 1 && evidence.delivered.len() == 3, "{evidence:?}");
    for (what, rule, spoil) in SPOILS {
        let (mut lines, mut evidence) = (lines.clone(), evidence.clone());
        spoil(&mut lines, &mut evidence);
        let findings = check(&lines, &evidence);
        ensure!(findings.iter().any(|f| f.rule == rule), "{what} was not found: {findings:?}");
    }

    // And on the files themselves.
    let delivered = gate.delivered("acme").join("large");
    let mut bytes = std::fs::read(&delivered)?;
    bytes[1234] ^= 1;
    std::fs::write(&delivered, bytes)?;
    let found = verify(&gate, &ledger).await.expect_err("a flipped bit at the destination").to_string();
    ensure!(found.contains("Destination"), "{found}");
    drop(raw);
    gate.finish().await
}
