//! What the driver's errors mean for a caller: above all whether a write may have been made.

use crate::state::StateError;
use mongodb::error::{Error, ErrorKind, RETRYABLE_WRITE_ERROR, WriteFailure};

/// Why a command to the server failed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A unique index has the value already.
    Duplicate(String),
    /// It never reached the server.
    NotSent(String),
    /// It may or may not have been carried out.
    Unknown(String),
    /// It was not carried out, and won't be.
    Refused(StateError),
}

/// What a command to the server comes to.
pub(super) type Outcome<T> = Result<T, Fault>;

/// A unique index has the value already.
pub(super) const DUPLICATE_KEY: i32 = 11_000;
/// The user may not do that.
pub(super) const UNAUTHORIZED: i32 = 13;
const FULL: [i32; 2] = [14_031, 12_501];
const TOO_LARGE: [i32; 3] = [10_334, 17_419, 17_420];
/// Interrupted, stepping down, shutting down, timed out, conflicting with another write: the next try may go better.
const PASSING: [i32; 21] =
    [6, 7, 43, 50, 63, 64, 79, 89, 91, 112, 133, 134, 175, 189, 202, 237, 262, 9_001, 10_107, 11_600, 11_602];
const PASSING_TOO: [i32; 4] = [13_435, 13_436, 290, 384];

impl Fault {
    /// Nobody answered in time.
    pub(super) fn late(limit: std::time::Duration) -> Self {
        Self::Unknown(format!("MongoDB did not answer within {} s", limit.as_secs_f32()))
    }
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let said = said(&error);
        if let Some(code) = code(&error) {
            return match code {
                DUPLICATE_KEY => Self::Duplicate(said),
                code if FULL.contains(&code) => Self::Refused(StateError::Full(said)),
                code if TOO_LARGE.contains(&code) => {
                    Self::Refused(StateError::Rejected(format!("the record is too large: {said}")))
                }
                code if PASSING.contains(&code) || PASSING_TOO.contains(&code) => Self::Unknown(said),
                _ if error.contains_label(RETRYABLE_WRITE_ERROR) => Self::Unknown(said),
                _ => Self::Refused(StateError::Rejected(said)),
            };
        }
        match error.kind.as_ref() {
            // The write was made, but is not known to be on enough servers.
            ErrorKind::Write(WriteFailure::WriteConcernError(_))
            | ErrorKind::InsertMany(_)
            | ErrorKind::Io(_) => Self::Unknown(said),
            ErrorKind::ServerSelection { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Authentication { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::Shutdown => Self::NotSent(said),
            ErrorKind::BsonDeserialization(_) => Self::Refused(StateError::Corrupt(said)),
            ErrorKind::InvalidArgument { .. } | ErrorKind::BsonSerialization(_) => {
                Self::Refused(StateError::Rejected(said))
            }
            _ => Self::Unknown(said),
        }
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSent(why) | Fault::Unknown(why) => Self::Unavailable(why),
            Fault::Duplicate(why) => Self::Rejected(format!("MongoDB has it already: {why}")),
            Fault::Refused(error) => error,
        }
    }
}

/// The server's code, of errors that it answered with.
pub(super) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(e) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        ErrorKind::InsertMany(e) => e.write_errors.as_ref()?.first().map(|e| e.code),
        _ => None,
    }
}

/// What was said, in one line and without the values of records that servers put into their messages.
pub(super) fn said(error: &Error) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::Command(e) => format!("{} (code {})", e.message, e.code),
        ErrorKind::Write(WriteFailure::WriteError(e)) => format!("{} (code {})", e.message, e.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => {
            format!("the write is not confirmed: {} (code {})", e.message, e.code)
        }
        ErrorKind::InsertMany(e) => match (e.write_errors.as_deref(), &e.write_concern_error) {
            (Some([first, ..]), _) => format!("{} (code {})", first.message, first.code),
            (_, Some(e)) => format!("the write is not confirmed: {} (code {})", e.message, e.code),
            _ => "the insertion failed".to_owned(),
        },
        other => other.to_string(),
    };
    let text = text.split(" dup key:").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}
