//! Which algorithms a listener offers: closed profiles instead of free lists, so that an operator picks a known
//! trade-off and a scanner's result can be documented.

use std::borrow::Cow;

use russh::keys::ssh_key::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};
use serde::{Deserialize, Serialize};

/// A named set of algorithms, chosen per listener.
///
/// `hmac-sha1-96`, CBC ciphers, DSA keys and compression are in none of them. User keys of every kind (Ed25519,
/// ECDSA, RSA with SHA-2) are accepted in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlgorithmProfile {
    /// What every maintained client of the last years speaks. The default.
    #[default]
    Modern,
    /// Adds the NIST curves, ECDSA host keys and diffie-hellman-group14-sha256.
    Compatible,
    /// Adds what only SHA-1 clients need: diffie-hellman-group14-sha1, ssh-rsa, hmac-sha1. For a listener of its own.
    Legacy,
}

// The markers at the end of the key exchange list are not algorithms: they announce strict key exchange (the remedy for
// Terrapin, CVE-2023-48795) and RFC 8308 extension negotiation. A custom list loses both unless it names them.
const MODERN_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const COMPATIBLE_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const LEGACY_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_G14_SHA1,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

// The list serves two purposes in russh: it is intersected with the host keys at hand for KEXINIT, and sent whole as
// `server-sig-algs`, which tells clients how they may sign with *their* keys. ECDSA therefore stands in every list;
// whether an ECDSA *host* key is used is decided by `serves_host_key`.
const SHA2_SIGNATURES: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

const LEGACY_SIGNATURES: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: None },
];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

// The two without `etm` are for libssh2 before 1.11 (Debian's curl), which knows neither these nor any AEAD cipher.
const SHA2_MACS: &[mac::Name] =
    &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

const LEGACY_MACS: &[mac::Name] =
    &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512, mac::HMAC_SHA1];

// No compression: a few bytes that become megabytes are a gift to attackers, and business files are mostly compressed.
const COMPRESSION: &[compression::Name] = &[compression::NONE];

impl AlgorithmProfile {
    /// As it is written in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Compatible => "compatible",
            Self::Legacy => "legacy",
        }
    }

    /// The lists in russh's form, most preferred first.
    pub(crate) fn preferred(self) -> Preferred {
        let (kex, key, mac) = match self {
            Self::Modern => (MODERN_KEX, SHA2_SIGNATURES, SHA2_MACS),
            Self::Compatible => (COMPATIBLE_KEX, SHA2_SIGNATURES, SHA2_MACS),
            Self::Legacy => (LEGACY_KEX, LEGACY_SIGNATURES, LEGACY_MACS),
        };
        Preferred {
            kex: Cow::Borrowed(kex),
            key: Cow::Borrowed(key),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(mac),
            compression: Cow::Borrowed(COMPRESSION),
        }
    }

    /// Whether a host key of this algorithm is offered under this profile.
    pub(crate) fn serves_host_key(self, algorithm: &Algorithm) -> bool {
        match algorithm {
            Algorithm::Ed25519 | Algorithm::Rsa { .. } => true,
            Algorithm::Ecdsa { .. } => matches!(self, Self::Compatible | Self::Legacy),
            _ => false,
        }
    }

    /// Whether a client may sign its login with this algorithm. SHA-1 signatures (`ssh-rsa`) are for `legacy` only.
    pub(crate) fn accepts_login_signature(self, algorithm: &Algorithm) -> bool {
        match algorithm {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) } => true,
            Algorithm::Rsa { hash: None } => matches!(self, Self::Legacy),
            _ => false,
        }
    }
}

/// Whether an algorithm of any kind (key exchange, host key, cipher, MAC, signature) stands on SHA-1, as those do that only
/// `legacy` offers.
pub(crate) fn is_weak(name: &str) -> bool {
    name.ends_with("-sha1") || name == "ssh-rsa"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<N: AsRef<str>>(list: &[N]) -> Vec<&str> {
        list.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn modern_offers_exactly_the_documented_lists() {
        let modern = AlgorithmProfile::Modern.preferred();
        assert_eq!(
            names(&modern.kex),
            [
                "mlkem768x25519-sha256",
                "curve25519-sha256",
                "curve25519-sha256@libssh.org",
                "diffie-hellman-group16-sha512",
                "ext-info-s",
                "kex-strict-s-v00@openssh.com",
            ]
        );
        assert_eq!(
            names(&modern.cipher),
            [
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "chacha20-poly1305@openssh.com",
                "aes128-ctr",
                "aes192-ctr",
                "aes256-ctr",
            ]
        );
        assert_eq!(
            names(&modern.mac),
            [
                "hmac-sha2-256-etm@openssh.com",
                "hmac-sha2-512-etm@openssh.com",
                "hmac-sha2-256",
                "hmac-sha2-512"
            ]
        );
        assert_eq!(names(&modern.compression), ["none"]);
    }

    #[test]
    fn every_profile_announces_strict_key_exchange_and_extension_negotiation() {
        for profile in [AlgorithmProfile::Modern, AlgorithmProfile::Compatible, AlgorithmProfile::Legacy] {
            let kex = profile.preferred().kex;
            assert!(kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER), "{profile:?}");
            assert!(kex.contains(&kex::EXTENSION_SUPPORT_AS_SERVER), "{profile:?}");
        }
    }

    #[test]
    fn weak_is_what_legacy_adds() {
        let offered = |profile: AlgorithmProfile| {
            let lists = profile.preferred();
            let keys = lists.key.iter().map(Algorithm::to_string);
            let named = [names(&lists.kex), names(&lists.cipher), names(&lists.mac)].concat();
            keys.chain(named.into_iter().map(str::to_owned)).collect::<Vec<_>>()
        };
        for profile in [AlgorithmProfile::Modern, AlgorithmProfile::Compatible] {
            assert!(!offered(profile).iter().any(|name| is_weak(name)), "{profile:?}");
        }
        let before = offered(AlgorithmProfile::Compatible);
        let added = offered(AlgorithmProfile::Legacy).into_iter().filter(|name| !before.contains(name));
        let added: Vec<String> = added.collect();
        assert_eq!(added, ["ssh-rsa", "diffie-hellman-group14-sha1", "hmac-sha1"]);
        assert!(added.iter().all(|name| is_weak(name)));
    }

    #[test]
    fn sha1_is_only_in_legacy() {
        let sha1 = Algorithm::Rsa { hash: None };
        for (profile, allowed) in [
            (AlgorithmProfile::Modern, false),
            (AlgorithmProfile::Compatible, false),
            (AlgorithmProfile::Legacy, true),
        ] {
            let lists = profile.preferred();
            assert_eq!(lists.key.contains(&sha1), allowed, "{profile:?}");
            assert_eq!(lists.mac.contains(&mac::HMAC_SHA1), allowed, "{profile:?}");
            assert_eq!(lists.kex.contains(&kex::DH_G14_SHA1), allowed, "{profile:?}");
            assert_eq!(profile.accepts_login_signature(&sha1), allowed, "{profile:?}");
        }
    }

    #[test]
    fn ecdsa_host_keys_are_not_served_by_modern() {
        let ecdsa = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
        assert!(!AlgorithmProfile::Modern.serves_host_key(&ecdsa));
        assert!(AlgorithmProfile::Compatible.serves_host_key(&ecdsa));
        assert!(AlgorithmProfile::Modern.accepts_login_signature(&ecdsa));
    }
}
