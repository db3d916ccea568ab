//! A client that speaks just enough SSH to send what no real client sends: any message number, in any state, with any
//! payload. curve25519-sha256 and aes128-gcm; the host key's signature is not checked.

use std::net::SocketAddr;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const SERVICE_REQUEST: u8 = 5;
pub(crate) const SERVICE_ACCEPT: u8 = 6;
pub(crate) const USERAUTH_REQUEST: u8 = 50;
pub(crate) const USERAUTH_FAILURE: u8 = 51;
pub(crate) const USERAUTH_SUCCESS: u8 = 52;
pub(crate) const USERAUTH_PK_OK: u8 = 60;
pub(crate) const CHANNEL_OPEN: u8 = 90;
pub(crate) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
pub(crate) const CHANNEL_DATA: u8 = 94;
pub(crate) const CHANNEL_REQUEST: u8 = 98;
pub(crate) const CHANNEL_SUCCESS: u8 = 99;

/// An SSH string.
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A positive SSH integer from big-endian bytes.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if digits.first().is_some_and(|first| *first >= 0x80) {
        string([&[0], &digits[..]].concat())
    } else {
        string(digits)
    }
}

fn message(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[number], &parts.concat()[..]].concat()
}

struct Direction {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Direction {
    fn next_nonce(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let counter = u64::from_be_bytes(self.nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&counter.to_be_bytes());
        nonce
    }
}

pub(crate) struct RawClient {
    stream: TcpStream,
    server_id: String,
    to_server: Option<Direction>,
    to_client: Option<Direction>,
}

const OWN_ID: &str = "SSH-2.0-Raw";

impl RawClient {
    /// Connects and exchanges keys.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::greet(address).await;
        client.offer_algorithms().await.exchange_keys(&mut client).await.take(&mut client).await;
        client
    }

    /// Connects and exchanges identification strings; everything is in clear.
    pub(crate) async fn greet(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(format!("{OWN_ID}\r\n").as_bytes()).await.unwrap();
        let mut server_id = Vec::new();
        while !server_id.ends_with(b"\n") {
            server_id.push(stream.read_u8().await.unwrap());
        }
        let server_id = String::from_utf8(server_id).unwrap().trim_end().to_owned();
        Self { stream, server_id, to_server: None, to_client: None }
    }

    /// Exchanges KEXINIT.
    pub(crate) async fn offer_algorithms(&mut self) -> Offered {
        let mut own_init = vec![20];
        own_init.extend([9; 16]);
        for list in [
            "curve25519-sha256",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
            "aes128-gcm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-256",
            "none",
            "none",
            "",
            "",
        ] {
            own_init.extend(string(list));
        }
        own_init.extend([0; 5]);
        self.send(&own_init).await;
        Offered { own_init, server_init: self.receive().await.unwrap() }
    }
    /// Sends one message; an error means that the server hung up.
    pub(crate) async fn try_send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let (block, head) = if self.to_server.is_some() { (16, 1) } else { (8, 5) };
        let mut padding = block - (payload.len() + head) % block;
        if padding < 4 {
            padding += block;
        }
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend_from_slice(payload);
        body.extend(vec![0; padding]);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        if let Some(to_server) = &mut self.to_server {
            let nonce = to_server.next_nonce();
            to_server.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut body).unwrap();
        }
        self.stream.write_all(&[&length[..], &body].concat()).await
    }

    pub(crate) async fn send(&mut self, payload: &[u8]) {
        self.try_send(payload).await.unwrap();
    }

    /// Bytes as they are.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message, or `None` when the server hung up.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let tag = if self.to_client.is_some() { 16 } else { 0 };
        let mut body = vec![0; u32::from_be_bytes(length) as usize + tag];
        self.stream.read_exact(&mut body).await.ok()?;
        if let Some(to_client) = &mut self.to_client {
            let nonce = to_client.next_nonce();
            to_client.key.open_in_place(nonce, Aad::from(length), &mut body).unwrap();
            body.truncate(body.len() - tag);
        }
        let end = body.len() - usize::from(body[0]);
        Some(body[1..end].to_vec())
    }

    /// The next message that is none of the transport's own (below 50, but not SERVICE_ACCEPT), with keepalives left
    /// unanswered.
    pub(crate) async fn answer(&mut self) -> Option<Vec<u8>> {
        loop {
            let message = self.receive().await?;
            match message[0] {
                SERVICE_ACCEPT | 50..=79 | 81.. => return Some(message),
                1 => return None,
                _ => {}
            }
        }
    }

    /// Nothing more is sent; what the server says until it hangs up.
    pub(crate) async fn last_words(mut self) -> Vec<Vec<u8>> {
        // The server may be gone already.
        let _ = self.stream.shutdown().await;
        let mut said = Vec::new();
        while let Some(message) = self.receive().await {
            said.push(message);
        }
        said
    }

    pub(crate) async fn request_service(&mut self) {
        self.send(&message(SERVICE_REQUEST, &[&string("ssh-userauth")])).await;
        assert_eq!(self.answer().await.unwrap()[0], SERVICE_ACCEPT);
    }

    pub(crate) async fn log_in(&mut self, user: &str, password: &str) {
        self.request_service().await;
        self.send(&auth_password(user, password)).await;
        assert_eq!(self.answer().await.unwrap(), [USERAUTH_SUCCESS]);
    }

    /// Opens a session channel with the subsystem and returns the server's channel number.
    pub(crate) async fn open_sftp(&mut self) -> u32 {
        self.send(&channel_open()).await;
        let confirmation = self.answer().await.unwrap();
        assert_eq!(confirmation[0], CHANNEL_OPEN_CONFIRMATION);
        let channel = u32::from_be_bytes(confirmation[5..9].try_into().unwrap());
        self.send(&subsystem(channel)).await;
        assert_eq!(self.answer().await.unwrap()[0], CHANNEL_SUCCESS);
        channel
    }
}

/// Both sides have told their algorithms.
pub(crate) struct Offered {
    own_init: Vec<u8>,
    server_init: Vec<u8>,
}

/// The server has sent NEWKEYS, the client has not.
pub(crate) struct NewKeys(Direction);

impl NewKeys {
    /// Sends NEWKEYS.
    pub(crate) async fn take(self, client: &mut RawClient) {
        client.send(&[21]).await;
        client.to_server = Some(self.0);
    }
}

impl Offered {
    /// Exchanges keys, up to the server's NEWKEYS.
    pub(crate) async fn exchange_keys(self, client: &mut RawClient) -> NewKeys {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
        let public = private.compute_public_key().unwrap();
        client.send(&message(30, &[&string(public.as_ref())])).await;
        let reply = client.receive().await.unwrap();
        assert_eq!(reply[0], 31);
        let mut rest = &reply[1..];
        let host_key = take_string(&mut rest);
        let server_public = take_string(&mut rest);
        let secret =
            agree_ephemeral(private, UnparsedPublicKey::new(&X25519, &server_public), (), |shared| {
                Ok(mpint(shared))
            })
            .unwrap();
        let mut hash = Sha256::new();
        for part in [
            OWN_ID.as_bytes(),
            client.server_id.as_bytes(),
            &self.own_init,
            &self.server_init,
            &host_key,
            public.as_ref(),
            &server_public,
        ] {
            hash.update(string(part));
        }
        hash.update(&secret);
        let hash = hash.finalize();
        assert_eq!(client.receive().await.unwrap(), [21]);
        let derive = |letter: u8| {
            let mut key = Sha256::new();
            key.update(&secret);
            key.update(hash);
            key.update([letter]);
            key.update(hash);
            key.finalize()
        };
        let direction = |iv: u8, key: u8| Direction {
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &derive(key)[..16]).unwrap()),
            nonce: derive(iv)[..12].try_into().unwrap(),
        };
        client.to_client = Some(direction(b'B', b'D'));
        NewKeys(direction(b'A', b'C'))
    }
}

fn take_string(rest: &mut &[u8]) -> Vec<u8> {
    let (length, after) = rest.split_first_chunk::<4>().unwrap();
    let (bytes, after) = after.split_at(u32::from_be_bytes(*length) as usize);
    *rest = after;
    bytes.to_vec()
}

pub(crate) fn channel_open() -> Vec<u8> {
    message(CHANNEL_OPEN, &[&string("session"), &[0, 0, 0, 0], &[0, 16, 0, 0], &[0, 0, 128, 0]])
}

pub(crate) fn subsystem(channel: u32) -> Vec<u8> {
    message(CHANNEL_REQUEST, &[&channel.to_be_bytes(), &string("subsystem"), &[1], &string("sftp")])
}

pub(crate) fn data(channel: u32, bytes: &[u8]) -> Vec<u8> {
    message(CHANNEL_DATA, &[&channel.to_be_bytes(), &string(bytes)])
}

pub(crate) fn auth_none(user: &str) -> Vec<u8> {
    message(USERAUTH_REQUEST, &[&string(user), &string("ssh-connection"), &string("none")])
}

pub(crate) fn auth_password(user: &str, password: &str) -> Vec<u8> {
    message(
        USERAUTH_REQUEST,
        &[&string(user), &string("ssh-connection"), &string("password"), &[0], &string(password)],
    )
}

/// Asks whether a key would do, without a signature.
pub(crate) fn auth_key_offer(user: &str, algorithm: &str, key: &[u8]) -> Vec<u8> {
    let method = [string("publickey"), vec![0], string(algorithm), string(key)].concat();
    message(USERAUTH_REQUEST, &[&string(user), &string("ssh-connection"), &method])
}

pub(crate) fn service_request() -> Vec<u8> {
    message(SERVICE_REQUEST, &[&string("ssh-userauth")])
}
