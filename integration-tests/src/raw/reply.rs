//! What a server answers, decoded strictly: a reply with bytes too many or too few is an error.

use super::frame::Attrs;
use anyhow::{Context as _, Result, bail, ensure};

/// Done.
pub const OK: u32 = 0;
/// No more entries.
pub const EOF: u32 = 1;
/// No such file.
pub const NO_SUCH_FILE: u32 = 2;
/// Permission denied.
pub const PERMISSION_DENIED: u32 = 3;
/// Failure.
pub const FAILURE: u32 = 4;
/// Bad message.
pub const BAD_MESSAGE: u32 = 5;
/// Operation unsupported.
pub const OP_UNSUPPORTED: u32 = 8;

/// One reply with its request id (0 for VERSION, which has none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The id of the request it answers.
    pub id: u32,
    /// What it says.
    pub body: Body,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// SSH_FXP_VERSION with its extension pairs.
    Version(u32, Vec<(String, String)>),
    /// SSH_FXP_STATUS.
    Status(u32, String),
    /// SSH_FXP_HANDLE.
    Handle(Vec<u8>),
    /// SSH_FXP_DATA.
    Data(Vec<u8>),
    /// SSH_FXP_NAME.
    Name(Vec<Entry>),
    /// SSH_FXP_ATTRS.
    Attrs(Attrs),
    /// SSH_FXP_EXTENDED_REPLY.
    Extended(Vec<u8>),
}

/// One entry of SSH_FXP_NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is.
    pub name: Vec<u8>,
    /// The `ls -l` line.
    pub longname: String,
    /// Its attributes.
    pub attrs: Attrs,
}

impl Entry {
    /// The name as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

impl Reply {
    /// From a frame's body (without its length).
    ///
    /// # Errors
    /// If it is no well-formed reply of version 3.
    pub fn decode(frame: &[u8]) -> Result<Self> {
        let mut rest = Rest(frame);
        let kind = rest.u8()?;
        if kind == 2 {
            let version = rest.u32()?;
            let mut extensions = Vec::new();
            while !rest.0.is_empty() {
                extensions.push((rest.text()?, rest.text()?));
            }
            return Ok(Self { id: 0, body: Body::Version(version, extensions) });
        }
        let id = rest.u32()?;
        let body = match kind {
            101 => {
                let (code, text) = (rest.u32()?, rest.text()?);
                rest.text().context("language tag")?;
                Body::Status(code, text)
            }
            102 => Body::Handle(rest.string()?.to_vec()),
            103 => Body::Data(rest.string()?.to_vec()),
            104 => {
                let count = rest.u32()?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    let name = rest.string()?.to_vec();
                    let longname = rest.text()?;
                    entries.push(Entry { name, longname, attrs: rest.attrs()? });
                }
                Body::Name(entries)
            }
            105 => Body::Attrs(rest.attrs()?),
            201 => return Ok(Self { id, body: Body::Extended(rest.0.to_vec()) }),
            other => bail!("a reply of unknown type {other}"),
        };
        ensure!(rest.0.is_empty(), "{} bytes too many in a reply of type {kind}", rest.0.len());
        Ok(Self { id, body })
    }

    /// The status, if it is one.
    ///
    /// # Errors
    /// If it is another reply.
    pub fn status(&self) -> Result<(u32, &str)> {
        match &self.body {
            Body::Status(code, text) => Ok((*code, text)),
            other => bail!("expected a status, got {other:?}"),
        }
    }
    /// The text of a status OK.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn ok(&self) -> Result<&str> {
        let (code, text) = self.status()?;
        ensure!(code == OK, "expected OK, got {code}: {text}");
        Ok(text)
    }
    /// The text of a refusal with this code.
    ///
    /// # Errors
    /// If it is anything else, or has no text.
    pub fn refused(&self, expected: u32) -> Result<&str> {
        let (code, text) = self.status()?;
        ensure!(code == expected, "expected status {expected}, got {code}: {text}");
        ensure!(!text.is_empty(), "status {code} has no sentence");
        Ok(text)
    }
    /// The handle.
    ///
    /// # Errors
    /// If it is another reply.
    pub fn handle(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Handle(handle) => Ok(handle.clone()),
            other => bail!("expected a handle, got {other:?}"),
        }
    }
    /// The attributes.
    ///
    /// # Errors
    /// If it is another reply.
    pub fn attrs(&self) -> Result<Attrs> {
        match &self.body {
            Body::Attrs(attrs) => Ok(*attrs),
            other => bail!("expected attributes, got {other:?}"),
        }
    }
    /// The names.
    ///
    /// # Errors
    /// If it is another reply.
    pub fn names(&self) -> Result<&[Entry]> {
        match &self.body {
            Body::Name(entries) => Ok(entries),
            other => bail!("expected names, got {other:?}"),
        }
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).context("a reply ends too early")?;
        self.0 = tail;
        Ok(head)
    }
    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into()?))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into()?))
    }
    fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8(self.string()?.to_vec())?)
    }
    fn attrs(&mut self) -> Result<Attrs> {
        let flags = self.u32()?;
        ensure!(flags & !0xf == 0, "attribute flags {flags:#x} that version 3 does not have");
        let mut attrs = Attrs::none();
        if flags & 1 != 0 {
            attrs.size = Some(self.u64()?);
        }
        if flags & 2 != 0 {
            attrs.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & 4 != 0 {
            attrs.permissions = Some(self.u32()?);
        }
        if flags & 8 != 0 {
            attrs.times = Some((self.u32()?, self.u32()?));
        }
        Ok(attrs)
    }
}
