//! JSON (RFC 8259), and one JSON value a line.

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;
use serde::de::IgnoredAny;

/// Only objects and arrays count: a bare number or string is better called text.
pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    if !begins_value(bytes) {
        return None;
    }
    if is_value(bytes, sample.cut) {
        return Some(verdict("application/json", "json", "rule:json"));
    }
    is_lines(bytes, sample.cut).then(|| verdict("application/x-ndjson", "ndjson", "rule:ndjson"))
}

fn begins_value(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(b'{' | b'['))
}

/// Whether `bytes` are one JSON value, or the beginning of one where the head was cut.
fn is_value(bytes: &[u8], cut: bool) -> bool {
    let reads_to_the_end = |bytes: &[u8]| match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) => true,
        Err(err) => cut && err.is_eof(),
    };
    // The parser calls a number that was cut behind its point or its exponent sign wrong, not unfinished.
    reads_to_the_end(bytes) || (cut && reads_to_the_end(without_number_at_end(bytes)))
}

fn without_number_at_end(bytes: &[u8]) -> &[u8] {
    let in_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let length = bytes.iter().rposition(|b| !in_number(b)).map_or(0, |last| last + 1);
    bytes.get(..length).unwrap_or(bytes)
}

/// Two values at least, each on its own line; the last line may be cut.
fn is_lines(bytes: &[u8], cut: bool) -> bool {
    let mut values = 0;
    let mut lines = bytes.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        if line.is_empty() {
            continue;
        }
        if !begins_value(line) || !is_value(line, cut && last) {
            return false;
        }
        values += 1;
    }
    values >= 2
}
