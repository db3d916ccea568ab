//! Why a database was not opened.

use super::fault::{Fault, UNAUTHORIZED, code, said};
use crate::state::StateError;
use mongodb::error::{Error, ErrorKind};

/// Why a database was not opened: what is wrong and what to do. Names no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenFailure {
    /// What is wrong.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

/// Codes of a login that failed, and of a server that wants one.
const LOGIN: [i32; 3] = [11, 18, 8_000];

impl OpenFailure {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl From<Error> for OpenFailure {
    fn from(error: Error) -> Self {
        let what = said(&error);
        let login = "check user, password and authSource of the URI, and that the user exists";
        let remedy = match (error.kind.as_ref(), code(&error)) {
            (_, Some(code)) if LOGIN.contains(&code) => login,
            (_, Some(UNAUTHORIZED)) if what.contains("requires authentication") => {
                "put user and password into the URI (and the URI into a file or variable that the key refers to)"
            }
            (_, Some(UNAUTHORIZED)) => "give the user the role readWrite on this database",
            (ErrorKind::Authentication { .. }, _) => login,
            (ErrorKind::ServerSelection { .. }, _) if what.to_lowercase().contains("authentication") => login,
            (ErrorKind::ServerSelection { .. } | ErrorKind::Io(_), _) if what.contains("certificate") => {
                "name the authority that signed the server's certificate with tlsCAFile in the URI, and the server by a name in it"
            }
            (ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::Io(_), _) => {
                "start the server, or correct the address in the URI"
            }
            (ErrorKind::InvalidTlsConfig { .. }, _) => "correct the tls options of the URI",
            (ErrorKind::IncompatibleServer { .. }, _) => "use MongoDB 4.4 or newer",
            _ => "see the server's log for the cause",
        };
        Self::new(what, remedy)
    }
}

impl From<Fault> for OpenFailure {
    fn from(fault: Fault) -> Self {
        StateError::from(fault).into()
    }
}

impl From<StateError> for OpenFailure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Unavailable(why) => {
                Self::new(why, "see whether the server is up and reachable, and try again")
            }
            other => Self::new(other.to_string(), "see the server's log for the cause"),
        }
    }
}
