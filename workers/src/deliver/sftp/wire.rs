//! Packets of SFTP version 3, as far as a client that delivers files needs them.
//!
//! `russh_sftp`'s client is not used here: it ends the session at a status code above 8 and at a status without a message
//! (both common among old servers), and takes handles for text, although they are opaque bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use std::collections::HashMap;

pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const SETSTAT: u8 = 9;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const REALPATH: u8 = 16;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const EXTENDED: u8 = 200;

const INIT: u8 = 1;
const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// Flags of OPEN.
pub(super) const FOR_READING: u32 = 0x1;
/// WRITE, CREAT and TRUNC.
pub(super) const FOR_WRITING: u32 = 0x2 | 0x8 | 0x10;

pub(super) const OK: u32 = 0;
pub(super) const EOF: u32 = 1;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 3;
pub(super) const OP_UNSUPPORTED: u32 = 8;

const HAS_SIZE: u32 = 0x1;
const HAS_OWNER: u32 = 0x2;
const HAS_MODE: u32 = 0x4;

/// A packet of the server that can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a malformed SFTP packet")]
pub(super) struct Malformed;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Bytes),
    Data(Bytes),
    /// The first name.
    Name(String),
    Attributes(Attributes),
    Extended(Bytes),
}

/// A status, with whatever message came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

/// What is told of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
}

/// A request, without its length.
pub(super) struct Request(BytesMut);

impl Request {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        let mut packet = BytesMut::with_capacity(64);
        packet.put_u8(kind);
        packet.put_u32(id);
        Self(packet)
    }
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        // Nothing longer than a path or a handle goes this way.
        self.0.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.put_slice(bytes);
        self
    }
    pub(super) fn u32(mut self, n: u32) -> Self {
        self.0.put_u32(n);
        self
    }
    pub(super) fn u64(mut self, n: u64) -> Self {
        self.0.put_u64(n);
        self
    }
    /// Attributes with nothing but a mode, or with nothing.
    pub(super) fn mode(self, mode: Option<u32>) -> Self {
        match mode {
            Some(mode) => self.u32(HAS_MODE).u32(mode),
            None => self.u32(0),
        }
    }
    /// The packet with its length, to be followed by `payload` bytes.
    pub(super) fn framed(self, payload: usize) -> Bytes {
        let length = u32::try_from(self.0.len() + payload).unwrap_or(u32::MAX);
        let mut packet = BytesMut::with_capacity(self.0.len() + 4);
        packet.put_u32(length);
        packet.put_slice(&self.0);
        packet.freeze()
    }
}

/// The first packet of a session.
pub(super) fn init() -> Bytes {
    let mut packet = BytesMut::with_capacity(9);
    packet.put_u32(5);
    packet.put_u8(INIT);
    packet.put_u32(3);
    packet.freeze()
}

/// What the server can do: its version and extensions.
pub(super) fn version(packet: Bytes) -> Result<(u32, HashMap<String, Bytes>), Malformed> {
    let mut rest = Cursor(packet);
    if rest.u8()? != VERSION {
        return Err(Malformed);
    }
    let version = rest.u32()?;
    let mut extensions = HashMap::new();
    // Some servers end the list with junk: what was understood counts.
    while let (Ok(name), Ok(data)) = (rest.string(), rest.string()) {
        extensions.insert(String::from_utf8_lossy(&name).into_owned(), data);
    }
    Ok((version, extensions))
}

/// An answer and the id of the request it belongs to.
pub(super) fn reply(packet: Bytes) -> Result<(u32, Reply), Malformed> {
    let mut rest = Cursor(packet);
    let kind = rest.u8()?;
    let id = rest.u32()?;
    let reply = match kind {
        STATUS => {
            let code = rest.u32()?;
            // Old servers send none.
            let message = rest.string().unwrap_or_default();
            Reply::Status(Status { code, message: String::from_utf8_lossy(&message).trim().to_owned() })
        }
        HANDLE => Reply::Handle(rest.string()?),
        DATA => Reply::Data(rest.string()?),
        NAME => {
            if rest.u32()? == 0 {
                return Err(Malformed);
            }
            Reply::Name(String::from_utf8_lossy(&rest.string()?).into_owned())
        }
        ATTRS => {
            let flags = rest.u32()?;
            let size = if flags & HAS_SIZE != 0 { Some(rest.u64()?) } else { None };
            if flags & HAS_OWNER != 0 {
                rest.u64()?;
            }
            let mode = if flags & HAS_MODE != 0 { Some(rest.u32()?) } else { None };
            Reply::Attributes(Attributes { size, mode })
        }
        EXTENDED_REPLY => Reply::Extended(rest.0),
        _ => return Err(Malformed),
    };
    Ok((id, reply))
}

/// Reads from the front of a packet.
pub(super) struct Cursor(pub(super) Bytes);

impl Cursor {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.0.first_chunk::<N>().copied().ok_or(Malformed)?;
        drop(self.0.split_to(N));
        Ok(taken)
    }
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(u8::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }
    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_framed() {
        let packet = Request::new(LSTAT, 7).bytes(b"/a").framed(0);
        assert_eq!(&packet[..], b"\0\0\0\x0b\x07\0\0\0\x07\0\0\0\x02/a");
        let head = Request::new(WRITE, 1).bytes(b"h").u64(5).u32(3).framed(3);
        assert_eq!(head.len() + 3, 4 + 1 + 4 + 5 + 8 + 4 + 3);
        assert_eq!(u32::from_be_bytes(*head.first_chunk().unwrap()) as usize, head.len() - 4 + 3);
    }

    #[test]
    fn a_status_needs_no_message_and_may_have_any_code() {
        let bare = Bytes::from_static(b"\x65\0\0\0\x09\0\0\0\x0e");
        let (id, reply) = reply(bare).unwrap();
        assert_eq!((id, reply), (9, Reply::Status(Status { code: 14, message: String::new() })));
    }

    #[test]
    fn handles_are_opaque_bytes() {
        let packet = Bytes::from_static(b"\x66\0\0\0\x01\0\0\0\x03\xff\0\xfe");
        assert_eq!(reply(packet).unwrap().1, Reply::Handle(Bytes::from_static(b"\xff\0\xfe")));
    }

    #[test]
    fn attributes_skip_what_is_not_asked_for() {
        let mut packet = BytesMut::from(&b"\x69\0\0\0\x01"[..]);
        packet.put_u32(0x1 | 0x2 | 0x4 | 0x8);
        packet.put_u64(99);
        packet.put_u64(0);
        packet.put_u32(0o100_644);
        packet.put_u64(0);
        let attributes = Attributes { size: Some(99), mode: Some(0o100_644) };
        assert_eq!(reply(packet.freeze()).unwrap().1, Reply::Attributes(attributes));
    }

    #[test]
    fn extensions_are_read_as_far_as_they_go() {
        let packet = Bytes::from_static(b"\x02\0\0\0\x03\0\0\0\x01a\0\0\0\x01b\0\0\0\x09junk");
        let (version, extensions) = version(packet).unwrap();
        assert_eq!(version, 3);
        assert_eq!(extensions, HashMap::from([("a".to_owned(), Bytes::from_static(b"b"))]));
    }

    proptest! {
        #[test]
        fn no_packet_of_a_server_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 100_u8..106) {
            let mut packet = vec![kind];
            packet.extend(bytes);
            let _ = reply(Bytes::from(packet.clone()));
            let _ = version(Bytes::from(packet));
        }
    }
}
