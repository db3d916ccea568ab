//! What a file is, and how that was found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a file's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentType {
    /// Media type, such as `application/edifact`.
    pub mime: String,
    /// Short name of the kind, such as `edifact`.
    pub label: String,
    /// What decided: `infer`, `rule:edifact`, `empty`, ….
    pub found_by: String,
    /// Confidence in thousandths, where the decider gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_permille: Option<u16>,
}
