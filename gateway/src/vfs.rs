//! Decides what may happen where. Every permission check of the tree is here: the SFTP engine speaks, ingest moves
//! bytes, and both ask this module first. No path of a client becomes a path of the host.

pub mod attributes;
pub mod directories;
pub mod listing;
pub mod lookup;
pub mod naming;
pub mod open;
pub mod remove;
pub mod rename;

use crate::session::SessionFacts;
use dropgate_backends::{StateError, StateStore};
use dropgate_schemas::path::{PathError, VirtualPath};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Why a request is not carried out. The text is for the partner: what, why, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name does not exist.
    #[error("{0}")]
    NoSuchFile(String),
    /// Not allowed here, whatever the state.
    #[error("{0}")]
    Denied(String),
    /// Not possible now, for the reason given.
    #[error("{0}")]
    Failure(String),
    /// A backend does not answer; nothing was lost, the client can try again.
    #[error("{0}")]
    Unavailable(String),
    /// The name breaks a naming rule.
    #[error("{0}")]
    Name(#[from] PathError),
    /// Somebody else changed the same thing at the same moment, several times over.
    #[error("another session is changing the same name: try again in a moment")]
    Conflict,
    /// This server never does that.
    #[error("{0}")]
    Unsupported(String),
    /// No such handle, or not for this request.
    #[error("the handle is not open, or not of the kind this request needs")]
    BadHandle,
}

impl Refusal {
    /// The name does not exist.
    #[must_use]
    pub fn missing(path: &VirtualPath) -> Self {
        Self::NoSuchFile(format!("{path} does not exist"))
    }
    /// Not allowed.
    pub fn denied(text: impl Into<String>) -> Self {
        Self::Denied(text.into())
    }
    /// Not possible now.
    pub fn failure(text: impl Into<String>) -> Self {
        Self::Failure(text.into())
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Conflict { .. } | StateError::NotFound(_) => Self::Conflict,
            StateError::Unavailable(why) | StateError::Rejected(why) | StateError::Corrupt(why) => {
                tracing::error!(why, "the state store failed a request");
                Self::Unavailable(
                    "the server can't reach its database: try again in a few minutes".to_owned(),
                )
            }
            StateError::Full(why) => {
                tracing::error!(why, "the state store is full");
                Self::Unavailable("no space on the server: try again later".to_owned())
            }
        }
    }
}

/// One account's tree, as one session sees it.
pub struct Tree {
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) facts: Arc<SessionFacts>,
    /// Keys of paths this session had accepted: they keep answering under `/upload` after delivery moved them.
    accepted: Mutex<HashSet<String>>,
}

/// So many names a session remembers as its own; beyond that the rule for other sessions (60 s) holds.
const MAX_REMEMBERED: usize = 10_000;

impl Tree {
    /// The tree of the account that `facts` tells of.
    #[must_use]
    pub fn new(state: Arc<dyn StateStore>, facts: Arc<SessionFacts>) -> Self {
        Self { state, facts, accepted: Mutex::new(HashSet::new()) }
    }

    /// Notes that this session had `path` accepted.
    pub(crate) fn remember(&self, path: &VirtualPath) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() < MAX_REMEMBERED {
            accepted.insert(path.key().to_owned());
        }
    }

    /// Whether this session had `path` accepted.
    pub(crate) fn remembers(&self, path: &VirtualPath) -> bool {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).contains(path.key())
    }
}
