//! The only place that knows SSH_FX codes. Refusals of the tree and failures of the backends become a status here: a
//! code for the client's software, a sentence for its user, a reference for the operator.

use crate::vfs::Refusal;
use std::fmt;

/// The status codes that go over the wire. 6 and 7 are local to clients and never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// No more entries.
    Eof = 1,
    /// The name does not exist.
    NoSuchFile = 2,
    /// Not allowed here.
    PermissionDenied = 3,
    /// Failed for the reason in the text.
    Failure = 4,
    /// The packet makes no sense.
    BadMessage = 5,
    /// Not supported.
    OpUnsupported = 8,
}

/// A status as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// For the client's software.
    pub code: Code,
    /// For its user.
    pub text: String,
}

impl Status {
    /// OK with nothing to say.
    #[must_use]
    pub fn ok() -> Self {
        Self { code: Code::Ok, text: String::new() }
    }

    /// OK with something to say.
    #[must_use]
    pub fn ok_with(text: impl Into<String>) -> Self {
        Self { code: Code::Ok, text: text.into() }
    }

    /// End of a listing.
    #[must_use]
    pub fn eof() -> Self {
        Self { code: Code::Eof, text: "end of the listing".to_owned() }
    }

    /// A refusal, with the reference that finds its audit entry.
    #[must_use]
    pub fn refused(refusal: &Refusal, reference: Reference) -> Self {
        let code = match refusal {
            Refusal::NoSuchFile(_) => Code::NoSuchFile,
            Refusal::Denied(_) => Code::PermissionDenied,
            Refusal::Failure(_)
            | Refusal::Unavailable(_)
            | Refusal::Name(_)
            | Refusal::Conflict
            | Refusal::BadHandle => Code::Failure,
            Refusal::Unsupported(_) => Code::OpUnsupported,
        };
        Self { code, text: format!("{refusal} [ref {reference}]") }
    }
}

/// A short reference that a partner can read out on the phone and an operator finds in the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference([u8; 6]);

impl Reference {
    /// A new random one: six characters of an alphabet without look-alikes.
    #[must_use]
    pub fn new() -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bits: u32 = rand::random();
        let mut chars = [b'0'; 6];
        for (i, c) in (0_u32..).zip(chars.iter_mut()) {
            let index = (bits >> (5 * i)) & 31;
            *c = ALPHABET.get(index as usize).copied().unwrap_or(b'0');
        }
        Self(chars)
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("000000"))
    }
}
