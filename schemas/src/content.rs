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
    /// What decided: `infer`, `rule:edifact`, `magika`, `empty`, ….
    pub found_by: String,
    /// Confidence in thousandths, where the decider gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_permille: Option<u16>,
    /// Why the learned model, whose turn it was after the rules, did not decide. None where it was not its turn, or where
    /// its answer was taken or was no closer than that of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_missed: Option<ModelMissed>,
}

impl ContentType {
    /// The score with three decimals, such as `0.998`.
    #[must_use]
    pub fn score(&self) -> Option<String> {
        self.score_permille.map(|score| format!("{}.{:03}", score / 1000, score % 1000))
    }
}

/// Why the learned model gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelMissed {
    /// It has had its share of the processor for now.
    Busy,
    /// It took longer than an acceptance may wait for it.
    Late,
    /// It failed; the log says how.
    Failed,
}
