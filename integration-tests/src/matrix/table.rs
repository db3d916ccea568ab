//! `docs/clients.md`: a row for each client, kept as the clients' own tests found it.

use super::{Case, Row};
use anyhow::{Context as _, Result, ensure};
use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// Set to anything: rows that differ are written instead of reported.
const UPDATE: &str = "UPDATE_CLIENTS";

/// What stands before the table.
const BEFORE: &str = "\
# What clients do

Each client goes through the same cases against a running Dropgate, and after each case the tests look at the records, the
digest, the entries and the events: one accepted version and one event for each file, no error after a good upload, no OK
after a bad one. Each row is what the client's own test found; a test that finds something else fails.
`UPDATE_CLIENTS=1 make clients` writes the rows anew.

WinSCP, FileZilla and Cyberduck are replayed, not run: their requests, in their order and with their pipelining, are sent by a
client of the tests. All others are the real programs and libraries, in the versions of Debian 12 or of the lock files in
`integration-tests/clients`. Those in the second part of the table are run by `make test-full` only.

| Case | What is done, and what must be true afterwards |
|---|---|
";

/// The document.
pub struct Table {
    path: PathBuf,
    order: &'static [&'static [&'static str]],
}

impl Table {
    /// The one of this repository; `order` has the names of the clients, in the parts of the table.
    #[must_use]
    pub fn new(order: &'static [&'static [&'static str]]) -> Self {
        Self { path: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clients.md")), order }
    }

    /// Compares a row with what the document says, or writes it there.
    ///
    /// # Errors
    /// If they differ, or the document can't be read or written.
    pub fn hold(&self, row: &Row) -> Result<()> {
        // Tests of one program; nobody else writes the document.
        static WRITING: Mutex<()> = Mutex::new(());
        let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::read_to_string(&self.path).unwrap_or_default();
        let found = row.lines();
        if lines_of(&now, row.client) == found {
            return Ok(());
        }
        if std::env::var_os(UPDATE).is_some() {
            return Ok(std::fs::write(&self.path, self.text(&now, Some(row))?)?);
        }
        anyhow::bail!(
            "docs/clients.md says of {}:\n{}\nbut it is ({UPDATE}=1 writes it):\n{}",
            row.client,
            lines_of(&now, row.client).join("\n"),
            found.join("\n")
        )
    }

    /// Checks that the document has a row for every client, and is otherwise as it would be written now.
    ///
    /// # Errors
    /// If it isn't.
    pub fn is_complete(&self) -> Result<()> {
        let now = std::fs::read_to_string(&self.path).with_context(|| self.path.display().to_string())?;
        for client in self.order.iter().copied().flatten() {
            ensure!(!lines_of(&now, client).is_empty(), "docs/clients.md has no row for {client}");
        }
        ensure!(
            now == self.text(&now, None)?,
            "docs/clients.md is not as it is written ({UPDATE}=1 writes it)"
        );
        Ok(())
    }

    /// The document with `row` in place of what `now` says of its client.
    fn text(&self, now: &str, row: Option<&Row>) -> Result<String> {
        let mut text = BEFORE.to_owned();
        for case in Case::ALL {
            writeln!(text, "| {} | {} |", case.heading(), case.meaning())?;
        }
        let mut remarks = Vec::new();
        for part in self.order {
            write!(text, "\n| Client |")?;
            for case in Case::ALL {
                write!(text, " {} |", case.heading())?;
            }
            writeln!(text, "\n|{}", "---|".repeat(Case::ALL.len() + 1))?;
            for client in *part {
                let lines = match row {
                    Some(row) if row.client == *client => row.lines(),
                    Some(_) | None => lines_of(now, client),
                };
                if let Some((line, rest)) = lines.split_first() {
                    writeln!(text, "{line}")?;
                    remarks.extend_from_slice(rest);
                }
            }
        }
        writeln!(text, "\n¹ What a client can't, or does in its own way:\n\n{}", remarks.join("\n"))?;
        Ok(text)
    }
}

/// What a document says of a client: its line of the table first, then its remarks.
fn lines_of(document: &str, client: &str) -> Vec<String> {
    let (line, remark) = (format!("| {client} | "), format!("- {client}, "));
    let of = |start: &str| {
        document.lines().filter(|l| l.starts_with(start)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    [of(&line), of(&remark)].concat()
}
