//! One change: the record, its audit entries and its outbox. Everything is serialised before the writer's turn comes, so
//! that its thread does nothing but SQL.

mod upload;

use super::{accounts, audit, directories, fault::Outcome, inbox, outbox, tokens};
use crate::state::StateError;
use dropgate_schemas::change::{Change, Subject};
use rusqlite::Connection;
use serde::Serialize;

/// A change, ready to be written.
pub(super) struct Prepared {
    subject: Written,
    audit: Vec<audit::Row>,
    outbox: Vec<outbox::Row>,
}

enum Written {
    Upload(Box<upload::Row>),
    Directory(Box<directories::Row>),
    Account(Box<accounts::Row>),
    Inbox(Box<inbox::Row>),
    Token(Box<tokens::Row>),
    Nothing,
}

impl Prepared {
    pub(super) fn new(change: Change) -> Result<Self, StateError> {
        let Change { subject, audit, outbox, durability: _ } = change;
        let audited = !audit.is_empty();
        Ok(Self {
            subject: match subject {
                Subject::Upload { upload, inline } => {
                    Written::Upload(Box::new(upload::Row::new(*upload, inline, audited)?))
                }
                Subject::Directory(directory) => {
                    Written::Directory(Box::new(directories::Row::new(directory)?))
                }
                Subject::Account(account) => Written::Account(Box::new(accounts::Row::new(account)?)),
                Subject::Inbox(entry) => Written::Inbox(Box::new(inbox::Row::new(entry)?)),
                Subject::Token(token) => Written::Token(Box::new(tokens::Row::new(token)?)),
                Subject::None => Written::Nothing,
            },
            audit: audit.iter().map(audit::Row::new).collect::<Result<_, _>>()?,
            outbox: outbox.iter().map(outbox::Row::new).collect::<Result<_, _>>()?,
        })
    }

    /// Writes it and returns the subject's new revision.
    pub(super) fn run(&self, db: &Connection) -> Outcome<u64> {
        let revision = match &self.subject {
            Written::Upload(row) => row.write(db)?,
            Written::Directory(row) => row.write(db)?,
            Written::Account(row) => row.write(db)?,
            Written::Inbox(row) => row.write(db)?,
            Written::Token(row) => row.write(db)?,
            Written::Nothing => 0,
        };
        self.audit.iter().try_for_each(|row| row.write(db))?;
        self.outbox.iter().try_for_each(|row| row.write(db))?;
        Ok(revision)
    }
}

/// Compares the revision that a subject carries with the stored one.
pub(super) fn check_revision(
    what: impl Fn() -> String,
    carried: u64,
    stored: Option<u64>,
) -> Result<(), StateError> {
    match stored {
        None if carried == 0 => Ok(()),
        None => Err(StateError::NotFound(what())),
        Some(stored) if stored == carried => Ok(()),
        Some(stored) if carried == 0 => Err(StateError::Conflict {
            what: what(),
            why: format!("it exists already, at revision {stored}"),
        }),
        Some(stored) => Err(StateError::Conflict {
            what: what(),
            why: format!("it is at revision {stored}, the change was based on {carried}"),
        }),
    }
}

/// A record as it is stored.
pub(super) fn document(record: &impl Serialize) -> Result<String, StateError> {
    serde_json::to_string(record)
        .map_err(|e| StateError::Rejected(format!("the record can't be serialised: {e}")))
}
