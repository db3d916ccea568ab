//! Requests as clients send them, borrowed from the packet. Names stay bytes here: turning them into a `VirtualPath`
//! is the tree's business. (The decoder of `russh-sftp` rewrites names that are not UTF-8 and copies every payload,
//! which is why this one exists.)

use super::attrs::Attrs;

/// Open flags of SFTP version 3.
pub mod open_flags {
    /// Wants to read.
    pub const READ: u32 = 0x01;
    /// Wants to write.
    pub const WRITE: u32 = 0x02;
    /// Every WRITE goes to the end.
    pub const APPEND: u32 = 0x04;
    /// Make it if it does not exist.
    pub const CREAT: u32 = 0x08;
    /// Throw away what is there.
    pub const TRUNC: u32 = 0x10;
    /// Fail if it exists.
    pub const EXCL: u32 = 0x20;
}

/// A packet that can't be decoded; the channel is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of type {kind} whose fields can't be read")]
pub struct DecodeError {
    /// The packet's type byte.
    pub kind: u8,
}

/// A request. `id` is the client's number for it.
#[derive(Debug, PartialEq)]
pub enum Request<'a> {
    /// Version negotiation.
    Init {
        /// Highest version the client speaks.
        version: u32,
    },
    /// Any request with a number.
    Numbered {
        /// The client's number.
        id: u32,
        /// What it asks for.
        body: Body<'a>,
    },
}

/// What a request asks for. WRITE is not here: the splitter hands it over in pieces.
#[derive(Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "the names are those of the protocol (draft-ietf-secsh-filexfer-02, section 6)"
)]
pub enum Body<'a> {
    Open {
        path: &'a [u8],
        flags: u32,
        attrs: Attrs,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
    },
    Lstat {
        path: &'a [u8],
    },
    Fstat {
        handle: &'a [u8],
    },
    Setstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    Fsetstat {
        handle: &'a [u8],
        attrs: Attrs,
    },
    Opendir {
        path: &'a [u8],
    },
    Readdir {
        handle: &'a [u8],
    },
    Remove {
        path: &'a [u8],
    },
    Mkdir {
        path: &'a [u8],
        attrs: Attrs,
    },
    Rmdir {
        path: &'a [u8],
    },
    Realpath {
        path: &'a [u8],
    },
    Stat {
        path: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Readlink,
    Symlink,
    /// `posix-rename@openssh.com`
    PosixRename {
        from: &'a [u8],
        to: &'a [u8],
    },
    /// `statvfs@openssh.com`
    Statvfs {
        path: &'a [u8],
    },
    /// `fstatvfs@openssh.com`
    Fstatvfs {
        handle: &'a [u8],
    },
    /// `fsync@openssh.com`
    Fsync {
        handle: &'a [u8],
    },
    /// `limits@openssh.com`
    Limits,
    /// `lsetstat@openssh.com`
    Lsetstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    /// `check-file-name`
    CheckFileName {
        path: &'a [u8],
        wanted: WantedDigest,
    },
    /// `check-file-handle`
    CheckFileHandle {
        handle: &'a [u8],
        wanted: WantedDigest,
    },
    /// `vendor-id`
    VendorId {
        vendor: &'a [u8],
        product: &'a [u8],
        version: &'a [u8],
    },
    /// An extended request we don't know.
    UnknownExtended {
        name: &'a [u8],
    },
    /// A packet type we don't know.
    Unknown {
        kind: u8,
    },
}

impl Body<'_> {
    /// The name of the request, for people.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "OPEN",
            Self::Close { .. } => "CLOSE",
            Self::Read { .. } => "READ",
            Self::Lstat { .. } => "LSTAT",
            Self::Fstat { .. } => "FSTAT",
            Self::Setstat { .. } => "SETSTAT",
            Self::Fsetstat { .. } => "FSETSTAT",
            Self::Opendir { .. } => "OPENDIR",
            Self::Readdir { .. } => "READDIR",
            Self::Remove { .. } => "REMOVE",
            Self::Mkdir { .. } => "MKDIR",
            Self::Rmdir { .. } => "RMDIR",
            Self::Realpath { .. } => "REALPATH",
            Self::Stat { .. } => "STAT",
            Self::Rename { .. } => "RENAME",
            Self::Readlink => "READLINK",
            Self::Symlink => "SYMLINK",
            Self::PosixRename { .. } => "posix-rename",
            Self::Statvfs { .. } => "statvfs",
            Self::Fstatvfs { .. } => "fstatvfs",
            Self::Fsync { .. } => "fsync",
            Self::Limits => "limits",
            Self::Lsetstat { .. } => "lsetstat",
            Self::CheckFileName { .. } => "check-file-name",
            Self::CheckFileHandle { .. } => "check-file-handle",
            Self::VendorId { .. } => "vendor-id",
            Self::UnknownExtended { .. } => "extended",
            Self::Unknown { .. } => "unknown",
        }
    }
}

/// Which digest of which bytes a `check-file` request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedDigest {
    /// SHA-256 is among the algorithms.
    pub sha256: bool,
    /// First byte.
    pub start: u64,
    /// So many bytes; 0: up to the end.
    pub length: u64,
    /// One digest for each block of so many bytes; 0: one for all.
    pub block: u32,
}

impl WantedDigest {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sha256: fields.bytes()?.split(|b| *b == b',').any(|name| name == b"sha256"),
            start: fields.u64()?,
            length: fields.u64()?,
            block: fields.u32()?,
        })
    }

    /// Whether the digest of all of a file of `size` bytes is the answer.
    #[must_use]
    pub fn is_whole(&self, size: u64) -> bool {
        let all = self.length == 0 || self.length == size;
        let one_block = self.block == 0 || u64::from(self.block) >= size;
        self.start == 0 && all && one_block
    }
}

/// Reads the fields of a packet one after another.
pub(super) struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn error(&self) -> DecodeError {
        DecodeError { kind: self.kind }
    }
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.error())?;
        self.rest = rest;
        Ok(taken)
    }
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| self.error())?))
    }
    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.take(8)?;
        Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| self.error())?))
    }
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(length as usize)
    }
    /// Attributes, which some clients leave away altogether.
    fn attrs(&mut self) -> Result<Attrs, DecodeError> {
        if self.rest.is_empty() { Ok(Attrs::default()) } else { Attrs::decode(self) }
    }
}

/// Decodes a packet (type byte and fields).
///
/// # Errors
/// [`DecodeError`] if a field runs over the end. Bytes behind the last field are ignored, as OpenSSH does: some clients
/// append fields of later versions.
pub fn decode(packet: &[u8]) -> Result<Request<'_>, DecodeError> {
    let (&kind, rest) = packet.split_first().ok_or(DecodeError { kind: 0 })?;
    let mut f = Fields { kind, rest };
    if kind == 1 {
        return Ok(Request::Init { version: f.u32()? });
    }
    let id = f.u32()?;
    let body = match kind {
        3 => Body::Open { path: f.bytes()?, flags: f.u32()?, attrs: f.attrs()? },
        4 => Body::Close { handle: f.bytes()? },
        5 => Body::Read { handle: f.bytes()? },
        7 => Body::Lstat { path: f.bytes()? },
        8 => Body::Fstat { handle: f.bytes()? },
        9 => Body::Setstat { path: f.bytes()?, attrs: f.attrs()? },
        10 => Body::Fsetstat { handle: f.bytes()?, attrs: f.attrs()? },
        11 => Body::Opendir { path: f.bytes()? },
        12 => Body::Readdir { handle: f.bytes()? },
        13 => Body::Remove { path: f.bytes()? },
        14 => Body::Mkdir { path: f.bytes()?, attrs: f.attrs()? },
        15 => Body::Rmdir { path: f.bytes()? },
        16 => Body::Realpath { path: f.bytes()? },
        17 => Body::Stat { path: f.bytes()? },
        18 => Body::Rename { from: f.bytes()?, to: f.bytes()? },
        19 => Body::Readlink,
        20 => Body::Symlink,
        200 => extended(&mut f)?,
        kind => Body::Unknown { kind },
    };
    Ok(Request::Numbered { id, body })
}

fn extended<'a>(f: &mut Fields<'a>) -> Result<Body<'a>, DecodeError> {
    let name = f.bytes()?;
    Ok(match name {
        b"posix-rename@openssh.com" => Body::PosixRename { from: f.bytes()?, to: f.bytes()? },
        b"statvfs@openssh.com" => Body::Statvfs { path: f.bytes()? },
        b"fstatvfs@openssh.com" => Body::Fstatvfs { handle: f.bytes()? },
        b"fsync@openssh.com" => Body::Fsync { handle: f.bytes()? },
        b"limits@openssh.com" => Body::Limits,
        b"lsetstat@openssh.com" => Body::Lsetstat { path: f.bytes()?, attrs: f.attrs()? },
        b"check-file-name" => {
            let path = f.bytes()?;
            Body::CheckFileName { path, wanted: WantedDigest::decode(f)? }
        }
        b"check-file-handle" => {
            let handle = f.bytes()?;
            Body::CheckFileHandle { handle, wanted: WantedDigest::decode(f)? }
        }
        // The fields are one string that holds the real fields.
        b"vendor-id" => {
            let mut inner = Fields { kind: f.kind, rest: f.bytes()? };
            Body::VendorId { vendor: inner.bytes()?, product: inner.bytes()?, version: inner.bytes()? }
        }
        name => Body::UnknownExtended { name },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(out: &mut Vec<u8>, s: &[u8]) {
        out.extend((s.len() as u32).to_be_bytes());
        out.extend(s);
    }

    #[test]
    fn decodes_an_open_as_winscp_sends_it() {
        let mut p = vec![3];
        p.extend(7_u32.to_be_bytes());
        string(&mut p, b"/upload/x.filepart");
        p.extend((open_flags::WRITE | open_flags::CREAT | open_flags::TRUNC).to_be_bytes());
        let attrs = Attrs { size: Some(1234), permissions: Some(0o644), ..Attrs::default() };
        attrs.encode(&mut p);
        assert_eq!(
            decode(&p).unwrap(),
            Request::Numbered { id: 7, body: Body::Open { path: b"/upload/x.filepart", flags: 0x1a, attrs } }
        );
        for cut in 1..p.len() {
            // A packet cut inside the attributes or before is refused; without any attributes it is taken.
            let whole_without_attrs = cut == 1 + 4 + 4 + 18 + 4;
            assert_eq!(decode(&p[..cut]).is_ok(), whole_without_attrs, "{cut}");
        }
    }

    #[test]
    fn an_unknown_type_keeps_its_id() {
        let mut p = vec![99];
        p.extend(5_u32.to_be_bytes());
        p.extend(b"whatever");
        assert_eq!(decode(&p).unwrap(), Request::Numbered { id: 5, body: Body::Unknown { kind: 99 } });
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn attributes_round_trip(size in any::<Option<u64>>(), owner in any::<Option<(u32, u32)>>(), permissions in any::<Option<u32>>(), times in any::<Option<(u32, u32)>>()) {
            let attrs = Attrs { size, owner, permissions, times };
            let mut bytes = Vec::new();
            attrs.encode(&mut bytes);
            let mut fields = Fields { kind: 0, rest: &bytes };
            prop_assert_eq!(Attrs::decode(&mut fields).unwrap(), attrs);
            prop_assert!(fields.rest.is_empty());
        }
    }
}
