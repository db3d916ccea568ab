//! Entries ride in the documents of their records until they are placed: audit entries at their positions in the trail,
//! follow-ups in the order of the outbox. Only then are they taken out of the record.
//!
//! Whoever reads the trail or the outbox places first, so that he sees every write that returned before; and every process
//! places in passing, so that documents stay small. Any number may do it at once: an entry has one id, a position is given
//! once, and of two that want the same the second takes the next.

use super::{
    document::{integer, number, text},
    fault::{Fault, Outcome},
    open::{Database, hasty, visible},
};
use crate::state::StateError;
use futures::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{Bson, Document, doc},
    options::ReadConcern,
};
use rand::RngExt as _;
use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

/// Documents that are placed together.
const BATCH: usize = 100;
/// Most batches of one pass: far more than ever wait, so that it ends even where others write faster.
const BATCHES: usize = 1_000;
/// How long after a change of its own a process places in passing, more or less, so that not all of them do it at once.
const IN_PASSING: Duration = Duration::from_secs(8);
/// What is placed in passing is so old: where a relay runs, it is about to place what is newer, and two that place the same
/// get in each other's way. Shorter than any wait for it.
const LEFT: Duration = Duration::from_secs(3);
/// Pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Placing {
    /// When the last pass began that was finished.
    finished: Mutex<Option<Instant>>,
    wanted: Arc<Notify>,
    stopped: CancellationToken,
    ends: Ends,
}

/// The last positions that this process knows of: mostly nobody else went on from them, so the end need not be looked for. 0
/// where it must be.
#[derive(Default)]
struct Ends {
    audit: AtomicU64,
    outbox: AtomicU64,
}

impl Placing {
    /// Starts placing in passing; it ends with [`Self::stop`], or with the database.
    pub(super) fn start(&self, db: &Arc<Database>) {
        let (wanted, stopped, db) = (Arc::clone(&self.wanted), self.stopped.clone(), Arc::downgrade(db));
        tokio::spawn(async move { stopped.run_until_cancelled(in_passing(&wanted, &db)).await });
    }

    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    /// There is something to place, soon.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Places everything that was written before the call. Those who ask at the same time share a pass.
    pub(super) async fn place(&self, db: &Database) -> Result<(), StateError> {
        let asked = Instant::now();
        let mut finished = self.finished.lock().await;
        if finished.is_some_and(|begun| begun > asked) {
            return Ok(());
        }
        let begun = Instant::now();
        all(db, doc! { "$gt": "" }).await?;
        *finished = Some(begun);
        Ok(())
    }

    /// Places what nobody has placed for a while.
    async fn place_what_is_left(&self, db: &Database) -> Result<(), StateError> {
        let _turn = self.finished.lock().await;
        all(db, doc! { "$gt": "", "$lt": token_of(SystemTime::now() - LEFT) }).await
    }
}

/// Places the entries of all documents whose token is among these.
async fn all(db: &Database, tokens: Document) -> Result<(), StateError> {
    let tokens = &tokens;
    for _ in 0..BATCHES {
        if !db.insist(|| batch(db, tokens)).await? {
            break;
        }
    }
    Ok(())
}

/// The least token that a write can have at this moment: tokens begin with the time at which they were made.
fn token_of(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid().to_string()
}

async fn in_passing(wanted: &Notify, db: &Weak<Database>) {
    loop {
        wanted.notified().await;
        let pause = IN_PASSING.mul_f64(rand::rng().random_range(0.5..=1.5));
        tokio::time::sleep(pause).await;
        let Some(db) = db.upgrade() else { return };
        if let Err(error) = db.placing.place_what_is_left(&db).await {
            tracing::debug!(%error, "entries were not placed in passing; whoever reads them places them");
            tokio::time::sleep(AFTER_FAILURE).await;
            db.placing.wake();
        }
    }
}

/// A document with entries to place.
struct Holder {
    token: String,
    audit: Vec<Document>,
    outbox: Vec<Document>,
}

/// Places the entries of up to [`BATCH`] documents of each kind; true if there may be more.
async fn batch(db: &Database, which: &Document) -> Outcome<bool> {
    let (uploads, directories, accounts, inbox, operators, pending) = tokio::try_join!(
        holders(db, &db.uploads, which),
        holders(db, &db.directories, which),
        holders(db, &db.accounts, which),
        holders(db, &db.inbox, which),
        holders(db, &db.tokens, which),
        holders(db, &db.pending, which),
    )?;
    let all = [&uploads, &directories, &accounts, &inbox, &operators, &pending];
    let more = all.iter().any(|some| some.len() >= BATCH);
    let tokens = |of: &[Holder]| of.iter().map(|holder| holder.token.clone()).collect::<Vec<_>>();
    let (uploaded, listed, known) = (tokens(&uploads), tokens(&directories), tokens(&accounts));
    let (told, held, gone) = (tokens(&inbox), tokens(&operators), tokens(&pending));
    let (mut audit, mut outbox) = (Vec::new(), Vec::new());
    for holder in [uploads, directories, accounts, inbox, operators, pending].into_iter().flatten() {
        audit.push(holder.audit);
        outbox.push(holder.outbox);
    }
    let ends = &db.placing.ends;
    tokio::try_join!(
        append(db, &db.audit, &ends.audit, in_order(audit)),
        append(db, &db.outbox, &ends.outbox, in_order(outbox)),
    )?;
    // A document that was changed since has another token, and keeps its entries for the next pass. This write confirms what
    // was appended before it, too.
    tokio::try_join!(
        empty(db, &db.uploads, uploaded),
        empty(db, &db.directories, listed),
        empty(db, &db.accounts, known),
        empty(db, &db.inbox, told),
        empty(db, &db.tokens, held),
        remove(db, gone),
    )?;
    Ok(more)
}

/// Takes entries that were placed out of their documents.
async fn empty(db: &Database, collection: &Collection<Document>, tokens: Vec<String>) -> Outcome<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let placed = doc! { "unplaced": { "$in": tokens } };
    let nothing = doc! { "$unset": { "unplaced": 1, "audit": 1, "outbox": 1 } };
    let update = collection.update_many(placed, nothing).write_concern(visible());
    db.command(update.into_future()).await.map(drop)
}

/// Removes documents that held nothing but entries that were placed.
async fn remove(db: &Database, tokens: Vec<String>) -> Outcome<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let placed = doc! { "unplaced": { "$in": tokens } };
    let delete = db.pending.delete_many(placed).write_concern(visible());
    db.command(delete.into_future()).await.map(drop)
}

async fn holders(
    db: &Database,
    collection: &Collection<Document>,
    tokens: &Document,
) -> Outcome<Vec<Holder>> {
    let find = collection
        .find(doc! { "unplaced": tokens })
        .projection(doc! { "_id": 0, "unplaced": 1, "audit": 1, "outbox": 1 })
        .sort(doc! { "unplaced": 1 })
        .limit(integer(BATCH as u64))
        .read_concern(ReadConcern::local())
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found
        .into_iter()
        .map(|mut stored| {
            Ok(Holder {
                token: text(&stored, "unplaced")?.to_owned(),
                audit: entries(&mut stored, "audit"),
                outbox: entries(&mut stored, "outbox"),
            })
        })
        .collect()
}

fn entries(stored: &mut Document, field: &str) -> Vec<Document> {
    match stored.remove(field) {
        Some(Bson::Array(entries)) => entries
            .into_iter()
            .filter_map(|entry| match entry {
                Bson::Document(entry) => Some(entry),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The entries of several documents in one order: those of one document as they stand there, and otherwise by their ids, which
/// tell when they were made.
fn in_order(holders: Vec<Vec<Document>>) -> Vec<Document> {
    let mut all = Vec::new();
    for (number, entries) in holders.into_iter().enumerate() {
        let mut latest = String::new();
        for entry in entries {
            let id = entry.get_str("entry").unwrap_or_default();
            if id > latest.as_str() {
                id.clone_into(&mut latest);
            }
            all.push((latest.clone(), number, entry));
        }
    }
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all.into_iter().map(|(_, _, entry)| entry).collect()
}

/// Appends entries at the end of a numbered collection, each once, in this order.
async fn append(
    db: &Database,
    to: &Collection<Document>,
    end: &AtomicU64,
    mut entries: Vec<Document>,
) -> Outcome<()> {
    let mut patience = db.patience();
    // Passes take turns within the process; another process makes the insertion fail, and then the end is looked for from there.
    let mut known_end = end.swap(0, Ordering::AcqRel);
    while !entries.is_empty() {
        if known_end == 0 {
            known_end = last(db, to).await?;
        }
        let mut position = known_end;
        for entry in &mut entries {
            position += 1;
            entry.insert("_id", integer(position));
        }
        let insert = to.insert_many(&entries).ordered(true).write_concern(hasty());
        let fault = match db.command(insert.into_future()).await {
            Ok(_) => {
                end.store(position, Ordering::Release);
                return Ok(());
            }
            Err(fault @ (Fault::Duplicate(_) | Fault::Unknown(_))) => fault,
            Err(fault) => return Err(fault),
        };
        // Somebody took the position, or placed the entry, or part of it was done: what is left to do?
        let known = known(db, to, &entries).await?;
        entries.retain(|entry| entry.get_str("entry").is_ok_and(|id| !known.contains(id)));
        known_end = end_after(db, to, known_end).await?;
        patience
            .wait(Fault::Unknown(match fault {
                Fault::Duplicate(why) => format!("too many write to {} at once: {why}", to.name()),
                Fault::Unknown(why) | Fault::NotSent(why) => why,
                Fault::Refused(error) => error.to_string(),
            }))
            .await?;
    }
    end.store(known_end, Ordering::Release);
    Ok(())
}

/// Positions that are looked at in one go.
const AHEAD: u64 = 64;

/// How far the positions after a known one are taken without a gap. What is not confirmed yet counts too.
async fn end_after(db: &Database, of: &Collection<Document>, known: u64) -> Outcome<u64> {
    let mut end = known;
    loop {
        let next: Vec<i64> = (1..=AHEAD).map(|ahead| integer(end.saturating_add(ahead))).collect();
        let find = of
            .find(doc! { "_id": { "$in": next } })
            .projection(doc! { "_id": 1 })
            .read_concern(ReadConcern::local())
            .max_time(db.attempt());
        let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
        let taken: HashSet<u64> =
            found.iter().map(|stored| number(stored, "_id")).collect::<Result<_, _>>()?;
        let before = end;
        while taken.contains(&end.saturating_add(1)) {
            end = end.saturating_add(1);
        }
        if end.saturating_sub(before) < AHEAD {
            return Ok(end);
        }
    }
}

/// The highest position; 0 if there is none. What is not confirmed yet counts too: its number must not be given again.
pub(super) async fn last(db: &Database, of: &Collection<Document>) -> Outcome<u64> {
    let last = of
        .find_one(Document::new())
        .sort(doc! { "_id": -1 })
        .projection(doc! { "_id": 1 })
        .read_concern(ReadConcern::local());
    let last = db.command(last.into_future()).await?;
    Ok(last.map_or(Ok(0), |last| number(&last, "_id"))?)
}

async fn known(db: &Database, of: &Collection<Document>, entries: &[Document]) -> Outcome<HashSet<String>> {
    let ids: Vec<&str> = entries.iter().filter_map(|entry| entry.get_str("entry").ok()).collect();
    let find = of
        .find(doc! { "entry": { "$in": ids } })
        .projection(doc! { "_id": 0, "entry": 1 })
        .read_concern(ReadConcern::local())
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    Ok(found.into_iter().filter_map(|stored| stored.get_str("entry").ok().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_later_writes_are_greater() {
        let before = token_of(SystemTime::now());
        let token = uuid::Uuid::now_v7().to_string();
        let after = token_of(SystemTime::now() + Duration::from_millis(2));
        assert!(before <= token && token < after, "{before} {token} {after}");
        assert!(LEFT < IN_PASSING.mul_f64(0.5));
    }

    #[test]
    fn entries_are_ordered_by_id_but_never_against_their_document() {
        let entries = |ids: &[&str]| ids.iter().map(|id| doc! { "entry": *id }).collect::<Vec<_>>();
        // The second entry of the first document was made by a host whose clock is slow.
        let ordered = in_order(vec![entries(&["5", "2", "7"]), entries(&["3", "6"]), Vec::new()]);
        let ids: Vec<&str> = ordered.iter().map(|entry| entry.get_str("entry").unwrap()).collect();
        assert_eq!(ids, ["3", "5", "2", "6", "7"]);
    }
}
