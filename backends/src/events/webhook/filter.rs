//! Which events somebody wants.

use dropgate_schemas::{account::PartnerName, event::Event};

/// Types and partners; what is empty lets everything through.
pub(super) struct Filter {
    types: Vec<String>,
    partners: Vec<PartnerName>,
}

impl Filter {
    pub(super) fn new(types: &[String], partners: &[PartnerName]) -> Self {
        Self { types: types.to_vec(), partners: partners.to_vec() }
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let full = event.body.type_name();
        // As people say it: `upload.received` for `dropgate.upload.received.v1`.
        let short = full
            .strip_prefix("dropgate.")
            .and_then(|name| name.rsplit_once('.'))
            .map_or(full, |(name, _)| name);
        let by_type = self.types.is_empty() || self.types.iter().any(|p| fits(p, full) || fits(p, short));
        by_type && (self.partners.is_empty() || self.partners.contains(&event.partner))
    }
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("*", "upload.received", true),
            ("upload.*", "upload.received", true),
            ("upload.*", "delivery.succeeded", false),
            ("*.v1", "dropgate.upload.received.v1", true),
            ("*.v2", "dropgate.upload.received.v1", false),
            ("d*.*.received*", "dropgate.upload.received.v1", true),
            ("upload.received", "upload.received", true),
            ("upload.received", "upload.receive", false),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn types_and_partners_are_both_to_fit() {
        let event = crate::events::conformance::event(1).event;
        let wants = |types: &[&str], partners: &[&str]| {
            let types: Vec<String> = types.iter().map(|t| (*t).to_owned()).collect();
            let partners: Vec<PartnerName> = partners.iter().map(|p| p.parse().unwrap()).collect();
            Filter::new(&types, &partners).wants(&event)
        };
        assert!(wants(&[], &[]));
        assert!(wants(&["upload.aborted"], &["acme"]));
        assert!(wants(&["dropgate.upload.aborted.v1"], &[]));
        assert!(wants(&["delivery.*", "upload.*"], &["other", "acme"]));
        assert!(!wants(&["delivery.*"], &[]));
        assert!(!wants(&[], &["other"]));
    }
}
