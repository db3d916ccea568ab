//! One change: the record, its audit entries and its outbox, as one write of one document. The entries ride in the document
//! until they are placed ([`super::placing`]).
//!
//! Every write carries a token of its own. A write whose outcome is unknown is simply made again: it is conditional, so it
//! can't be made twice, and if it does not hold the second time, the token tells whether the first one is the reason.

mod subject;

pub(super) use subject::path_id;

use super::{
    audit,
    document::{integer, number, text},
    fault::{Fault, Outcome},
    open::{Database, durable, visible},
    outbox,
};
use crate::state::StateError;
use dropgate_schemas::{
    change::{Change, Durability, Subject},
    id::OutboxId,
    upload::UploadState,
};
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
    options::{ReadConcern, WriteConcern},
};
use std::collections::HashSet;
use uuid::Uuid;

/// A change, ready to be written.
pub(super) struct Prepared {
    target: Target,
    id: String,
    /// For people.
    what: String,
    /// What it is based on.
    revision: u64,
    /// The state it leads to, of an upload.
    state: Option<UploadState>,
    /// What is stored of the subject.
    fields: Document,
    /// What must not be stored of it any more.
    absent: Vec<&'static str>,
    audit: Vec<Bson>,
    outbox: Vec<Bson>,
    /// Tells this write from every other.
    token: String,
    concern: WriteConcern,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Uploads,
    Directories,
    Accounts,
    Inbox,
    Tokens,
    Pending,
}

/// What is stored, as far as it decides what may be written.
struct Stored {
    revision: u64,
    token: String,
    state: Option<UploadState>,
}

impl Prepared {
    pub(super) fn new(change: Change) -> Result<Self, StateError> {
        let Change { subject, audit, outbox, durability } = change;
        let mut ids: HashSet<OutboxId> = HashSet::new();
        if let Some(twice) = outbox.iter().find(|entry| !ids.insert(entry.id)) {
            return Err(StateError::Conflict {
                what: format!("outbox entry {}", twice.id),
                why: "it exists already".to_owned(),
            });
        }
        let token = Uuid::now_v7().to_string();
        let empty = Self {
            target: Target::Pending,
            id: token.clone(),
            what: "the entries".to_owned(),
            revision: 0,
            state: None,
            fields: Document::new(),
            absent: Vec::new(),
            audit: audit.iter().map(audit::document).collect::<Result<_, _>>()?,
            outbox: outbox.iter().map(outbox::document).collect::<Result<_, _>>()?,
            token,
            concern: match durability {
                Durability::Visible => visible(),
                Durability::Durable => durable(),
            },
        };
        match subject {
            Subject::Upload { upload, inline } => empty.about_upload(*upload, inline),
            Subject::Directory(directory) => empty.about_directory(directory),
            Subject::Account(account) => empty.about_account(account),
            Subject::Inbox(entry) => empty.about_inbox(entry),
            Subject::Token(token) => empty.about_token(token),
            Subject::None => Ok(empty),
        }
    }

    /// Whether there is something to place afterwards.
    pub(super) const fn has_entries(&self) -> bool {
        !self.audit.is_empty() || !self.outbox.is_empty()
    }

    /// Writes it and returns the subject's new revision.
    pub(super) async fn run(&self, db: &Database) -> Result<u64, StateError> {
        let revision = if self.target == Target::Pending { 0 } else { self.revision + 1 };
        if self.target == Target::Pending && !self.has_entries() {
            return Ok(revision);
        }
        if self.revision == 0 && self.state.is_some() && self.audit.is_empty() {
            // Refused in any case; only the reason is to be found.
            return Err(self.reason(self.stored(db, ReadConcern::local()).await?));
        }
        let mut patience = db.patience();
        let mut uncertain = false;
        loop {
            let fault = match self.write(db).await {
                Ok(true) => return Ok(revision),
                Ok(false) | Err(Fault::Duplicate(_)) => match self.explain(db, uncertain).await {
                    Ok(()) => return Ok(revision),
                    Err(fault) => fault,
                },
                Err(fault) => fault,
            };
            match fault {
                Fault::Unknown(_) => {
                    uncertain = true;
                    patience.wait(fault).await?;
                }
                // Something was sent before, and nobody knows what became of it.
                Fault::NotSent(_) if uncertain => patience.wait(fault).await?,
                other => return Err(other.into()),
            }
        }
    }

    /// Writes it if what it is based on still holds.
    async fn write(&self, db: &Database) -> Outcome<bool> {
        let collection = self.collection(db);
        if self.revision == 0 {
            let insert = collection.insert_one(self.new_document()).write_concern(self.concern.clone());
            db.command(insert.into_future()).await?;
            return Ok(true);
        }
        let update =
            collection.update_one(self.condition(), self.update()).write_concern(self.concern.clone());
        Ok(db.command(update.into_future()).await?.matched_count == 1)
    }

    fn new_document(&self) -> Document {
        let mut document = doc! { "_id": &self.id };
        document.extend(self.fields.clone());
        document.insert("write", &self.token);
        if self.has_entries() {
            document.insert("unplaced", &self.token);
        }
        if !self.audit.is_empty() {
            document.insert("audit", self.audit.clone());
        }
        if !self.outbox.is_empty() {
            document.insert("outbox", self.outbox.clone());
        }
        document
    }

    /// The revision, and for an upload the states from which an arrow leads to the new one; without an audit entry only the
    /// new one itself.
    fn condition(&self) -> Document {
        let mut condition = doc! { "_id": &self.id, "record.revision": integer(self.revision) };
        if let Some(after) = self.state {
            let from: Vec<&str> = UploadState::ALL
                .into_iter()
                .filter(|before| *before == after || (before.may_become(after) && !self.audit.is_empty()))
                .map(UploadState::as_str)
                .collect();
            condition.insert("record.state", doc! { "$in": from });
        }
        condition
    }

    fn update(&self) -> Document {
        let mut set = self.fields.clone();
        set.insert("write", &self.token);
        let mut push = Document::new();
        if self.has_entries() {
            set.insert("unplaced", &self.token);
        }
        if !self.audit.is_empty() {
            push.insert("audit", doc! { "$each": self.audit.clone() });
        }
        if !self.outbox.is_empty() {
            push.insert("outbox", doc! { "$each": self.outbox.clone() });
        }
        let mut update = doc! { "$set": set };
        if !push.is_empty() {
            update.insert("$push", push);
        }
        if !self.absent.is_empty() {
            let unset: Document =
                self.absent.iter().map(|field| ((*field).to_owned(), Bson::from(1))).collect();
            update.insert("$unset", unset);
        }
        update
    }

    /// Why the write did not hold: `Ok` if it is because an earlier try had made it.
    async fn explain(&self, db: &Database, uncertain: bool) -> Outcome<()> {
        if uncertain {
            // What is not on a majority of the servers yet must not be told as made.
            if self.was_made(db, self.stored(db, ReadConcern::majority()).await?).await? {
                return Ok(());
            }
        }
        let stored = self.stored(db, ReadConcern::local()).await?;
        match &stored {
            Some(stored) if uncertain && stored.token == self.token => {
                return Err(Fault::Unknown("the write is not on a majority of the servers yet".to_owned()));
            }
            None if self.revision == 0 && self.target == Target::Pending => {
                // Made by an earlier try, placed and removed since: nothing of it is lost, and placing it again changes nothing.
                return Err(Fault::Unknown("the entries are being placed".to_owned()));
            }
            _ => {}
        }
        if self.fits(stored.as_ref()) {
            // Then it was the unique index on paths.
            return Err(match self.taken(db).await? {
                Some(error) => Fault::Refused(error),
                None => Fault::Unknown(format!("{} was being changed by somebody else", self.what)),
            });
        }
        Err(Fault::Refused(self.reason(stored)))
    }

    /// Whether an earlier try of this write is among what was made of the subject.
    async fn was_made(&self, db: &Database, stored: Option<Stored>) -> Outcome<bool> {
        let Some(stored) = stored else { return Ok(false) };
        if stored.token == self.token {
            return Ok(true);
        }
        if stored.revision <= self.revision + 1 {
            return Ok(false);
        }
        // Others came after whoever made the revision: its entries tell who that was.
        let entry = self
            .audit
            .iter()
            .chain(&self.outbox)
            .find_map(|entry| entry.as_document()?.get_str("entry").ok());
        let Some(entry) = entry else {
            return Err(Fault::Refused(StateError::Unavailable(format!(
                "{} was changed by others since; whether this change was made before can't be told",
                self.what
            ))));
        };
        let waits = doc! { "_id": &self.id, "$or": [{ "audit.entry": entry }, { "outbox.entry": entry }] };
        let placed = doc! { "entry": entry };
        let (waits, in_audit, in_outbox) = tokio::try_join!(
            db.command(self.collection(db).find_one(waits).into_future()),
            db.command(db.audit.find_one(placed.clone()).into_future()),
            db.command(db.outbox.find_one(placed).into_future()),
        )?;
        Ok(waits.or(in_audit).or(in_outbox).is_some())
    }

    async fn stored(&self, db: &Database, concern: ReadConcern) -> Outcome<Option<Stored>> {
        let found = self
            .collection(db)
            .find_one(doc! { "_id": &self.id })
            .projection(doc! { "record.revision": 1, "record.state": 1, "write": 1 })
            .read_concern(concern);
        let Some(found) = db.command(found.into_future()).await? else { return Ok(None) };
        if self.target == Target::Pending {
            return Ok(Some(Stored { revision: 0, token: text(&found, "write")?.to_owned(), state: None }));
        }
        let corrupt = |e: &dyn std::fmt::Display| StateError::Corrupt(format!("{}: {e}", self.what));
        let record = found.get_document("record").map_err(|e| corrupt(&e))?;
        let state = match self.state {
            None => None,
            Some(_) => Some(text(record, "state")?.parse().map_err(|e: String| corrupt(&e))?),
        };
        Ok(Some(Stored {
            revision: number(record, "revision")?,
            token: text(&found, "write")?.to_owned(),
            state,
        }))
    }

    /// Whether the change could be made on what is stored.
    fn fits(&self, stored: Option<&Stored>) -> bool {
        match stored {
            None => self.revision == 0,
            Some(stored) => {
                self.revision == stored.revision
                    && self.revision > 0
                    && match (stored.state, self.state) {
                        (Some(before), Some(after)) => {
                            before == after || (before.may_become(after) && !self.audit.is_empty())
                        }
                        (_, None) | (None, _) => true,
                    }
            }
        }
    }

    /// Why the change can't be made on what is stored.
    fn reason(&self, stored: Option<Stored>) -> StateError {
        let what = self.what.clone();
        let Some(Stored { revision: at, state: before, .. }) = stored else {
            return match (self.revision, self.state) {
                (0, Some(after)) => self.unaudited(after),
                _ => StateError::NotFound(what),
            };
        };
        if self.revision == 0 {
            return StateError::Conflict { what, why: format!("it exists already, at revision {at}") };
        }
        if at != self.revision {
            let why = format!("it is at revision {at}, the change was based on {}", self.revision);
            return StateError::Conflict { what, why };
        }
        match (before, self.state) {
            (Some(before), Some(after)) if !before.may_become(after) => {
                StateError::Rejected(format!("{what} is {before} and can't become {after}"))
            }
            (_, Some(after)) => self.unaudited(after),
            (_, None) => StateError::Unavailable(format!("{what} was being changed by somebody else")),
        }
    }

    fn unaudited(&self, after: UploadState) -> StateError {
        StateError::Rejected(format!(
            "{} would become {after} without an audit entry: no state changes without one",
            self.what
        ))
    }

    fn collection<'a>(&self, db: &'a Database) -> &'a Collection<Document> {
        match self.target {
            Target::Uploads => &db.uploads,
            Target::Directories => &db.directories,
            Target::Accounts => &db.accounts,
            Target::Inbox => &db.inbox,
            Target::Tokens => &db.tokens,
            Target::Pending => &db.pending,
        }
    }
}
