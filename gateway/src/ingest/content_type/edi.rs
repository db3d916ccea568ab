//! Trade messages: UN/EDIFACT (ISO 9735) and ANSI ASC X12.

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;

/// An interchange begins with `UNB`, or with `UNA` and the six service characters, then `UNB`.
pub(super) fn edifact(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    let is_edifact = match bytes.strip_prefix(b"UNA") {
        Some([component, element, decimal, release, reserved, terminator, rest @ ..]) => {
            let service = [*component, *element, *decimal, *release, *reserved, *terminator];
            service.iter().all(|c| !c.is_ascii_alphanumeric() && c.is_ascii())
                && component != element
                && element != terminator
                && matches!(text::trim_start(rest), [b'U', b'N', b'B', after, ..] if after == element)
        }
        Some(_) => false,
        None => match bytes.strip_prefix(b"UNB") {
            // Without UNA the default service characters hold; level B (UNOB) may use information separators.
            Some([b'+' | 0x1D, syntax @ ..]) => has_syntax_identifier(syntax),
            _ => false,
        },
    };
    is_edifact.then(|| verdict("application/EDIFACT", "edifact", "rule:edifact"))
}

/// `UNOA` to `UNOY`, or the four letters of another agency (`IATA`, `KECA`), then the version behind a separator.
fn has_syntax_identifier(bytes: &[u8]) -> bool {
    match bytes {
        [name @ .., _, _] if name.len() >= 4 => {
            let (name, rest) = bytes.split_at_checked(4).unwrap_or((bytes, &[]));
            name.iter().all(u8::is_ascii_uppercase)
                && matches!(rest, [b':' | 0x1F, version, ..] if version.is_ascii_digit())
        }
        _ => false,
    }
}

/// Length of an ISA segment, its terminator included.
const ISA_BYTES: usize = 106;
/// Where the element separators of an ISA segment stand.
const ISA_SEPARATORS: [usize; 16] = [3, 6, 17, 20, 31, 34, 50, 53, 69, 76, 81, 83, 89, 99, 101, 103];

/// An interchange begins with `ISA`, the one segment of fixed length: it defines the separators by where they stand.
/// Some translators don't pad it; then sixteen elements must be followed by a functional group, `GS`.
pub(super) fn x12(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    let separator = match bytes {
        [b'I', b'S', b'A', separator, ..] if !separator.is_ascii_alphanumeric() && *separator != b' ' => {
            *separator
        }
        _ => return None,
    };
    let fixed = bytes.len() >= ISA_BYTES
        && ISA_SEPARATORS.iter().all(|&at| bytes.get(at) == Some(&separator))
        && bytes.get(ISA_BYTES - 1).is_some_and(|terminator| !terminator.is_ascii_alphanumeric());
    (fixed || has_unpadded_isa(bytes, separator)).then(|| verdict("application/EDI-X12", "x12", "rule:x12"))
}

fn has_unpadded_isa(bytes: &[u8], separator: u8) -> bool {
    // Elements 1 to 15, then what stands between the 16th separator and the next: the component separator, the
    // segment terminator, perhaps a line end, and "GS".
    let mut elements = bytes.splitn(18, |&b| b == separator);
    let version = elements.nth(12);
    let last = elements.nth(3);
    version.is_some_and(|v| v.len() == 5 && v.iter().all(u8::is_ascii_digit))
        && last.is_some_and(|last| last.len() <= 6 && last.ends_with(b"GS"))
}
