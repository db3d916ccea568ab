//! Errors of SQLite, as what the caller can do about them.

use crate::state::StateError;
use rusqlite::{Error, ErrorCode, ffi};
use std::io;

/// What can go wrong while a statement runs: SQLite's own error, or an answer that the port has a name for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite says no.
    Sql(Error),
    /// We do.
    State(StateError),
}

/// What work on a connection comes to.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl Fault {
    /// Somebody holds a lock that we would have had to wait for.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy),
            Self::State(_) => false,
        }
    }

    /// The error of a sync that was refused: what the file holds is not known any more.
    pub(crate) fn failed_sync(&self) -> Option<io::Error> {
        match self {
            Self::Sql(error) => match error.sqlite_extended_error_code() {
                Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => {
                    Some(io::Error::other(error.to_string()))
                }
                Some(_) | None => None,
            },
            Self::State(_) => None,
        }
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::State(error) => error,
            Fault::Sql(error) => from_sql(&error),
        }
    }
}

fn from_sql(error: &Error) -> StateError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StateError::Full(text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StateError::Unavailable(format!("another process holds its lock: {text}"))
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::CannotOpen
            | ErrorCode::SchemaChanged,
        ) => StateError::Unavailable(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StateError::Corrupt(text),
        Some(ErrorCode::ConstraintViolation) => {
            StateError::Conflict { what: "a record".to_owned(), why: text }
        }
        // Read-only file, too big a value, or our own mistake: trying again won't help.
        Some(_) => StateError::Rejected(text),
        // Not from the engine: a column that holds what it should not.
        None => StateError::Corrupt(text),
    }
}
