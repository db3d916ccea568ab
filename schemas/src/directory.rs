//! Directories are rows, never directories of a host disk.

use crate::{
    account::AccountName,
    path::{Area, VirtualPath},
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One directory a partner made under `/upload`, and its mirrors under `/sent` and `/failed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Whose it is.
    pub account: AccountName,
    /// Its path under `/upload`.
    pub path: VirtualPath,
    /// Compare-and-set revision; 0 before the first write.
    pub revision: u64,
    /// Shown under `/upload`.
    pub in_upload: bool,
    /// Shown at the same place under `/sent`.
    pub in_sent: bool,
    /// Shown at the same place under `/failed`.
    pub in_failed: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Directory {
    /// Whether it shows in `area`.
    #[must_use]
    pub const fn shows_in(&self, area: Area) -> bool {
        match area {
            Area::Upload => self.in_upload,
            Area::Sent => self.in_sent,
            Area::Failed => self.in_failed,
            Area::Inbox => false,
        }
    }
}
