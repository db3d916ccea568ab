//! Each promise as a comparison of the ledger with the evidence.

use super::{
    evidence::{Evidence, Stored, Version},
    ledger::Line,
};
use crate::harness::records::text;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Which promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Acknowledged, but not exactly one accepted version (or more versions than uploads of the same bytes).
    Acknowledged,
    /// Accepted, but never sent like this by any client.
    Unknown,
    /// Two accepted versions of one path where the older is not superseded, or numbers out of order.
    Order,
    /// An accepted version that is not in a final state at rest.
    InFlight,
    /// Accepted, but its bytes are missing or other bytes.
    Bytes,
    /// The destination lacks an object, has another one, or one too many.
    Destination,
    /// Events missing, too many, in disorder, or not published as logged.
    Events,
    /// An audit entry missing, not canonical, or not fitting the record.
    Audit,
    /// Commands tell something else than the database.
    Told,
    /// Partners see something else than the records say.
    Listing,
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which promise.
    pub rule: Rule,
    /// What, with names.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Checks everything; returns what is wrong.
#[must_use]
pub fn check(lines: &[Line], evidence: &Evidence) -> Vec<Finding> {
    let mut checker = Checker { lines, evidence, findings: Vec::new() };
    checker.acknowledged();
    checker.unknown();
    checker.order();
    checker.in_flight();
    checker.bytes();
    checker.destination();
    checker.events_of_versions();
    checker.event_log();
    checker.audit();
    checker.told();
    checker.listings();
    checker.findings
}

/// Accepted under its final name.
fn is_accepted(state: &str) -> bool {
    matches!(state, "committed" | "delivering" | "quarantined" | "processed" | "failed" | "superseded")
}

/// A held upload that was never renamed fails without ever having been accepted.
fn was_accepted(version: &Version) -> bool {
    is_accepted(version.text("state")) && version.doc.get("received_at").is_some()
}

/// What makes two uploads the same: account, path, size, digest.
type Key<'a> = (&'a str, &'a str, u64, &'a str);

struct Checker<'a> {
    lines: &'a [Line],
    evidence: &'a Evidence,
    findings: Vec<Finding>,
}

impl<'a> Checker<'a> {
    fn find(&mut self, rule: Rule, what: String) {
        self.findings.push(Finding { rule, what });
    }

    fn accepted(&self) -> impl Iterator<Item = (&'a String, &'a Version)> + use<'a> {
        self.evidence.versions.iter().filter(|(_, v)| was_accepted(v))
    }

    fn key(version: &'a Version) -> Key<'a> {
        let size = version.size().unwrap_or(u64::MAX);
        (version.text("account"), version.text("path"), size, version.text("sha256"))
    }

    fn acknowledged(&mut self) {
        let mut sent: BTreeMap<Key<'_>, (usize, usize)> = BTreeMap::new();
        for line in self.lines {
            let counts = sent.entry((&line.account, &line.path, line.size, &line.sha256)).or_default();
            counts.0 += 1;
            counts.1 += usize::from(line.acknowledged);
        }
        let mut kept: BTreeMap<Key<'_>, usize> = BTreeMap::new();
        for (_, version) in self.accepted() {
            *kept.entry(Self::key(version)).or_default() += 1;
        }
        for (key, (lines, acknowledged)) in sent {
            let versions = kept.get(&key).copied().unwrap_or(0);
            if acknowledged > 0 && versions == 0 {
                self.find(Rule::Acknowledged, format!("acknowledged and lost: {key:?}"));
            }
            if versions > lines {
                self.find(Rule::Acknowledged, format!("{versions} versions from {lines} uploads: {key:?}"));
            }
        }
    }

    fn unknown(&mut self) {
        let sent: BTreeSet<Key<'_>> = self
            .lines
            .iter()
            .map(|l| (l.account.as_str(), l.path.as_str(), l.size, l.sha256.as_str()))
            .collect();
        let unknown: Vec<_> = self.accepted().filter(|(_, v)| !sent.contains(&Self::key(v))).collect();
        for (id, version) in unknown {
            self.find(
                Rule::Unknown,
                format!("{id} {:?} was accepted, but no client sent that", Self::key(version)),
            );
        }
        for event in &self.evidence.published {
            if text(event, "type") != "dropgate.upload.received.v1" {
                continue;
            }
            let data = event.get("data").unwrap_or(&Value::Null);
            let size = data.get("size").and_then(Value::as_u64).unwrap_or(u64::MAX);
            // A rename after acceptance keeps the event of the first name.
            let known = self.lines.iter().any(|l| {
                l.account == text(event, "account") && l.size == size && l.sha256 == text(data, "sha256")
            });
            if !known {
                self.find(
                    Rule::Unknown,
                    format!("event {} tells of bytes that no client sent", text(event, "id")),
                );
            }
        }
    }

    fn order(&mut self) {
        let mut by_path: BTreeMap<(&str, &str), Vec<&Version>> = BTreeMap::new();
        for (_, version) in self.accepted() {
            by_path.entry((version.text("account"), version.text("path"))).or_default().push(version);
        }
        for ((account, path), mut versions) in by_path {
            versions.sort_by_key(|v| v.number());
            for pair in versions.windows(2) {
                let [older, newer] = pair else { continue };
                if older.number() == newer.number() {
                    self.find(Rule::Order, format!("two versions {} of {account} {path}", newer.number()));
                }
                if older.text("state") != "superseded" {
                    let (n, state) = (older.number(), older.text("state"));
                    self.find(
                        Rule::Order,
                        format!("version {n} of {account} {path} is {state}, a later one exists"),
                    );
                }
            }
            if versions.last().is_some_and(|v| v.text("state") == "superseded") {
                self.find(
                    Rule::Order,
                    format!("the last version of {account} {path} is superseded by nothing"),
                );
            }
            self.order_of_lines(account, path, &versions);
        }
    }

    /// One client's acknowledged uploads to one path, one after the other, have rising version numbers.
    fn order_of_lines(&mut self, account: &str, path: &str, versions: &[&Version]) {
        let lines: Vec<_> =
            self.lines.iter().filter(|l| l.acknowledged && l.account == account && l.path == path).collect();
        let number_of = |line: &Line| {
            let same = |v: &&&Version| v.size() == Some(line.size) && v.text("sha256") == line.sha256;
            let mut found = versions.iter().filter(same).map(|v| v.number());
            // The same bytes twice: which is which can't be told.
            found.next().filter(|_| found.next().is_none())
        };
        let numbers: Vec<_> = lines.into_iter().filter_map(|l| number_of(l).map(|n| (l.number, n))).collect();
        for pair in numbers.windows(2) {
            if let [(first, earlier), (second, later)] = pair
                && earlier > later
            {
                let what =
                    format!("{account} {path}: line {first} became version {earlier}, line {second} {later}");
                self.find(Rule::Order, what);
            }
        }
    }

    fn in_flight(&mut self) {
        for (id, version) in &self.evidence.versions {
            let state = version.text("state");
            if matches!(state, "committed" | "delivering" | "closing") {
                self.find(Rule::InFlight, format!("{id} {} is {state} at rest", version.text("path")));
            }
        }
        if !self.evidence.outbox.is_empty() {
            self.find(Rule::InFlight, format!("the outbox still has {:?}", self.evidence.outbox));
        }
    }

    fn bytes(&mut self) {
        for (id, version) in self.accepted() {
            let blob = version.doc.get("blob").unwrap_or(&Value::Null);
            let found = match text(blob, "kind") {
                "inline" => version.inline.as_ref(),
                _ => {
                    let name = text(blob, "blob");
                    self.evidence
                        .blobs
                        .iter()
                        .find(|(file, _)| !name.is_empty() && file.contains(name))
                        .map(|(_, s)| s)
                }
            };
            match found {
                None => self.find(Rule::Bytes, format!("{id} {} has no bytes: {blob}", version.text("path"))),
                Some(stored) if !same_bytes(stored, version) => {
                    self.find(Rule::Bytes, format!("{id} {} is kept as {stored:?}", version.text("path")));
                }
                Some(_) => {}
            }
        }
    }

    fn destination(&mut self) {
        // The highest version that some delivery put there is what must lie there.
        let mut expected: BTreeMap<String, &Version> = BTreeMap::new();
        for version in self.evidence.versions.values() {
            for delivery in version.deliveries() {
                if text(delivery, "state") == "delivered" {
                    let key = text(delivery, "key").to_owned();
                    let entry = expected.entry(key).or_insert(version);
                    if entry.number() < version.number() {
                        *entry = version;
                    }
                }
            }
        }
        for (key, version) in &expected {
            match self.evidence.delivered.get(key) {
                None => {
                    self.find(Rule::Destination, format!("{key} is on record as delivered and is not there"))
                }
                Some(stored) if !same_bytes(stored, version) => {
                    let what = format!("{key} is {stored:?} and not version {}", version.number());
                    self.find(Rule::Destination, what);
                }
                Some(_) => {}
            }
        }
        for key in self.evidence.delivered.keys() {
            if !expected.contains_key(key) {
                self.find(Rule::Destination, format!("{key} is at the destination and on no record"));
            }
        }
        for (id, version) in self.accepted() {
            let delivered = version.deliveries().filter(|d| text(d, "state") == "delivered").count();
            if version.text("state") == "processed" && delivered == 0 {
                self.find(Rule::Destination, format!("{id} is processed without a delivery"));
            }
        }
    }

    fn events_of_versions(&mut self) {
        let mut by_upload: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for event in &self.evidence.published {
            if seen.insert(text(event, "id")) {
                by_upload.entry(text(event, "uploadid")).or_default().push(text(event, "type"));
            }
        }
        for (id, version) in &self.evidence.versions {
            let of = by_upload.remove(id.as_str()).unwrap_or_default();
            let count =
                |kind: &str| of.iter().filter(|t| **t == format!("dropgate.upload.{kind}.v1")).count();
            let accepted = was_accepted(version);
            let (path, state) = (version.text("path"), version.text("state"));
            let mut expect = |kind: &str, good: bool| {
                if !good {
                    let what = format!("{id} {path} is {state} and has {} upload.{kind} events", count(kind));
                    self.findings.push(Finding { rule: Rule::Events, what });
                }
            };
            expect("received", count("received") == usize::from(accepted));
            // Each redelivery starts a new generation, which ends in an event of its own.
            let generations = version.doc.get("generation").and_then(Value::as_u64).unwrap_or(0).max(1);
            let ends = (count("delivered") + count("failed")) as u64;
            match state {
                "processed" => expect("delivered", count("delivered") > 0 && ends <= generations),
                "failed" => expect("failed", count("failed") > 0 && ends <= generations),
                "superseded" => {
                    expect("superseded", count("superseded") == 1);
                    expect("delivered", ends <= generations);
                }
                _ => expect("delivered", ends == 0),
            }
        }
        for (id, kinds) in by_upload {
            self.find(Rule::Events, format!("{kinds:?} about {id}, which is on no record"));
        }
    }

    fn event_log(&mut self) {
        let mut sequences: BTreeMap<&str, u64> = BTreeMap::new();
        for (index, (position, event)) in self.evidence.logged.iter().enumerate() {
            if *position != index as u64 + 1 {
                self.find(Rule::Events, format!("position {position} where {} was due", index + 1));
            }
            let last = sequences.entry(text(event, "partner")).or_default();
            *last += 1;
            if text(event, "sequence").parse() != Ok(*last) {
                let what = format!(
                    "sequence {} of {} where {last} was due",
                    text(event, "sequence"),
                    text(event, "partner")
                );
                self.find(Rule::Events, what);
            }
        }
        // Published at least once each, in the order of the log, repeats being repeats to the letter.
        let mut first: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut order = Vec::new();
        for event in &self.evidence.published {
            match first.insert(text(event, "id"), event) {
                None => order.push(event),
                Some(before) if before != event => {
                    self.find(
                        Rule::Events,
                        format!("event {} was published in two versions", text(event, "id")),
                    );
                }
                Some(_) => {}
            }
        }
        let logged: Vec<&Value> = self.evidence.logged.iter().map(|(_, event)| event).collect();
        if order != logged {
            let at =
                order.iter().zip(&logged).position(|(a, b)| a != b).unwrap_or(order.len().min(logged.len()));
            let (published, logged) = (order.len(), logged.len());
            self.find(
                Rule::Events,
                format!("{published} published, {logged} logged, they differ from number {at} on"),
            );
        }
    }

    fn audit(&mut self) {
        let mut last_state: BTreeMap<String, String> = BTreeMap::new();
        let mut accepts: BTreeMap<String, usize> = BTreeMap::new();
        for bytes in &self.evidence.audit {
            let Ok(entry) = serde_json::from_slice::<Value>(bytes) else {
                self.find(Rule::Audit, format!("an entry is no JSON: {}", String::from_utf8_lossy(bytes)));
                continue;
            };
            if canonical(&entry).into_bytes() != *bytes {
                self.find(Rule::Audit, format!("entry {} is not in canonical form", text(&entry, "id")));
            }
            let upload = text(&entry, "upload").to_owned();
            if upload.is_empty() {
                continue;
            }
            if text(&entry, "action") == "upload.accept" && text(&entry, "result") == "ok" {
                *accepts.entry(upload.clone()).or_default() += 1;
            }
            let (before, after) = (text(&entry, "before"), text(&entry, "after"));
            let about_upload = text(&entry, "action").starts_with("upload.") || !before.is_empty();
            if about_upload && !after.is_empty() && is_upload_state(after) {
                if let Some(last) = last_state.get(&upload)
                    && !before.is_empty()
                    && is_upload_state(before)
                    && last != before
                {
                    let what =
                        format!("{upload}: {} from {before}, but it was {last}", text(&entry, "action"));
                    self.find(Rule::Audit, what);
                }
                last_state.insert(upload, after.to_owned());
            }
        }
        for (id, version) in &self.evidence.versions {
            let state = version.text("state");
            match last_state.get(id) {
                Some(last) if last == state => {}
                last => {
                    self.find(Rule::Audit, format!("{id} is {state}, the audit trail ends with {last:?}"))
                }
            }
            let accepted = accepts.get(id).copied().unwrap_or(0);
            if accepted != usize::from(was_accepted(version)) {
                self.find(Rule::Audit, format!("{id} is {state} and has {accepted} upload.accept entries"));
            }
        }
    }

    fn told(&mut self) {
        if self.evidence.told.is_empty() && self.evidence.listings.is_empty() {
            return;
        }
        let told: BTreeMap<_, _> = self.evidence.told.iter().map(|r| (r.upload_id.as_str(), r)).collect();
        if told.len() != self.evidence.versions.len() {
            let what = format!("{} uploads told, {} on record", told.len(), self.evidence.versions.len());
            self.find(Rule::Told, what);
        }
        for (id, version) in &self.evidence.versions {
            let same = told.get(id.as_str()).is_some_and(|row| {
                row.state == version.text("state")
                    && row.path == version.text("path")
                    && row.sha256.as_deref().unwrap_or_default() == version.text("sha256")
            });
            if !same {
                self.find(Rule::Told, format!("{id} is told as {:?}", told.get(id.as_str())));
            }
        }
    }

    fn listings(&mut self) {
        for (account, listing) in &self.evidence.listings {
            let mut expected: BTreeMap<&str, BTreeMap<String, Option<u64>>> =
                ["/upload", "/sent", "/failed"].into_iter().map(|area| (area, BTreeMap::new())).collect();
            for version in self.evidence.versions.values() {
                let area = match version.text("state") {
                    "processed" => "/sent",
                    "failed" => "/failed",
                    "aborted" | "superseded" => continue,
                    _ => "/upload",
                };
                if version.text("account") != account || version.doc.get("deleted_at").is_some() {
                    continue;
                }
                let below = version.text("path").strip_prefix("/upload").unwrap_or_default().to_owned();
                if let Some(names) = expected.get_mut(area) {
                    names.insert(below, version.size());
                }
            }
            for (area, names) in expected {
                let listed = listing.get(area).cloned().unwrap_or_default();
                for (name, size) in &names {
                    match listed.get(name) {
                        None => self.find(Rule::Listing, format!("{account} does not see {area}{name}")),
                        Some(shown) if size.is_some_and(|size| size != *shown) => {
                            self.find(
                                Rule::Listing,
                                format!("{account} sees {area}{name} with {shown} bytes"),
                            );
                        }
                        Some(_) => {}
                    }
                }
                for name in listed.keys().filter(|name| !names.contains_key(*name)) {
                    self.find(
                        Rule::Listing,
                        format!("{account} sees {area}{name}, which is not there by the records"),
                    );
                }
            }
        }
    }
}

fn same_bytes(stored: &Stored, version: &Version) -> bool {
    Some(stored.size) == version.size() && stored.sha256 == version.text("sha256")
}

fn is_upload_state(name: &str) -> bool {
    is_accepted(name) || matches!(name, "receiving" | "closing" | "partial" | "held" | "aborted")
}

/// RFC 8785 for what entries hold: keys of ASCII, whole numbers, text.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let inner: Vec<_> = sorted
                .into_iter()
                .map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical(v)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
