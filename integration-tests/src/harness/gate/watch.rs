//! What a gate tells of itself, and waiting until it tells what is expected.

use super::Gate;
use crate::harness::{
    records::{self, UploadRow},
    until::{until, until_true},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// How long an accepted upload may take to its final state when nothing is in its way.
pub const SETTLE: Duration = Duration::from_secs(60);

impl Gate {
    /// All uploads as `uploads list --json` tells them.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn uploads(&self) -> Result<Vec<UploadRow>> {
        let value = self.cli.json(&["uploads", "list"]).await?;
        serde_json::from_value(value).context("uploads list --json")
    }

    /// The newest version of a path below `/upload`.
    ///
    /// # Errors
    /// If there is none.
    pub async fn upload(&self, account: &str, path: &str) -> Result<UploadRow> {
        self.uploads()
            .await?
            .into_iter()
            .filter(|u| u.account == account && u.path == path)
            .max_by_key(|u| u.version)
            .with_context(|| format!("no upload {path} of {account}"))
    }

    /// Waits until the newest version of a path is in `state`.
    ///
    /// # Errors
    /// If it is not in time.
    pub async fn upload_in(&self, account: &str, path: &str, state: &str) -> Result<UploadRow> {
        let look = || async {
            let row = self.upload(account, path).await?;
            ensure!(
                row.state == state,
                "{path} is {} instead of {state}: {:?}",
                row.state,
                row.rest.get("reason")
            );
            Ok(Some(row))
        };
        until(SETTLE, &format!("{path} to be {state}"), look).await
    }

    /// Waits until nothing is in flight: every upload in a final state, or unfinished and not being received.
    ///
    /// # Errors
    /// If it is not in time.
    pub async fn settled(&self) -> Result<Vec<UploadRow>> {
        until(SETTLE, "every accepted upload to reach its final state", || async {
            let rows = self.uploads().await?;
            let open: Vec<_> = rows.iter().filter(|u| u.is_accepted() && !u.is_settled()).collect();
            ensure!(open.is_empty(), "{} still in flight, the first {:?}", open.len(), open.first());
            Ok(Some(rows))
        })
        .await
    }

    /// Audit entries, oldest first.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn audit(&self, more: &[&str]) -> Result<Vec<Value>> {
        let mut args = vec!["audit", "list"];
        args.extend_from_slice(more);
        let value = self.cli.json(&args).await?;
        let mut entries = value.as_array().cloned().context("audit list --json prints no array")?;
        entries.sort_by_key(|e| e.get("position").and_then(Value::as_u64));
        Ok(entries)
    }

    /// Events so far.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        records::events(&self.data().join("events.ndjson"))
    }

    /// Waits until so many events of a type (`upload.delivered`) about a path are there.
    ///
    /// # Errors
    /// If they are not in time.
    pub async fn event_about(&self, kind: &str, path: &str, count: usize) -> Result<Vec<Value>> {
        let wanted = format!("dropgate.{kind}.v1");
        until(SETTLE, &format!("{count} {kind} about {path}"), || async {
            let mut found = self.events()?;
            found.retain(|e| records::text(e, "type") == wanted && records::text(e, "subject") == path);
            Ok((found.len() >= count).then_some(found))
        })
        .await
    }

    /// Waits until the log of a role has a line with `words`.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn logged(&self, role: &str, words: &str) -> Result<()> {
        let path = self.log(role);
        until_true(SETTLE, &format!("{words:?} in the log"), || async {
            Ok(String::from_utf8_lossy(&std::fs::read(&path)?).contains(words))
        })
        .await
    }
}
