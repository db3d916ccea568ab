//! What the model looks at: the first and the last kilobyte, without the white space around the content.

/// Bytes of either end.
pub(super) const END: usize = 1024;
/// Stands where there is no byte.
const PADDING: i32 = 256;
/// With less than so many bytes the model is not asked.
const LEAST: usize = 8;

/// The input of the model for a file with these edges; `None` if it holds too little to tell anything.
pub(super) fn features(head: &[u8], tail: &[u8]) -> Option<Vec<i32>> {
    let begin = head.iter().skip_while(|&&byte| is_white(byte)).take(END);
    begin.clone().nth(LEAST - 1)?;
    let end = tail.iter().rev().skip_while(|&&byte| is_white(byte)).take(END);
    let padding = || std::iter::repeat(PADDING);
    let mut features: Vec<i32> = begin.map(|&byte| i32::from(byte)).chain(padding()).take(END).collect();
    features.extend(end.map(|&byte| i32::from(byte)).chain(padding()).take(END));
    // The end was gathered from the last byte on.
    if let Some(end) = features.get_mut(END..) {
        end.reverse();
    }
    Some(features)
}

/// White space as Python's `bytes.strip` knows it, with the vertical tab.
const fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_without_white_space_and_padded() {
        let features = features(b" \x0B\r\nSELECT 1;\n", b" \x0B\r\nSELECT 1;\n").unwrap();
        assert_eq!(features.len(), 2 * END);
        let begin: Vec<i32> = b"SELECT 1;\n".iter().map(|&b| i32::from(b)).collect();
        assert_eq!(&features[..begin.len()], begin);
        assert!(features[begin.len()..END].iter().all(|&f| f == PADDING));
        let end: Vec<i32> = b" \x0B\r\nSELECT 1;".iter().map(|&b| i32::from(b)).collect();
        assert_eq!(&features[2 * END - end.len()..], end);
        assert!(features[END..2 * END - end.len()].iter().all(|&f| f == PADDING));
    }

    #[test]
    fn a_long_file_is_cut_to_a_kilobyte_at_each_end() {
        let content: Vec<u8> = (0..4096u16).map(|i| (i / 16) as u8).collect();
        let features = features(&content, &content).unwrap();
        // 9 to 13 are white space, but only at the very ends.
        assert_eq!(features[..END], content[..END].iter().map(|&b| i32::from(b)).collect::<Vec<_>>());
        assert_eq!(features[END..], content[3 * END..].iter().map(|&b| i32::from(b)).collect::<Vec<_>>());
    }

    #[test]
    fn too_little_is_not_asked() {
        assert_eq!(features(b"1234567", b"1234567"), None);
        assert_eq!(features(b"         1234567\n", b"         1234567\n").map(|f| f.len()), Some(2 * END));
        assert_eq!(features(b"\n\n\n\n\n\n\n\n\n\n1234567", b"\n1234567"), None);
        assert!(features(b"12345678", b"12345678").is_some());
    }
}
