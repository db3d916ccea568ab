//! The client matrix: every client through the same cases, with the same look at the gate after each.
//!
//! A [`Client`] knows how one program or library is told to do a [`Step`], or why it can't. A [`Case`] says which steps it
//! takes and what must be true afterwards, whoever took them. What came of it is one row of `docs/clients.md`.

mod case;
pub mod clients;
mod row;
mod table;
mod trial;

pub use case::Case;
pub use row::{Cell, Row};
pub use table::Table;
pub use trial::{ACCOUNT, Stand};

use crate::harness::cli::Outcome;
use anyhow::Result;
use std::{
    future::Future,
    path::{Path, PathBuf},
};

/// One thing that a client is told to do. It is done when its program ends.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "`local` is a path on this machine, `remote` one at the gate, everywhere")]
pub enum Step<'a> {
    /// Upload a file, as the client does it when nothing else is asked for.
    Put { local: &'a Path, remote: &'a str },
    /// Upload a file and keep its modification time.
    PutWithTimes { local: &'a Path, remote: &'a str },
    /// Upload a file under a temp name and rename it.
    PutRenamed { local: &'a Path, remote: &'a str },
    /// Upload a file and print its size as the server then tells it.
    PutAndStat { local: &'a Path, remote: &'a str },
    /// Go on with an upload that broke off.
    Resume { local: &'a Path, remote: &'a str },
    /// Upload a directory with all that is in it; `remote` does not exist.
    PutTree { local: &'a Path, remote: &'a str },
    /// Upload several files at the same time.
    PutAtOnce { files: &'a [(PathBuf, String)] },
    /// Make `remote` hold what `local` does, with what the client has for that.
    Sync { local: &'a Path, remote: &'a str },
    /// Print names and sizes in a directory.
    List { remote: &'a str },
    /// Download a file.
    Get { remote: &'a str, local: &'a Path },
    /// Remove a file.
    Remove { remote: &'a str },
}

/// What a client said to a step.
#[derive(Debug)]
pub enum Answer {
    /// It was done or refused.
    Ended(Said),
    /// The client has no such thing: why.
    Cannot(&'static str),
}

/// How a step ended, as its user sees it.
#[derive(Debug)]
pub struct Said {
    /// Whether the client says that it went well.
    pub ok: bool,
    /// Everything that it printed.
    pub text: String,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(Said { ok: outcome.status.success(), text: outcome.all() })
    }
}

/// Whose words a user reads when the gate refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// The sentence of the gate.
    OfTheGate,
    /// Something of the client's own, which contains this.
    Own(&'static str),
}

/// One program or library.
pub trait Client {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// What a refusal looks like.
    fn words(&self) -> Words {
        Words::OfTheGate
    }
    /// The name under which it looks for the beginning of an upload that broke off.
    fn partial(&self, remote: &str) -> String {
        remote.to_owned()
    }
    /// Whether it says that an upload went well only after the answer to CLOSE.
    fn waits_for_close(&self) -> bool {
        true
    }
    /// Takes a step.
    ///
    /// # Errors
    /// If it can't be run or does not end in time; a refusal is no error.
    fn take(&self, step: Step<'_>) -> impl Future<Output = Result<Answer>>;
}
