//! Temporary names: `.<name>.<delivery8>.<epoch>.part`, next to the final one. They follow from the delivery, so whoever
//! holds its record can find what an earlier claim left without listing a directory.

use dropgate_schemas::{id::DeliveryId, path::MAX_COMPONENT};

/// The temporary name of a file called `name`, for one claim of a delivery. A long name is cut so that it fits.
pub(crate) fn part_name(name: &str, delivery: DeliveryId, epoch: u64) -> String {
    let tail = format!(".{}.{epoch}.part", delivery.short());
    let mut cut = name.len().min(MAX_COMPONENT.saturating_sub(tail.len() + 1));
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!(".{}{tail}", name.get(..cut).unwrap_or_default())
}

/// A key as its directory (empty at the root) and name.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// A key as the path of a URI: what is not unreserved is percent-encoded.
pub(crate) fn uri_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_tell_claims_apart_and_always_fit() {
        let delivery = DeliveryId::new();
        let eight = delivery.short();
        assert_eq!(part_name("a.csv", delivery, 3), format!(".a.csv.{eight}.3.part"));
        assert_ne!(part_name("a.csv", delivery, 3), part_name("a.csv", delivery, 4));
        for name in ["x".repeat(255), "ü".repeat(127)] {
            let part = part_name(&name, delivery, u64::MAX);
            assert!(part.len() <= 255 && part.ends_with(".part") && part.contains(&eight), "{part}");
        }
    }

    #[test]
    fn keys_split_and_print_as_uris() {
        assert_eq!(split("a/b/c"), ("a/b", "c"));
        assert_eq!(split("c"), ("", "c"));
        assert_eq!(uri_path("in/ä b#1.csv"), "in/%C3%A4%20b%231.csv");
    }
}
