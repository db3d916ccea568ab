//! Operators' tokens: what opens the HTTP interface to a person or a machine. Only a digest of the secret is kept.

use crate::{
    account::{PartnerName, TokenName},
    digest::Sha256,
    id::TokenId,
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// One token. It stays on record after it was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Which. Part of the text that its holder has.
    pub id: TokenId,
    /// Who has it.
    pub name: TokenName,
    /// What it opens.
    pub scopes: BTreeSet<Scope>,
    /// The one partner it sees anything of; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<PartnerName>,
    /// Digest of the secret part.
    pub secret_sha256: Sha256,
    /// Compare-and-set revision; 0 before the first write.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not taken from this moment on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether it opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

macro_rules! scopes {
    ($($(#[doc = $doc:literal])* $scope:ident = $name:literal;)+) => {
        /// What a token opens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Scope { $($(#[doc = $doc])* #[serde(rename = $name)] $scope,)+ }

        impl Scope {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$scope,)+];

            /// The name as it is typed and stored: `events:read`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $name,)+ }
            }
        }
    };
}

scopes! {
    /// Looking at uploads, audit trail and status.
    OpsRead = "ops:read";
    /// Redelivery and the like.
    OpsWrite = "ops:write";
    /// Changing accounts.
    AccountsWrite = "accounts:write";
    /// Reading events. May be bound to one partner.
    EventsRead = "events:read";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().copied().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| format!("no such scope: use some of {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_stored_as_they_are_typed() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse::<Scope>().unwrap(), *scope);
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert!("events:write".parse::<Scope>().unwrap_err().contains("events:read"));
    }
}
