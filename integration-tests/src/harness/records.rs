//! What the program tells of itself: `uploads list --json`, `audit list --json`, `events.ndjson`.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// One line of `uploads list --json`, as far as the interface fixes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the interface, by their names")]
pub struct UploadRow {
    pub upload_id: String,
    pub version: u64,
    pub account: String,
    pub partner: String,
    pub path: String,
    pub state: String,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub sha256: Option<String>,
    #[serde(default)]
    pub content_type: Option<Value>,
    #[serde(default)]
    pub received_at: Option<String>,
    #[serde(default)]
    pub deliveries: Vec<Value>,
    /// Everything else that is told.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

impl UploadRow {
    /// Whether nothing more happens to it without a person.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.state.as_str(), "processed" | "failed" | "superseded" | "aborted" | "quarantined")
    }
    /// Accepted under its final name.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(
            self.state.as_str(),
            "committed" | "delivering" | "quarantined" | "processed" | "failed" | "superseded"
        )
    }
}

/// Every complete line of an events file, in its order. A last line without its line end is not yet an event.
///
/// # Errors
/// If the file can't be read or a complete line is no JSON.
pub fn events(path: &Path) -> Result<Vec<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    complete
        .lines()
        .enumerate()
        .map(|(n, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}: {line}", path.display(), n + 1))
        })
        .collect()
}

/// A text field of a JSON object, empty if it is not there.
#[must_use]
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
