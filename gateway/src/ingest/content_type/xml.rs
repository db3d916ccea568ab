//! XML, and the bank messages of ISO 20022 in it.

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;

const ISO_20022: &[u8] = b"urn:iso:std:iso:20022:";

pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    if !is_xml(bytes, sample.cut) {
        return None;
    }
    if declares_namespace(bytes, ISO_20022) {
        return Some(verdict("application/xml", "iso20022", "rule:iso20022"));
    }
    Some(verdict("application/xml", "xml", "rule:xml"))
}

/// An XML declaration settles it. Without one the first markup must be an element that is not HTML's, and a file
/// whose end is seen must end in markup.
fn is_xml(bytes: &[u8], cut: bool) -> bool {
    if let [b'<', b'?', b'x', b'm', b'l', after, ..] = bytes {
        return after.is_ascii_whitespace();
    }
    let Some(root) = first_element(bytes) else { return false };
    let length = root.iter().position(|&b| !is_name_byte(b)).unwrap_or(root.len());
    let (name, after) = root.split_at_checked(length).unwrap_or((root, &[]));
    let named = name.first().is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b':' | 0x80..))
        && matches!(after.first(), Some(b' ' | b'\t' | b'\r' | b'\n' | b'>' | b'/'));
    named && !is_html_root(name) && (cut || bytes.trim_ascii_end().ends_with(b">"))
}

/// What follows the `<` of the first element, comments, instructions and a document type before it skipped.
fn first_element(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        bytes = text::trim_start(bytes).strip_prefix(b"<")?;
        let end: &[u8] = match bytes {
            [b'!', b'-', b'-', ..] => b"-->",
            [b'?', ..] => b"?>",
            [b'!', rest @ ..] => {
                let type_name = rest.get(..12)?.to_ascii_lowercase();
                if type_name == *b"doctype html" {
                    return None;
                }
                b">"
            }
            _ => return Some(bytes),
        };
        let at = bytes.windows(end.len()).position(|window| window == end)?;
        bytes = bytes.get(at + end.len()..)?;
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | 0x80..)
}

fn is_html_root(name: &[u8]) -> bool {
    const HTML: [&[u8]; 8] = [b"html", b"head", b"body", b"script", b"div", b"table", b"p", b"br"];
    HTML.iter().any(|html| name.eq_ignore_ascii_case(html))
}

/// Whether some attribute value begins with `namespace`: the root may be `Document`, a business application header, or a
/// wrapper of the partner's own.
fn declares_namespace(bytes: &[u8], namespace: &[u8]) -> bool {
    bytes
        .windows(namespace.len() + 2)
        .any(|window| matches!(window, [b'=', b'"' | b'\'', value @ ..] if value == namespace))
}
