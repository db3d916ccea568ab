//! Events and audit entries tell the whole story, once, in order.

use super::{Checker, Finding, Rule, is_accepted, was_accepted};
use crate::harness::records::text;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Checker<'a> {
    pub(super) fn events_of_versions(&mut self) {
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

    pub(super) fn event_log(&mut self) {
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

    pub(super) fn audit(&mut self) {
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
