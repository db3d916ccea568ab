//! What kind of file this is, from its first and last 4 KiB and its size.
//!
//! Two families are told apart first, because each has its own mistakes. Bytes with control characters in them are
//! binary: `infer` knows their magic numbers. Bytes without are text, where a short magic number means nothing (a price
//! list that begins with `BMW` is no bitmap), so the rules for business messages decide, then XML, JSON, the few
//! magic numbers that are safe in text, CSV and plain text. Where they leave it at "text", "a script", "a ZIP archive" and the
//! like, Magika's learned model is asked for more. A file that nothing recognises is `application/octet-stream`: a type is
//! evidence for the receiver, never a reason to refuse an upload.
//!
//! The file name is not looked at. A partner who calls a spreadsheet `orders.edi` is told so by the label.

mod archive;
mod csv;
mod detector;
mod edges;
mod edi;
mod hl7;
mod json;
#[cfg(feature = "magika")]
mod learned;
mod noise;
mod swift;
mod text;
mod xml;

#[cfg(test)]
mod tests;

pub use detector::{ContentTypeConfig, Detector};
use dropgate_schemas::content::ContentType;
pub use edges::{EDGE_BYTES, Edges};

/// Names the content whose first bytes are `head` and whose whole length is `size`, as far as rules can.
///
/// Only the first [`EDGE_BYTES`] of `head` are used; when `size` is larger they may end anywhere, also inside a
/// character. The time taken is linear in that length.
#[must_use]
pub fn by_rules(head: &[u8], size: u64) -> ContentType {
    let head = head.get(..EDGE_BYTES).unwrap_or(head);
    if size == 0 {
        return verdict("application/x-empty", "empty", "empty");
    }
    let sample = Sample { bytes: head, cut: size > head.len() as u64 };
    if let Some(decoded) = text::decode_utf16(sample.bytes) {
        let sample = Sample { bytes: decoded.as_bytes(), cut: sample.cut };
        return from_text(sample).unwrap_or_else(|| verdict("text/plain", "txt", "rule:text-utf16"));
    }
    match text::classify(sample) {
        text::Class::Utf8(sample) => {
            from_text(sample).unwrap_or_else(|| verdict("text/plain", "txt", "rule:text-utf8"))
        }
        text::Class::EightBit(sample, printable) => from_text(sample)
            .unwrap_or_else(|| ContentType { score_permille: Some(printable), ..eight_bit_text() }),
        text::Class::Binary => archive::detect(sample)
            .or_else(|| business(sample))
            .or_else(|| noise::detect(sample))
            .unwrap_or_else(|| verdict("application/octet-stream", "unknown", "none")),
    }
}

/// The beginning of a file, and whether more follows it.
#[derive(Clone, Copy)]
struct Sample<'a> {
    bytes: &'a [u8],
    cut: bool,
}

fn from_text(sample: Sample<'_>) -> Option<ContentType> {
    business(sample)
        .or_else(|| xml::detect(sample))
        .or_else(|| json::detect(sample))
        .or_else(|| archive::detect_in_text(sample))
        .or_else(|| csv::detect(sample))
}

/// The message formats of trade, banking and health. Each begins with a fixed signature that is checked closely enough
/// to stand before every other rule. Some use control characters as separators, so they are asked for "binary" heads too.
fn business(sample: Sample<'_>) -> Option<ContentType> {
    edi::edifact(sample)
        .or_else(|| edi::x12(sample))
        .or_else(|| swift::detect(sample))
        .or_else(|| hl7::detect(sample))
}

fn eight_bit_text() -> ContentType {
    verdict("text/plain", "txt", "rule:text-8bit")
}

fn verdict(mime: &str, label: &str, found_by: &str) -> ContentType {
    ContentType {
        mime: mime.to_owned(),
        label: label.to_owned(),
        found_by: found_by.to_owned(),
        score_permille: None,
        model_missed: None,
    }
}
