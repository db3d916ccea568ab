//! Signatures as <https://www.standardwebhooks.com> has them: HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt::Write as _;

/// A signing key. Can't be printed.
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    /// From `whsec_` and 24 to 64 bytes in Base64.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.trim().strip_prefix("whsec_")?).ok()?;
        if !(24..=64).contains(&bytes.len()) {
            return None;
        }
        Hmac::new_from_slice(&bytes).ok().map(Self)
    }
}

/// One signature a key: whoever knows one of them can check.
pub(super) fn header(keys: &[Key], id: &str, seconds: i64, body: &[u8]) -> String {
    let mut header = String::new();
    for key in keys {
        let mut mac = key.0.clone();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let space = if header.is_empty() { "" } else { " " };
        let _ = write!(header, "{space}v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_others_do() {
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let header =
            header(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%"] {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
    }
}
