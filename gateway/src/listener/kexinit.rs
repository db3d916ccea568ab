//! Reads the first KEXINIT of each side from the clear beginning of a connection, to know what was negotiated: russh
//! tells a server no names.

use serde::{Deserialize, Serialize};

/// The algorithms of the first key exchange, as negotiated by RFC 4253 section 7.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NegotiatedAlgorithms {
    /// Key exchange method.
    pub kex: String,
    /// Host key algorithm, which is also the signature algorithm.
    pub host_key: String,
    /// Cipher from client to server (uploads).
    pub cipher: String,
    /// MAC from client to server; `implicit` for a cipher that authenticates by itself.
    pub mac: String,
}

impl NegotiatedAlgorithms {
    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.kex, &self.host_key, &self.cipher, &self.mac].into_iter().map(String::as_str)
    }
}

const MSG_KEXINIT: u8 = 20;
const PACKET_MAX: usize = 35_000;
/// What may come before KEXINIT: an identification line and a few IGNORE or DEBUG packets.
const CAPTURE_MAX: usize = 2 * PACKET_MAX;
const IDENTIFICATION_MAX: usize = 255;

/// Collects one direction until its first KEXINIT is complete, then holds only what was found.
#[derive(Debug)]
pub(crate) enum Sniffer {
    Collecting(Vec<u8>),
    Found {
        identification: String,
        offer: Offer,
    },
    /// Not SSH, or longer than any client sends: russh will refuse it too.
    Lost,
}

/// The name-lists of a KEXINIT that decide the outcome.
#[derive(Debug)]
pub(crate) struct Offer {
    kex: Vec<String>,
    host_key: Vec<String>,
    cipher_to_server: Vec<String>,
    mac_to_server: Vec<String>,
}

impl Sniffer {
    pub(crate) fn new() -> Self {
        Self::Collecting(Vec::new())
    }

    /// Looks at bytes that passed by. Returns whether this call completed the search, found or lost.
    pub(crate) fn observe(&mut self, bytes: &[u8]) -> bool {
        let Self::Collecting(seen) = self else { return false };
        seen.extend_from_slice(bytes);
        match parse(seen) {
            Progress::More if seen.len() <= CAPTURE_MAX => false,
            Progress::More | Progress::Malformed => {
                *self = Self::Lost;
                true
            }
            Progress::Complete(identification, offer) => {
                *self = Self::Found { identification, offer };
                true
            }
        }
    }

    /// The identification string without line end, once KEXINIT was seen.
    pub(crate) fn identification(&self) -> Option<&str> {
        match self {
            Self::Found { identification, .. } => Some(identification),
            Self::Collecting(_) | Self::Lost => None,
        }
    }

    /// What two sniffed sides agree on; `None` before both are found, or when they agree on nothing.
    pub(crate) fn negotiated(client: &Self, server: &Self) -> Option<NegotiatedAlgorithms> {
        let (Self::Found { offer: client, .. }, Self::Found { offer: server, .. }) = (client, server) else {
            return None;
        };
        let cipher = first_common(&client.cipher_to_server, &server.cipher_to_server)?;
        let authenticated = cipher.contains("-gcm@") || cipher.contains("-poly1305@");
        let mac = if authenticated {
            "implicit".to_owned()
        } else {
            first_common(&client.mac_to_server, &server.mac_to_server)?
        };
        Some(NegotiatedAlgorithms {
            kex: first_common(&client.kex, &server.kex)?,
            host_key: first_common(&client.host_key, &server.host_key)?,
            cipher,
            mac,
        })
    }
}

/// The client's first choice that the server has. The pseudo-algorithms (`ext-info-c`, `kex-strict-c-…`) never match:
/// each side has its own.
fn first_common(client: &[String], server: &[String]) -> Option<String> {
    client.iter().find(|name| server.contains(name)).cloned()
}

enum Progress {
    More,
    Malformed,
    Complete(String, Offer),
}

fn parse(seen: &[u8]) -> Progress {
    let Some(line_end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if seen.len() > IDENTIFICATION_MAX { Progress::Malformed } else { Progress::More };
    };
    let Some((line, mut rest)) = seen.split_at_checked(line_end + 1) else { return Progress::Malformed };
    let identification = String::from_utf8_lossy(line).trim_end().to_owned();
    if !identification.starts_with("SSH-") {
        return Progress::Malformed;
    }
    loop {
        let Some((length, after)) = take_u32(rest) else { return Progress::More };
        if length > PACKET_MAX {
            return Progress::Malformed;
        }
        let Some((packet, following)) = after.split_at_checked(length) else { return Progress::More };
        let Some((padding, content)) = packet.split_first() else { return Progress::Malformed };
        let Some(payload_length) = content.len().checked_sub(usize::from(*padding)) else {
            return Progress::Malformed;
        };
        let payload = content.get(..payload_length).unwrap_or_default();
        if payload.first() == Some(&MSG_KEXINIT) {
            return match parse_offer(payload) {
                Some(offer) => Progress::Complete(identification, offer),
                None => Progress::Malformed,
            };
        }
        rest = following;
    }
}

fn parse_offer(payload: &[u8]) -> Option<Offer> {
    // message number, 16 bytes of cookie, then ten name-lists
    let lists = payload.get(17..)?;
    let (kex, lists) = take_names(lists)?;
    let (host_key, lists) = take_names(lists)?;
    let (cipher_to_server, lists) = take_names(lists)?;
    let (_cipher_to_client, lists) = take_names(lists)?;
    let (mac_to_server, _rest) = take_names(lists)?;
    Some(Offer { kex, host_key, cipher_to_server, mac_to_server })
}

fn take_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*head)).ok()?, rest))
}

fn take_names(bytes: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let (length, rest) = take_u32(bytes)?;
    let (list, rest) = rest.split_at_checked(length)?;
    let list = std::str::from_utf8(list).ok()?;
    Some((list.split(',').map(str::to_owned).collect(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
        let mut bytes = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes().to_vec();
        bytes.push(u8::try_from(padding).unwrap());
        bytes.extend_from_slice(payload);
        bytes.extend(std::iter::repeat_n(0, padding));
        bytes
    }

    fn kexinit(lists: [&str; 5]) -> Vec<u8> {
        let mut payload = vec![MSG_KEXINIT];
        payload.extend([7; 16]);
        for list in lists.into_iter().chain(["hmac-sha1", "none", "none", "", ""]) {
            payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            payload.extend(list.as_bytes());
        }
        payload.extend([0; 5]);
        payload
    }

    fn side(identification: &str, lists: [&str; 5]) -> Vec<u8> {
        let mut bytes = format!("{identification}\r\n").into_bytes();
        bytes.extend(packet(&[2, 0, 0, 0, 0])); // IGNORE
        bytes.extend(packet(&kexinit(lists)));
        bytes
    }

    const CLIENT: [&str; 5] = [
        "sntrup761x25519-sha512,curve25519-sha256,ext-info-c,kex-strict-c-v00@openssh.com",
        "rsa-sha2-512,ssh-ed25519",
        "aes256-ctr,aes128-gcm@openssh.com",
        "x",
        "hmac-sha1,hmac-sha2-256",
    ];
    const SERVER: [&str; 5] = [
        "curve25519-sha256,ext-info-s",
        "ssh-ed25519",
        "aes128-gcm@openssh.com,aes256-ctr",
        "x",
        "hmac-sha2-256",
    ];

    #[test]
    fn negotiates_the_clients_first_common_choice() {
        let (mut client, mut server) = (Sniffer::new(), Sniffer::new());
        for byte in side("SSH-2.0-Test_1", CLIENT) {
            client.observe(&[byte]);
        }
        assert!(server.observe(&side("SSH-2.0-Dropgate_1", SERVER)));
        assert_eq!(client.identification(), Some("SSH-2.0-Test_1"));
        assert_eq!(
            Sniffer::negotiated(&client, &server),
            Some(NegotiatedAlgorithms {
                kex: "curve25519-sha256".into(),
                host_key: "ssh-ed25519".into(),
                cipher: "aes256-ctr".into(),
                mac: "hmac-sha2-256".into(),
            })
        );
    }

    #[test]
    fn an_aead_cipher_has_an_implicit_mac() {
        let mut lists = CLIENT;
        lists[2] = "aes128-gcm@openssh.com";
        lists[4] = "";
        let (mut client, mut server) = (Sniffer::new(), Sniffer::new());
        client.observe(&side("SSH-2.0-a", lists));
        server.observe(&side("SSH-2.0-b", SERVER));
        assert_eq!(Sniffer::negotiated(&client, &server).unwrap().mac, "implicit");
    }

    #[test]
    fn garbage_is_given_up_and_never_grows() {
        let mut http = Sniffer::new();
        assert!(http.observe(b"GET / HTTP/1.1\r\n"));
        assert!(matches!(http, Sniffer::Lost));
        let mut endless = Sniffer::new();
        assert!(endless.observe(&[b'A'; 300]));
        let mut ignores = Sniffer::new();
        ignores.observe(b"SSH-2.0-x\r\n");
        let ignore = packet(&[2; 1000]);
        let mut given_up = false;
        for _ in 0..100 {
            given_up |= ignores.observe(&ignore);
        }
        assert!(given_up && matches!(ignores, Sniffer::Lost));
    }

    proptest! {
        #[test]
        fn never_panics_and_always_ends(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut sniffer = Sniffer::new();
            sniffer.observe(b"SSH-2.0-x\r\n");
            sniffer.observe(&bytes);
            sniffer.observe(&vec![0; CAPTURE_MAX + 1]);
            prop_assert!(!matches!(sniffer, Sniffer::Collecting(_)));
        }
    }
}
