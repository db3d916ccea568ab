//! Why a database file was not opened.

use super::fault::Fault;
use crate::state::StateError;
use std::io;

/// Why a database file was not opened. Nothing in it was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenFailure {
    /// Whether what is in the file is at fault.
    pub(crate) corrupt: bool,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl OpenFailure {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { corrupt: false, what: what.into(), remedy: remedy.into() }
    }
}

impl From<StateError> for OpenFailure {
    fn from(error: StateError) -> Self {
        let (corrupt, what, remedy) = match error {
            StateError::Corrupt(why) => (
                true,
                why,
                "put back a backup of it, or move it away together with the files beside it whose names begin with its \
                 name, to begin with an empty one (its records are then missing)",
            ),
            StateError::Full(why) => (false, why, "make room on that file system"),
            StateError::Unavailable(why) => {
                (false, why, "see which process holds it or what ails the disk, and try again")
            }
            StateError::Rejected(why) => (false, why, "set the key to another place, or see to the cause"),
            StateError::Conflict { .. } | StateError::NotFound(_) => (false, error.to_string(), "try again"),
        };
        Self { corrupt, what, remedy: remedy.to_owned() }
    }
}

impl From<Fault> for OpenFailure {
    fn from(fault: Fault) -> Self {
        StateError::from(fault).into()
    }
}

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        Fault::from(error).into()
    }
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> Self {
        Fault::from(error).into()
    }
}
