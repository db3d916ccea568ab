//! Which host keys a destination may show.

use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PublicKey,
    ssh_key::{Fingerprint, public::KeyData},
};

/// Algorithms that are asked for when only fingerprints are pinned, most wanted first.
const ALL: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// RSA with SHA-1, for servers that know nothing newer.
const LEGACY: Algorithm = Algorithm::Rsa { hash: None };

/// The pinned host keys of one destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    fingerprints: Vec<Fingerprint>,
    keys: Vec<KeyData>,
}

impl Pins {
    /// From the lines of the config.
    ///
    /// # Errors
    /// What is wrong with the first bad line.
    pub(crate) fn parse(lines: &[String]) -> Result<Self, String> {
        let mut pins = Self::default();
        for line in lines {
            let line = line.trim();
            if line.starts_with("SHA256:") {
                let fingerprint =
                    line.parse().map_err(|_| format!("{line:?} is not a SHA256 fingerprint"))?;
                pins.fingerprints.push(fingerprint);
                continue;
            }
            if line.starts_with('@') {
                return Err(format!("{line:?} has a marker: only plain host keys can be pinned"));
            }
            // A known_hosts line begins with host names, a public key with its type.
            let mut words = line.split_ascii_whitespace();
            let kind = |word: &&str| word.starts_with("ssh-") || word.starts_with("ecdsa-");
            let key = words
                .find(kind)
                .zip(words.next())
                .and_then(|(kind, base64)| PublicKey::from_openssh(&format!("{kind} {base64}")).ok());
            let key = key.ok_or_else(|| format!("{line:?} is not a host key"))?;
            pins.keys.push(key.key_data().clone());
        }
        Ok(pins)
    }

    /// Whether a key that a server proved to have is one of them.
    pub(crate) fn hold(&self, key: &PublicKey) -> bool {
        self.keys.contains(key.key_data())
            || self.fingerprints.iter().any(|pinned| key.fingerprint(pinned.algorithm()) == *pinned)
    }

    /// The fingerprints, for people.
    pub(crate) fn show(&self) -> String {
        let of_keys = self.keys.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string());
        let all: Vec<String> = self.fingerprints.iter().map(ToString::to_string).chain(of_keys).collect();
        all.join(" or ")
    }

    /// Host key algorithms to ask for: a server with keys of several kinds shows the first kind it has. Those in `but` were
    /// tried and brought another key.
    pub(crate) fn algorithms(&self, but: &[Algorithm], legacy: bool) -> Vec<Algorithm> {
        let wanted = |algorithm: &Algorithm| {
            !self.fingerprints.is_empty()
                || self.keys.iter().any(|key| same_kind(&key.algorithm(), algorithm))
        };
        ALL.into_iter()
            .chain(legacy.then_some(LEGACY))
            .filter(|a| wanted(a) && !but.iter().any(|tried| same_kind(tried, a)))
            .collect()
    }
}

/// Signatures differ, keys don't: an RSA key is one key whatever the hash.
fn same_kind(a: &Algorithm, b: &Algorithm) -> bool {
    matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn print() -> String {
        PublicKey::from_openssh(KEY).unwrap().fingerprint(HashAlg::Sha256).to_string()
    }

    fn pins(lines: &[&str]) -> Result<Pins, String> {
        Pins::parse(&lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pin_may_be_a_fingerprint_a_key_or_a_known_hosts_line() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        for line in [
            print(),
            KEY.to_owned(),
            format!("{KEY} root@host"),
            format!("[sftp.example.com]:2022,10.0.0.1 {KEY}"),
        ] {
            let pins = pins(&[&line]).unwrap();
            assert!(pins.hold(&key), "{line}");
            assert_eq!(pins.show(), print());
        }
        let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(!pins(&[other]).unwrap().hold(&key));
        assert!(pins(&[other, &print()]).unwrap().hold(&key));
    }

    #[test]
    fn bad_lines_are_named() {
        for line in
            ["SHA256:short", "MD5:aa:bb", "host ssh-ed25519 !!!", "@cert-authority * ssh-ed25519 AAAA", ""]
        {
            assert!(pins(&[line]).unwrap_err().contains(&format!("{line:?}")), "{line}");
        }
    }

    #[test]
    fn asks_for_what_is_pinned_only() {
        assert_eq!(pins(&[KEY]).unwrap().algorithms(&[], true), [Algorithm::Ed25519]);
        let by_print = pins(&[&print()]).unwrap();
        assert_eq!(by_print.algorithms(&[], false), ALL);
        let left = by_print.algorithms(&[Algorithm::Ed25519, Algorithm::Rsa { hash: None }], true);
        assert!(left.len() == 3 && left.iter().all(|a| matches!(a, Algorithm::Ecdsa { .. })));
    }
}
