//! Each promise as a comparison of the ledger with the evidence.

mod acceptance;
mod outside;
mod trail;

use super::{
    evidence::{Evidence, Stored, Version},
    ledger::Line,
};
use std::fmt;

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
}

fn same_bytes(stored: &Stored, version: &Version) -> bool {
    Some(stored.size) == version.size() && stored.sha256 == version.text("sha256")
}
