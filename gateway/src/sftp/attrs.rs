//! File attributes of SFTP version 3.

use super::request::{DecodeError, Fields};

const SIZE: u32 = 0x1;
const UIDGID: u32 = 0x2;
const PERMISSIONS: u32 = 0x4;
const ACMODTIME: u32 = 0x8;
const EXTENDED: u32 = 0x8000_0000;

/// Type bits of a regular file.
pub const REGULAR: u32 = 0o100_000;
/// Type bits of a directory.
pub const DIRECTORY: u32 = 0o040_000;
/// The bits of `permissions` that are permissions and not the type.
pub const PERMISSION_BITS: u32 = 0o7777;

/// Attributes as they stand on the wire; absent ones are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Bytes.
    pub size: Option<u64>,
    /// Numeric owner and group.
    pub owner: Option<(u32, u32)>,
    /// Mode with type bits.
    pub permissions: Option<u32>,
    /// Access and modification time, seconds since the Unix epoch.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let flags = fields.u32()?;
        let mut attrs = Self::default();
        if flags & SIZE != 0 {
            attrs.size = Some(fields.u64()?);
        }
        if flags & UIDGID != 0 {
            attrs.owner = Some((fields.u32()?, fields.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attrs.permissions = Some(fields.u32()?);
        }
        if flags & ACMODTIME != 0 {
            attrs.times = Some((fields.u32()?, fields.u32()?));
        }
        if flags & EXTENDED != 0 {
            let count = fields.u32()?;
            for _ in 0..count {
                // Each pair takes at least 8 bytes, so the loop ends with the packet.
                fields.bytes()?;
                fields.bytes()?;
            }
        }
        Ok(attrs)
    }

    /// Appends the wire form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.size.is_some() {
            flags |= SIZE;
        }
        if self.owner.is_some() {
            flags |= UIDGID;
        }
        if self.permissions.is_some() {
            flags |= PERMISSIONS;
        }
        if self.times.is_some() {
            flags |= ACMODTIME;
        }
        out.extend(flags.to_be_bytes());
        if let Some(size) = self.size {
            out.extend(size.to_be_bytes());
        }
        if let Some((uid, gid)) = self.owner {
            out.extend(uid.to_be_bytes());
            out.extend(gid.to_be_bytes());
        }
        if let Some(permissions) = self.permissions {
            out.extend(permissions.to_be_bytes());
        }
        if let Some((atime, mtime)) = self.times {
            out.extend(atime.to_be_bytes());
            out.extend(mtime.to_be_bytes());
        }
    }
}
