//! Bank messages of the SWIFT MT family (FIN blocks).

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;

/// Basic header `{1:F01` + logical terminal (12) + session (4) + sequence (6) + `}`, then the application header `{2:I…` or
/// `{2:O…`. A message from a terminal is wrapped in SOH and ETX.
pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    let bytes = bytes.strip_prefix(b"\x01").unwrap_or(bytes);
    let [application @ (b'F' | b'A' | b'L'), service_1, service_2, rest @ ..] = bytes.strip_prefix(b"{1:")?
    else {
        return None;
    };
    let (terminal, rest) = rest.split_at_checked(12)?;
    let (numbers, rest) = rest.split_at_checked(10)?;
    let header = service_1.is_ascii_digit()
        && service_2.is_ascii_digit()
        && terminal.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        && numbers.iter().all(u8::is_ascii_digit);
    // Only financial messages carry a second block; a service message (an acknowledgement, F21) goes on with block 4.
    let next = match rest {
        [b'}', rest @ ..] => text::trim_start(rest),
        _ => return None,
    };
    let goes_on = next.starts_with(b"{2:I")
        || next.starts_with(b"{2:O")
        || (*application == b'F' && next.starts_with(b"{4:"));
    (header && goes_on).then(|| verdict("application/x-swift-mt", "swift-mt", "rule:swift-mt"))
}
