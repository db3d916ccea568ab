//! The log of events: one numbering for all, one for each partner, both without a gap. The unique indexes give the numbers:
//! whoever finds the next one taken reads again and takes the one after it. A batch is inserted in order and stops at the
//! first failure, so what was inserted of it has no gap either. Mostly one process appends, and goes on from the numbers that
//! it gave last.

use super::{
    MOST,
    document::{self, integer, number, text},
    fault::{Fault, Outcome},
    open::{Database, durable},
    placing::last,
};
use crate::state::{LoggedEvent, StateError};
use dropgate_schemas::{account::PartnerName, event::Event, id::EventId};
use futures::TryStreamExt as _;
use mongodb::{
    bson::{Document, doc},
    options::ReadConcern,
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The last numbers that this process gave, for as long as nobody else appended.
#[derive(Default)]
pub(super) struct Ends(Mutex<Option<Last>>);

struct Last {
    position: u64,
    sequences: HashMap<String, u64>,
}

/// Partners whose last numbers are remembered at most; over that all are looked for again.
const PARTNERS: usize = 10_000;

/// Digits of a sequence number.
const DIGITS: usize = 20;

/// Appends events, each once, and returns them with their numbers.
pub(super) async fn log(db: &Database, events: &[Event]) -> Result<Vec<LoggedEvent>, StateError> {
    let mut logged = HashMap::new();
    for events in events.chunks(MOST) {
        append(db, events, &mut logged).await?;
    }
    let missing = |event: &Event| StateError::Corrupt(format!("event {} is not in the log", event.id));
    events.iter().map(|event| logged.get(&event.id).cloned().ok_or_else(|| missing(event))).collect()
}

async fn append(
    db: &Database,
    events: &[Event],
    logged: &mut HashMap<EventId, LoggedEvent>,
) -> Result<(), StateError> {
    let mut patience = db.patience();
    loop {
        let fault = match try_append(db, events, logged).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        patience
            .wait(match fault {
                Fault::Duplicate(why) => Fault::Unknown(format!("too many log events at once: {why}")),
                Fault::Unknown(why) => Fault::Unknown(why),
                other => return Err(other.into()),
            })
            .await?;
    }
}

async fn try_append(
    db: &Database,
    events: &[Event],
    logged: &mut HashMap<EventId, LoggedEvent>,
) -> Outcome<()> {
    known(db, events, logged).await?;
    // Put back once what goes on from it is there: somebody else's events make the insertion fail, and all is looked for.
    let ends = lock(&db.log_ends).take();
    let Last { mut position, mut sequences } = match ends {
        Some(last) => last,
        None => Last { position: last(db, &db.event_log).await?, sequences: HashMap::new() },
    };
    let mut fresh: HashMap<EventId, LoggedEvent> = HashMap::new();
    let mut rows = Vec::new();
    for event in events {
        if logged.contains_key(&event.id) || fresh.contains_key(&event.id) {
            continue;
        }
        let partner = event.partner.as_str();
        let sequence = match sequences.get(partner) {
            Some(last) => last + 1,
            None => last_of(db, partner).await? + 1,
        };
        sequences.insert(partner.to_owned(), sequence);
        position += 1;
        let event = Event { sequence: format!("{sequence:0DIGITS$}"), ..event.clone() };
        rows.push(doc! {
            "_id": integer(position),
            "event_id": event.id.to_string(),
            "partner": partner,
            "sequence": integer(sequence),
            "record": document::write(&event)?,
        });
        fresh.insert(event.id, LoggedEvent { position, event });
    }
    if rows.is_empty() {
        *lock(&db.log_ends) = Some(Last { position, sequences });
        return Ok(());
    }
    // Durable: a position that was published must never be given to another event.
    let insert = db.event_log.insert_many(rows).ordered(true).write_concern(durable());
    db.command(insert.into_future()).await?;
    logged.extend(fresh);
    if sequences.len() <= PARTNERS {
        *lock(&db.log_ends) = Some(Last { position, sequences });
    }
    Ok(())
}

fn lock(ends: &Ends) -> MutexGuard<'_, Option<Last>> {
    ends.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of the events that are in the log, with their numbers.
async fn known(db: &Database, events: &[Event], logged: &mut HashMap<EventId, LoggedEvent>) -> Outcome<()> {
    let ids: Vec<String> = events
        .iter()
        .filter(|event| !logged.contains_key(&event.id))
        .map(|event| event.id.to_string())
        .collect();
    // Confirmed ones only: what another relay has just inserted is found at the next try.
    let find = db.event_log.find(doc! { "event_id": { "$in": ids } }).max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    for stored in found {
        let event = read(stored)?;
        logged.insert(event.event.id, event);
    }
    Ok(())
}

/// The last sequence number of a partner; 0 if there is none. What is not confirmed yet counts too.
async fn last_of(db: &Database, partner: &str) -> Outcome<u64> {
    let last = db
        .event_log
        .find_one(doc! { "partner": partner })
        .sort(doc! { "sequence": -1 })
        .projection(doc! { "sequence": 1 })
        .read_concern(ReadConcern::local());
    let last = db.command(last.into_future()).await?;
    Ok(last.map_or(Ok(0), |last| number(&last, "sequence"))?)
}

fn read(stored: Document) -> Result<LoggedEvent, StateError> {
    let position = number(&stored, "_id")?;
    let id = text(&stored, "event_id")?.to_owned();
    let event = document::read(stored, "record", &format!("event {id}"))?;
    Ok(LoggedEvent { position, event })
}

/// Events after a position, of one partner or of all.
pub(super) async fn after(
    db: &Database,
    position: u64,
    partner: Option<&PartnerName>,
    limit: usize,
) -> Outcome<Vec<LoggedEvent>> {
    let limit = limit.min(MOST);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut which = doc! { "_id": { "$gt": integer(position) } };
    if let Some(partner) = partner {
        which.insert("partner", partner.as_str());
    }
    let find = db
        .event_log
        .find(which)
        .sort(doc! { "_id": 1 })
        .limit(integer(limit as u64))
        .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
        .max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.into_iter().map(|stored| Ok(read(stored)?)).collect()
}

/// How far a reader has come.
pub(super) async fn cursor(db: &Database, reader: &str) -> Outcome<u64> {
    let find = db.cursors.find_one(doc! { "_id": reader });
    let found = db.command(find.into_future()).await?;
    Ok(found.map_or(Ok(0), |stored| number(&stored, "position"))?)
}

/// Moves a reader on, never back.
pub(super) async fn advance(db: &Database, reader: &str, position: u64) -> Outcome<()> {
    db.upsert(&db.cursors, doc! { "_id": reader }, doc! { "$max": { "position": integer(position) } }).await
}
