//! SFTP version 3 frames, encoded by hand and apart from the product's codec, so that a mistake there is not repeated
//! here. Nothing is checked: a test may send any nonsense it likes.

/// OPEN: for reading.
pub const READ: u32 = 0x01;
/// OPEN: for writing.
pub const WRITE: u32 = 0x02;
/// OPEN: append.
pub const APPEND: u32 = 0x04;
/// OPEN: create if missing.
pub const CREAT: u32 = 0x08;
/// OPEN: truncate.
pub const TRUNC: u32 = 0x10;
/// OPEN: fail if it exists.
pub const EXCL: u32 = 0x20;

/// Attributes as a client sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Numeric user and group.
    pub owner: Option<(u32, u32)>,
    /// Mode, with or without type bits.
    pub permissions: Option<u32>,
    /// Access and modification time.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    /// No attributes at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
    /// Only a size.
    #[must_use]
    pub fn sized(size: u64) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
    /// Only a mode.
    #[must_use]
    pub fn mode(permissions: u32) -> Self {
        Self { permissions: Some(permissions), ..Self::default() }
    }
    /// Only times.
    #[must_use]
    pub fn timed(atime: u32, mtime: u32) -> Self {
        Self { times: Some((atime, mtime)), ..Self::default() }
    }

    fn put(&self, body: &mut Body) {
        let flags = u32::from(self.size.is_some())
            | u32::from(self.owner.is_some()) << 1
            | u32::from(self.permissions.is_some()) << 2
            | u32::from(self.times.is_some()) << 3;
        body.u32(flags);
        if let Some(size) = self.size {
            body.u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            body.u32(uid);
            body.u32(gid);
        }
        if let Some(mode) = self.permissions {
            body.u32(mode);
        }
        if let Some((atime, mtime)) = self.times {
            body.u32(atime);
            body.u32(mtime);
        }
    }
}

/// One request. Paths and handles are bytes, since a client may send any.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the draft, by their names")]
pub enum Request<'a> {
    /// SSH_FXP_INIT; has no id on the wire.
    Init { version: u32 },
    /// SSH_FXP_OPEN.
    Open { path: &'a [u8], flags: u32, attrs: Attrs },
    /// SSH_FXP_CLOSE.
    Close { handle: &'a [u8] },
    /// SSH_FXP_READ.
    Read { handle: &'a [u8], offset: u64, length: u32 },
    /// SSH_FXP_WRITE.
    Write { handle: &'a [u8], offset: u64, data: &'a [u8] },
    /// SSH_FXP_LSTAT.
    Lstat { path: &'a [u8] },
    /// SSH_FXP_FSTAT.
    Fstat { handle: &'a [u8] },
    /// SSH_FXP_SETSTAT.
    Setstat { path: &'a [u8], attrs: Attrs },
    /// SSH_FXP_FSETSTAT.
    Fsetstat { handle: &'a [u8], attrs: Attrs },
    /// SSH_FXP_OPENDIR.
    Opendir { path: &'a [u8] },
    /// SSH_FXP_READDIR.
    Readdir { handle: &'a [u8] },
    /// SSH_FXP_REMOVE.
    Remove { path: &'a [u8] },
    /// SSH_FXP_MKDIR.
    Mkdir { path: &'a [u8] },
    /// SSH_FXP_RMDIR.
    Rmdir { path: &'a [u8] },
    /// SSH_FXP_REALPATH.
    Realpath { path: &'a [u8] },
    /// SSH_FXP_STAT.
    Stat { path: &'a [u8] },
    /// SSH_FXP_RENAME.
    Rename { from: &'a [u8], to: &'a [u8] },
    /// SSH_FXP_READLINK.
    Readlink { path: &'a [u8] },
    /// SSH_FXP_SYMLINK.
    Symlink { target: &'a [u8], link: &'a [u8] },
    /// `posix-rename@openssh.com`.
    PosixRename { from: &'a [u8], to: &'a [u8] },
    /// `fsync@openssh.com`.
    Fsync { handle: &'a [u8] },
    /// `statvfs@openssh.com`.
    Statvfs { path: &'a [u8] },
    /// `limits@openssh.com`.
    Limits,
    /// `lsetstat@openssh.com`.
    Lsetstat { path: &'a [u8], attrs: Attrs },
    /// `hardlink@openssh.com`.
    Hardlink { from: &'a [u8], to: &'a [u8] },
    /// Any extended request.
    Extended { name: &'a [u8], data: &'a [u8] },
    /// Any request by its number; the data stand behind the id.
    Other { kind: u8, data: &'a [u8] },
}

impl Request<'_> {
    /// The whole frame: length, type, id, fields.
    #[must_use]
    pub fn encode(&self, id: u32) -> Vec<u8> {
        let mut body = Body::default();
        match self {
            Self::Init { version } => {
                body.0.push(1);
                body.u32(*version);
            }
            Self::Open { path, flags, attrs } => {
                body.start(3, id).string(path);
                body.u32(*flags);
                attrs.put(&mut body);
            }
            Self::Close { handle } => body.start(4, id).string(handle),
            Self::Read { handle, offset, length } => {
                body.start(5, id).string(handle);
                body.u64(*offset);
                body.u32(*length);
            }
            Self::Write { handle, offset, data } => {
                body.start(6, id).string(handle);
                body.u64(*offset);
                body.string(data);
            }
            Self::Lstat { path } => body.start(7, id).string(path),
            Self::Fstat { handle } => body.start(8, id).string(handle),
            Self::Setstat { path, attrs } => {
                body.start(9, id).string(path);
                attrs.put(&mut body);
            }
            Self::Fsetstat { handle, attrs } => {
                body.start(10, id).string(handle);
                attrs.put(&mut body);
            }
            Self::Opendir { path } => body.start(11, id).string(path),
            Self::Readdir { handle } => body.start(12, id).string(handle),
            Self::Remove { path } => body.start(13, id).string(path),
            Self::Mkdir { path } => {
                body.start(14, id).string(path);
                body.u32(0);
            }
            Self::Rmdir { path } => body.start(15, id).string(path),
            Self::Realpath { path } => body.start(16, id).string(path),
            Self::Stat { path } => body.start(17, id).string(path),
            Self::Rename { from, to } => {
                body.start(18, id).string(from);
                body.string(to);
            }
            Self::Readlink { path } => body.start(19, id).string(path),
            Self::Symlink { target, link } => {
                body.start(20, id).string(target);
                body.string(link);
            }
            Self::PosixRename { from, to } => {
                body.extended(id, b"posix-rename@openssh.com").string(from);
                body.string(to);
            }
            Self::Fsync { handle } => body.extended(id, b"fsync@openssh.com").string(handle),
            Self::Statvfs { path } => body.extended(id, b"statvfs@openssh.com").string(path),
            Self::Limits => {
                body.extended(id, b"limits@openssh.com");
            }
            Self::Lsetstat { path, attrs } => {
                body.extended(id, b"lsetstat@openssh.com").string(path);
                attrs.put(&mut body);
            }
            Self::Hardlink { from, to } => {
                body.extended(id, b"hardlink@openssh.com").string(from);
                body.string(to);
            }
            Self::Extended { name, data } => body.extended(id, name).0.extend_from_slice(data),
            Self::Other { kind, data } => body.start(*kind, id).0.extend_from_slice(data),
        }
        frame(&body.0)
    }
}

/// A length and whatever stands behind it.
#[must_use]
pub fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(body.len() + 4);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn start(&mut self, kind: u8, id: u32) -> &mut Self {
        self.0.push(kind);
        self.u32(id);
        self
    }
    fn extended(&mut self, id: u32, name: &[u8]) -> &mut Self {
        self.start(200, id).string(name);
        self
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn string(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }
}
