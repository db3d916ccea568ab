//! Replies as they go over the wire.

use super::{attrs::Attrs, status::Status};

/// One entry of a NAME reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// The name as the client may use it.
    pub name: String,
    /// The line as `ls -l` shows it.
    pub longname: String,
    /// Attributes.
    pub attrs: Attrs,
}

/// A reply to the request with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// SSH_FXP_STATUS
    Status(Status),
    /// SSH_FXP_HANDLE
    Handle(Vec<u8>),
    /// SSH_FXP_NAME
    Name(Vec<NameEntry>),
    /// SSH_FXP_ATTRS
    Attrs(Attrs),
    /// SSH_FXP_EXTENDED_REPLY with its fields as they are.
    Extended(Vec<u8>),
}

impl Reply {
    /// The whole packet, length field included.
    #[must_use]
    pub fn encode(&self, id: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend([0; 4]);
        let kind = match self {
            Self::Status(_) => 101,
            Self::Handle(_) => 102,
            Self::Name(_) => 104,
            Self::Attrs(_) => 105,
            Self::Extended(_) => 201,
        };
        out.push(kind);
        out.extend(id.to_be_bytes());
        match self {
            Self::Status(status) => {
                out.extend((status.code as u32).to_be_bytes());
                string(&mut out, status.text.as_bytes());
                string(&mut out, b"en");
            }
            Self::Handle(handle) => string(&mut out, handle),
            Self::Name(entries) => {
                out.extend(length(entries.len()).to_be_bytes());
                for entry in entries {
                    string(&mut out, entry.name.as_bytes());
                    string(&mut out, entry.longname.as_bytes());
                    entry.attrs.encode(&mut out);
                }
            }
            Self::Attrs(attrs) => attrs.encode(&mut out),
            Self::Extended(fields) => out.extend(fields),
        }
        finish(out)
    }
}

/// The VERSION packet with our extensions.
#[must_use]
pub fn version() -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, 2];
    out.extend(3_u32.to_be_bytes());
    for (name, data) in [
        ("posix-rename@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("fsync@openssh.com", "1"),
        ("limits@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("check-file", "sha256"),
        ("vendor-id", ""),
    ] {
        string(&mut out, name.as_bytes());
        if name == "vendor-id" {
            string(&mut out, &vendor_id());
        } else {
            string(&mut out, data.as_bytes());
        }
    }
    finish(out)
}

/// Our own vendor-id: vendor, product, version, build number.
fn vendor_id() -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, b"Dropgate");
    string(&mut out, b"Dropgate");
    string(&mut out, env!("CARGO_PKG_VERSION").as_bytes());
    out.extend(0_u64.to_be_bytes());
    out
}

/// Appends a string with its length.
pub fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(length(bytes.len()).to_be_bytes());
    out.extend(bytes);
}

/// Lengths here are bounded by what we build (pages of 100 names), far below 4 GiB.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let body = length(out.len().saturating_sub(4)).to_be_bytes();
    if let Some(field) = out.get_mut(..4) {
        field.copy_from_slice(&body);
    }
    out
}
