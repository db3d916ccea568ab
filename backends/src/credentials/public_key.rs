//! Public keys as `ssh-keygen` writes them and `authorized_keys` restricts them.

use super::network::{Network, NetworkError};
use dropgate_schemas::{account::PublicKey, time::Timestamp};
use jiff::{civil, tz::TimeZone};
use ssh_key::{Algorithm, HashAlg, public::KeyData};
use std::net::IpAddr;

/// Bits of the shortest RSA key that is taken.
pub const SHORTEST_RSA: u32 = 2048;
/// Bytes of the longest line that is looked at.
const LONGEST_LINE: usize = 16 * 1024;

/// Why a key line is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineError {
    /// No key in it.
    #[error("no public key: expected a line such as \"ssh-ed25519 AAAA… comment\" from a .pub file")]
    NotAKey,
    /// A private key.
    #[error("this is a private key: keep it secret and give the .pub file instead")]
    Private,
    /// An RSA key that is too short.
    #[error(
        "the RSA key has {0} bits and at least 2048 are required: make an Ed25519 key with ssh-keygen -t ed25519"
    )]
    ShortRsa(u32),
    /// A type that is not accepted.
    #[error("keys of type {0} are not accepted: use ssh-ed25519, ecdsa-sha2-nistp256/384/521 or ssh-rsa")]
    Type(String),
    /// A certificate authority or certificate.
    #[error("certificates are not accepted here: give the public key itself")]
    Certificate,
    /// An option that would change what the login may do and that we don't honour.
    #[error(
        "the option {0} is not supported: only from= and expiry-time= restrict a key here, remove the others"
    )]
    Option(String),
    /// `from=` with something else than networks.
    #[error("option from=: {0}; host names and patterns are not supported")]
    From(#[from] NetworkError),
    /// `from=` with `!`.
    #[error("option from=: exceptions with ! are not supported, list the networks that are allowed")]
    FromException,
    /// `expiry-time=` that is no time.
    #[error("option expiry-time={0:?} is not a time: use YYYYMMDD[HHMM[SS]], with Z at the end for UTC")]
    Expiry(String),
}

/// Why a key that is known may not be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// Expired.
    #[error("the key expired at {0}")]
    Expired(Timestamp),
    /// From somewhere else.
    #[error("the key may not be used from {0}")]
    Source(IpAddr),
    /// Its restriction can't be read, so nothing is allowed.
    #[error("the key's restriction can't be read: {0}")]
    Unreadable(#[from] NetworkError),
}

/// Whether a key may be used from an address at a moment.
///
/// # Errors
/// [`KeyRefusal`] if not.
pub fn permits(key: &PublicKey, from: IpAddr, now: Timestamp) -> Result<(), KeyRefusal> {
    if let Some(expired) = key.expires_at.filter(|at| now >= *at) {
        return Err(KeyRefusal::Expired(expired));
    }
    if key.from.is_empty() {
        return Ok(());
    }
    for network in &key.from {
        if network.parse::<Network>()?.contains(from) {
            return Ok(());
        }
    }
    Err(KeyRefusal::Source(from))
}

/// All keys of a `.pub` or `authorized_keys` file: one a line, empty lines and lines with `#` skipped.
///
/// # Errors
/// The number of the first line that is not taken, from 1, and why. A file without any key is an error in line 1.
pub fn parse_file(text: &str, added_at: Timestamp) -> Result<Vec<PublicKey>, (usize, KeyLineError)> {
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        keys.push(parse_line(line, added_at).map_err(|e| (number + 1, e))?);
    }
    if keys.is_empty() { Err((1, KeyLineError::NotAKey)) } else { Ok(keys) }
}

/// One key: `[options] type base64 [comment]`.
///
/// # Errors
/// [`KeyLineError`] says why it is not taken and what to do.
pub fn parse_line(line: &str, added_at: Timestamp) -> Result<PublicKey, KeyLineError> {
    let line = line.trim();
    if line.contains("PRIVATE KEY-----") || line.starts_with("PuTTY-User-Key-File") {
        return Err(KeyLineError::Private);
    }
    if line.len() > LONGEST_LINE {
        return Err(KeyLineError::NotAKey);
    }
    let (options, rest) = match ssh_key::PublicKey::from_openssh(line) {
        Ok(_) => ("", line),
        Err(_) if is_type(line) => ("", line),
        Err(_) => split_options(line).ok_or(KeyLineError::NotAKey)?,
    };
    let mut restrictions = Restrictions::default();
    for option in split_quoted(options, ',') {
        restrictions.take(option)?;
    }
    let kind = rest.split_whitespace().next().unwrap_or_default();
    if kind.ends_with("-cert-v01@openssh.com") {
        return Err(KeyLineError::Certificate);
    }
    let key = match ssh_key::PublicKey::from_openssh(rest) {
        Ok(key) => key,
        Err(_) if kind == "ssh-dss" || kind.starts_with("sk-") => {
            return Err(KeyLineError::Type(kind.to_owned()));
        }
        Err(_) => return Err(KeyLineError::NotAKey),
    };
    accepted(&key)?;
    let mut bare = key.clone();
    bare.set_comment("");
    Ok(PublicKey {
        key: bare.to_openssh().map_err(|_| KeyLineError::NotAKey)?.trim().to_owned(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        comment: key.comment().to_string().chars().filter(|c| !c.is_control()).take(256).collect(),
        from: restrictions.from,
        expires_at: restrictions.expires_at,
        added_at,
    })
}

fn accepted(key: &ssh_key::PublicKey) -> Result<(), KeyLineError> {
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(()),
        KeyData::Rsa(rsa) if rsa.key_size() < SHORTEST_RSA => Err(KeyLineError::ShortRsa(rsa.key_size())),
        KeyData::Rsa(_) => Ok(()),
        _ => Err(KeyLineError::Type(key.algorithm().to_string())),
    }
}

/// Whether a line begins with a key type, so that it has no options.
fn is_type(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| {
        word.ends_with("-cert-v01@openssh.com")
            || matches!(word.parse::<Algorithm>(), Ok(known) if !matches!(known, Algorithm::Other(_)))
    })
}

/// Splits at the first white space outside quotes.
fn split_options(line: &str) -> Option<(&str, &str)> {
    let mut quoted = Quoted::default();
    let at = line.char_indices().find(|(_, c)| !quoted.is_inside(*c) && c.is_whitespace())?.0;
    let (options, rest) = line.split_at(at);
    Some((options, rest.trim_start()))
}

fn split_quoted(options: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quoted = Quoted::default();
    options.split(move |c| !quoted.is_inside(c) && c == at).filter(|option| !option.is_empty())
}

/// Whether a character stands between quotes; a quote behind a backslash is none.
#[derive(Default)]
struct Quoted {
    inside: bool,
    escaped: bool,
}

impl Quoted {
    fn is_inside(&mut self, c: char) -> bool {
        if c == '"' && !self.escaped {
            self.inside = !self.inside;
        }
        self.escaped = c == '\\' && !self.escaped;
        self.inside
    }
}

#[derive(Default)]
struct Restrictions {
    from: Vec<String>,
    expires_at: Option<Timestamp>,
}

impl Restrictions {
    fn take(&mut self, option: &str) -> Result<(), KeyLineError> {
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        let value = value.map(|v| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v));
        match (name.to_ascii_lowercase().as_str(), value) {
            ("from", Some(patterns)) => {
                for pattern in patterns.split(',').map(str::trim) {
                    if pattern.starts_with('!') {
                        return Err(KeyLineError::FromException);
                    }
                    self.from.push(pattern.parse::<Network>()?.to_string());
                }
                Ok(())
            }
            ("expiry-time", Some(at)) => {
                let at = expiry(at).ok_or_else(|| KeyLineError::Expiry(at.chars().take(40).collect()))?;
                self.expires_at = Some(self.expires_at.map_or(at, |earlier| earlier.min(at)));
                Ok(())
            }
            // They take away what nobody gets here anyway.
            (
                "restrict"
                | "no-pty"
                | "no-port-forwarding"
                | "no-agent-forwarding"
                | "no-x11-forwarding"
                | "no-user-rc",
                None,
            ) => Ok(()),
            ("cert-authority", _) => Err(KeyLineError::Certificate),
            (other, _) => Err(KeyLineError::Option(other.chars().take(40).collect())),
        }
    }
}

/// `YYYYMMDD[HHMM[SS]]` in the time zone of this host, or in UTC with a `Z` at the end, as sshd reads it.
fn expiry(text: &str) -> Option<Timestamp> {
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |d| d.parse::<i8>().ok());
    let year = digits.get(..4)?.parse().ok()?;
    let at = civil::DateTime::new(
        year,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    let at = at.ok()?.to_zoned(zone).ok()?;
    Some(Timestamp::from_millis(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests;
