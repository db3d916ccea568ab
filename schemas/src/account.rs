//! Partners, their accounts, and the verifiers a login is checked against.

use crate::{time::Timestamp, upload::Grade};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};

/// Why a name of an account, partner, destination, deployment or token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit")]
pub struct NameError(pub String);

macro_rules! names {
    ($($(#[doc = $doc:literal])* $name:ident;)+) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!($($doc),*).trim_ascii(),
                    "type": "string",
                    "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$",
                })
            }
        }
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> { Self::try_from(s.to_owned()) }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
                let bytes = s.as_bytes();
                if bytes.len() <= 63 && bytes.first().is_some_and(|c| good(*c)) && bytes.iter().all(|c| good(*c) || matches!(c, b'_' | b'-')) {
                    Ok(Self(s))
                } else {
                    Err(NameError(s.chars().take(80).collect()))
                }
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String { n.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.0, f) }
        }
    )+};
}

names! {
    /// A login: `[a-z0-9][a-z0-9_-]{0,62}`.
    AccountName;
    /// The organisation an account belongs to: `[a-z0-9][a-z0-9_-]{0,62}`.
    PartnerName;
    /// A configured destination: `[a-z0-9][a-z0-9_-]{0,62}`.
    DestinationName;
    /// Who holds an operator's token: `[a-z0-9][a-z0-9_-]{0,62}`.
    TokenName;
}

/// What the system knows of an account besides its verifiers. Kept in the state store, so that it can be disabled
/// while the credential store is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The login name.
    pub name: AccountName,
    /// The organisation it belongs to; fixed for the account's life.
    pub partner: PartnerName,
    /// Whether it may log in.
    pub enabled: bool,
    /// Removed accounts keep their record, since uploads refer to it; their name can be added again.
    #[serde(default)]
    pub removed: bool,
    /// Compare-and-set revision; 0 before the first write.
    pub revision: u64,
    /// Raised whenever live sessions must end: disabled, removed, a credential taken away.
    pub revocation_epoch: u64,
    /// Temp-name patterns this account uses besides the built-in ones (`*.tmp`, `*.part`, …): globs on the last component.
    #[serde(default)]
    pub temp_patterns: Vec<String>,
    /// What happens to a repeat of the last delivered version.
    #[serde(default)]
    pub on_duplicate: OnDuplicate,
    /// The weakest completeness evidence that is accepted.
    #[serde(default)]
    pub minimum_grade: Grade,
    /// How much it may send; nothing set: as much as it likes.
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub quota: Quota,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How much an account may send. Days are days of UTC, by the moment at which an upload was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
    /// Files a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploads_per_day: Option<u64>,
    /// Bytes of all its files that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

impl Quota {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a repeat of the last delivered version (same path, size and digest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicate {
    /// It is a new version and is delivered.
    #[default]
    Deliver,
    /// The client gets OK and the old receipt; nothing is delivered.
    Suppress,
}

/// The verifiers of one account. Holds no secret in clear: an argon2id hash and public keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The login name.
    pub account: AccountName,
    /// PHC string of the argon2id hash; none: no password login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Public keys that may log in.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
}

/// One public key of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// In OpenSSH form: `ssh-ed25519 AAAA…`, without comment.
    pub key: String,
    /// `SHA256:…` fingerprint, the credential id in audit entries.
    pub fingerprint: String,
    /// The comment of the key line.
    #[serde(default)]
    pub comment: String,
    /// Networks (CIDR) it may be used from; empty: any.
    #[serde(default)]
    pub from: Vec<String>,
    /// Not accepted from this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was added.
    pub added_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_wherever_they_come_from() {
        assert!("acme-01_x".parse::<AccountName>().is_ok());
        for bad in ["", "Acme", "-x", "a/b", "a b", "é", &"x".repeat(64), "../x"] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad}");
            assert!(serde_json::from_value::<AccountName>(serde_json::json!(bad)).is_err());
        }
    }
}
