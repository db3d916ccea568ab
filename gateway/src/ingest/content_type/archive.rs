//! Magic numbers: `infer`, fenced in where it would guess.

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;

/// For heads with control characters in them.
pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = sample.bytes;
    // The old Office container: its kind stands in a directory that mostly lies beyond the first 4 KiB.
    if bytes.starts_with(&[0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1]) {
        return Some(verdict("application/x-ole-storage", "ole", "rule:ole"));
    }
    if is_openpgp(bytes) {
        return Some(verdict("application/pgp-encrypted", "pgp", "rule:pgp"));
    }
    let kind = infer::get(bytes)?;
    // These two are text formats; a head with control characters in it is neither.
    if matches!(kind.mime_type(), "text/html" | "text/xml" | "text/x-shellscript") {
        return None;
    }
    if is_two_byte_guess(kind.extension(), bytes) {
        return None;
    }
    Some(from_infer(&kind))
}

/// For heads without control characters: the magic numbers that are long enough to mean something in text.
pub(super) fn detect_in_text(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    if bytes.starts_with(b"-----BEGIN PGP ") {
        return Some(verdict("application/pgp-encrypted", "pgp", "rule:pgp"));
    }
    let certain = bytes.starts_with(b"%PDF-")
        || bytes.starts_with(b"%!PS")
        || bytes.starts_with(b"{\\rtf")
        || bytes.starts_with(b"-----BEGIN ")
        || bytes.starts_with(b"#!/")
        || bytes.starts_with(b"#! /")
        || infer::text::is_html(bytes);
    if !certain {
        return None;
    }
    infer::get(bytes).map(|kind| from_infer(&kind))
}

fn from_infer(kind: &infer::Type) -> ContentType {
    verdict(kind.mime_type(), kind.extension(), "infer")
}

/// `infer` takes two bytes as enough for some formats. In arbitrary binary data that hits one file in a few
/// thousand, so the second field of the format is looked at as well.
fn is_two_byte_guess(extension: &str, bytes: &[u8]) -> bool {
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    match extension {
        // "MZ": a stub header has its page count in bytes 4 and 5, and a portable executable points on from 0x3C.
        "exe" | "dll" => bytes.len() < 0x40,
        // LLVM bitcode is 'BC' C0 DE.
        "bc" => !bytes.starts_with(&[0x42, 0x43, 0xC0, 0xDE]),
        // "BM", size, then two reserved words of zero.
        "bmp" => bytes.get(6..10) != Some(&[0, 0, 0, 0]),
        // Object files: two bytes of machine, then a section count that is small.
        "obj" => bytes.len() < 20 || at(3) != 0 || at(2) > 96 || at(2) == 0,
        // A DER sequence with a two-byte length: what it holds begins with a sequence or an integer.
        "der" => !matches!(at(4), 0x30 | 0x02),
        _ => false,
    }
}

/// An OpenPGP message for a recipient's public key: packet tag 1 in its old or new form, version 3, then an eight-byte
/// key id and a known algorithm (RFC 4880, 5.1).
fn is_openpgp(bytes: &[u8]) -> bool {
    let body = match bytes {
        [0x84, _, body @ ..] | [0x85, _, _, body @ ..] => body,
        [0xC1, 0..=191, body @ ..] | [0xC1, 192..=223, _, body @ ..] => body,
        _ => return false,
    };
    body.first() == Some(&3) && matches!(body.get(9), Some(1 | 2 | 16 | 18))
}
