//! HL7 version 2 messages (ER7 encoding), single or as a batch file.

use super::{Sample, text, verdict};
use dropgate_schemas::content::ContentType;

/// `MSH`, or `FHS` and `BHS` of a batch, then the field separator, four or five encoding characters and the separator
/// again: `MSH|^~\&|`. A message saved from a socket may keep the vertical tab of its MLLP frame.
pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let bytes = text::trim_start(sample.bytes);
    let bytes = bytes.strip_prefix(b"\x0B").unwrap_or(bytes);
    let rest = [b"MSH", b"FHS", b"BHS"].into_iter().find_map(|segment| bytes.strip_prefix(segment))?;
    let [separator, rest @ ..] = rest else { return None };
    let length = rest.iter().take(6).position(|b| b == separator)?;
    let encoding = rest.get(..length)?;
    let distinct =
        encoding.iter().enumerate().all(|(i, c)| encoding.iter().skip(i + 1).all(|other| other != c));
    // Version 2.7 added a fifth, the truncation character. The last two may be left out where nothing is escaped.
    let is_hl7 = (2..=5).contains(&length)
        && separator.is_ascii_punctuation()
        && encoding.iter().all(u8::is_ascii_punctuation)
        && distinct;
    is_hl7.then(|| verdict("x-application/hl7-v2+er7", "hl7v2", "rule:hl7v2"))
}
