//! What lies in `/inbox`: entries that outside systems registered for an account. There are no bytes behind them.

use crate::{account::AccountName, digest::Sha256, path::VirtualPath, time::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One name that an account sees in `/inbox`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InboxEntry {
    /// Who sees it.
    pub account: AccountName,
    /// Its path, directly below `/inbox`.
    pub path: VirtualPath,
    /// Compare-and-set revision; 0 before the first write.
    pub revision: u64,
    /// Bytes, as whoever registered it says.
    pub size: u64,
    /// Digest, if whoever registered it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it was removed; its record stays, and its name can be registered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<Timestamp>,
}
