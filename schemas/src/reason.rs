//! Why something went wrong, as a closed list of codes that partners see in listings and systems in events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The reason codes. They stand in the group column of `/failed` and in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No route matches the upload.
    NoRoute,
    /// The destination could not be reached within the retry budget.
    DestDown,
    /// The destination refused: access denied, no such bucket, wrong host key.
    Denied,
    /// The name is taken at the destination by something that is not ours.
    Collision,
    /// The bytes read or delivered are not the bytes that were accepted.
    Digest,
    /// A temp name was never renamed to its final name.
    NeverRenamed,
    /// The worker died several times on this delivery.
    Crashes,
    /// Fewer bytes arrived than the client declared, or bytes in between are missing.
    Incomplete,
    /// The connection was lost and nobody resumed the upload in time.
    Abandoned,
    /// The client asked for it: it removed its own unfinished upload, or started the name again.
    Withdrawn,
    /// A limit of the account or the server was reached.
    Limit,
    /// Storage or database did not answer in time.
    Unavailable,
    /// A newer version of the same name took its place.
    Superseded,
    /// Refused by policy.
    Refused,
}

impl ReasonCode {
    /// The code as it is printed: `no_route`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::DestDown => "dest_down",
            Self::Denied => "denied",
            Self::Collision => "collision",
            Self::Digest => "digest",
            Self::NeverRenamed => "never_renamed",
            Self::Crashes => "crashes",
            Self::Incomplete => "incomplete",
            Self::Abandoned => "abandoned",
            Self::Withdrawn => "withdrawn",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason: the code for machines and a sentence for people that says what happened and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For machines.
    pub code: ReasonCode,
    /// For people.
    pub sentence: String,
}

impl Reason {
    /// Puts the two together.
    #[must_use]
    pub fn new(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }
}
