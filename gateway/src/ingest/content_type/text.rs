//! Telling text from binary, and getting at the text.

use super::Sample;

/// What the bytes are made of.
pub(super) enum Class<'a> {
    /// Valid UTF-8 without control characters; byte order mark and a character cut at the end are taken off.
    Utf8(Sample<'a>),
    /// An 8-bit code page such as ISO 8859-1, with the share of ASCII in thousandths.
    EightBit(Sample<'a>, u16),
    /// Anything else.
    Binary,
}

/// Below this share of ASCII, bytes without control characters are not taken for text of an 8-bit code page.
const EIGHT_BIT_MIN_PERMILLE: usize = 850;

pub(super) fn classify(sample: Sample<'_>) -> Class<'_> {
    let mut bytes = sample.bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(sample.bytes);
    if !sample.cut {
        // The end-of-file mark of CP/M and DOS, still written by old accounting systems.
        bytes = bytes.strip_suffix(b"\x1A").unwrap_or(bytes);
    }
    if bytes.is_empty() || bytes.iter().any(|&b| is_control(b)) {
        return Class::Binary;
    }
    let bad = match std::str::from_utf8(bytes) {
        Ok(_) => return Class::Utf8(Sample { bytes, ..sample }),
        Err(bad) => bad,
    };
    if sample.cut && bad.error_len().is_none() {
        let whole = bytes.get(..bad.valid_up_to()).unwrap_or(bytes);
        return Class::Utf8(Sample { bytes: whole, ..sample });
    }
    let ascii = bytes.iter().filter(|b| b.is_ascii()).count() * 1000 / bytes.len();
    if ascii < EIGHT_BIT_MIN_PERMILLE {
        return Class::Binary;
    }
    Class::EightBit(Sample { bytes, ..sample }, u16::try_from(ascii).unwrap_or(1000))
}

/// The text of a UTF-16 file with a byte order mark; `None` where there is no mark or what follows is no text.
pub(super) fn decode_utf16(bytes: &[u8]) -> Option<String> {
    let (little_endian, units) = match bytes {
        [0xFF, 0xFE, units @ ..] => (true, units),
        [0xFE, 0xFF, units @ ..] => (false, units),
        _ => return None,
    };
    if units.is_empty() {
        return None;
    }
    let (pairs, _) = units.as_chunks::<2>();
    let to_u16 =
        |&pair: &[u8; 2]| if little_endian { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
    let mut text = String::with_capacity(units.len());
    for decoded in char::decode_utf16(pairs.iter().map(to_u16)) {
        match decoded {
            Ok(c) if c.is_ascii() && is_control(c as u8) => return None,
            Ok(c) => text.push(c),
            // Half of a surrogate pair is allowed only at the very end, where the head was cut.
            Err(_) => break,
        }
    }
    // An MP3 stream may begin with FF FE too: a text is a text only when nearly all of it decoded.
    (text.encode_utf16().count() + 1 >= pairs.len()).then_some(text)
}

/// Whether a byte never stands in a text file. Tab, line feed, form feed and carriage return do.
pub(super) fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0x0B | 0x0E..=0x1F | 0x7F)
}

/// Without the white space at the beginning.
pub(super) fn trim_start(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}
