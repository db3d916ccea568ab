//! What was promised is kept, nothing else was taken, and its bytes are all there.

use super::{Checker, Key, Rule, same_bytes};
use crate::{
    checker::{evidence::Version, ledger::Line},
    harness::records::text,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Checker<'a> {
    pub(super) fn acknowledged(&mut self) {
        let mut sent: BTreeMap<Key<'_>, (usize, usize)> = BTreeMap::new();
        for line in self.lines {
            let counts = sent.entry((&line.account, &line.path, line.size, &line.sha256)).or_default();
            counts.0 += 1;
            counts.1 += usize::from(line.is_acknowledged());
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

    pub(super) fn unknown(&mut self) {
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

    pub(super) fn order(&mut self) {
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

    /// An upload that began after another of the same path was acknowledged is a later version.
    fn order_of_lines(&mut self, account: &str, path: &str, versions: &[&Version]) {
        let number_of = |line: &Line| {
            let same = |v: &&&Version| v.size() == Some(line.size) && v.text("sha256") == line.sha256;
            let mut found = versions.iter().filter(same).map(|v| v.number());
            // The same bytes twice: which is which can't be told.
            found.next().filter(|_| found.next().is_none())
        };
        let lines: Vec<(&Line, u64)> = self
            .lines
            .iter()
            .filter(|l| l.account == account && l.path == path)
            .filter_map(|l| Some((l, number_of(l)?)))
            .collect();
        for (first, earlier) in &lines {
            for (second, later) in &lines {
                if first.acknowledged.is_some_and(|answered| answered < second.begun) && earlier >= later {
                    let (a, b) = (first.number, second.number);
                    let what = format!(
                        "{account} {path}: line {a} became version {earlier}, line {b}, begun later, {later}"
                    );
                    self.find(Rule::Order, what);
                }
            }
        }
    }

    pub(super) fn in_flight(&mut self) {
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

    pub(super) fn bytes(&mut self) {
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
}
