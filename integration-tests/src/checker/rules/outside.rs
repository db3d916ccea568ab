//! What destinations and partners see is what the records say.

use super::{Checker, Rule, same_bytes};
use crate::{checker::evidence::Version, harness::records::text};
use std::collections::BTreeMap;

impl<'a> Checker<'a> {
    pub(super) fn destination(&mut self) {
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

    pub(super) fn told(&mut self) {
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

    pub(super) fn listings(&mut self) {
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
