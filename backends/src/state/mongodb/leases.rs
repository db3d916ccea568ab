//! Leases, heartbeats and reservations. Who holds a lease raises its counter; who wants it watches the counter and takes the
//! lease when that stood still for long enough on the watcher's own monotonic clock. No wall clocks are compared.

use super::{
    document::{date, integer, moment, number, text},
    fault::{Fault, Outcome},
    open::{Database, visible},
};
use crate::state::{
    Instance, StateError,
    lease::{Held, Observed},
};
use dropgate_schemas::{account::AccountName, id::InstanceId, path::VirtualPath, time::Timestamp};
use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use std::time::Duration;

enum Answer {
    Ours(u64),
    Theirs(Held),
    /// Somebody else changed it between our look and our hand.
    Again,
}

/// Takes or renews a lease.
pub(super) async fn take(
    db: &Database,
    observed: &Observed,
    name: &str,
    holder: InstanceId,
    ttl: Duration,
) -> Result<Option<u64>, StateError> {
    let expired = observed.expired(name, ttl);
    let answer = db.insist(move || async move {
        match acquire(db, name, holder, expired).await? {
            Answer::Again => Err(Fault::Unknown(format!("many want the lease {name} at once"))),
            answer => Ok(answer),
        }
    });
    match answer.await? {
        Answer::Ours(token) => {
            observed.forget(name);
            Ok(Some(token))
        }
        Answer::Theirs(lease) => {
            observed.note(name, lease);
            Ok(None)
        }
        Answer::Again => Ok(None),
    }
}

async fn acquire(db: &Database, name: &str, holder: InstanceId, expired: Option<Held>) -> Outcome<Answer> {
    let me = holder.to_string();
    let look = db.leases.find_one(doc! { "_id": name });
    let Some(stored) = db.command(look.into_future()).await? else {
        let lease = doc! { "_id": name, "holder": me, "token": 1_i64, "renewed": 1_i64 };
        let insert = db.leases.insert_one(lease).write_concern(visible());
        return match db.command(insert.into_future()).await {
            Ok(_) => Ok(Answer::Ours(1)),
            Err(Fault::Duplicate(_)) => Ok(Answer::Again),
            Err(fault) => Err(fault),
        };
    };
    let (token, renewed) = (number(&stored, "token")?, number(&stored, "renewed")?);
    let held_by = match stored.get("holder") {
        Some(Bson::String(holder)) => Some(parse(holder)?),
        _ => None,
    };
    let token = match held_by {
        Some(by) if by == holder => token,
        Some(by) => {
            let lease = Held { holder: *by.uuid().as_bytes(), renewed: integer(renewed) };
            if expired != Some(lease) {
                return Ok(Answer::Theirs(lease));
            }
            token + 1
        }
        // Given back.
        None => token + 1,
    };
    let seen = doc! {
        "_id": name, "holder": stored.get("holder").cloned().unwrap_or(Bson::Null), "renewed": integer(renewed),
    };
    let ours = doc! { "$set": { "holder": me, "token": integer(token), "renewed": integer(renewed + 1) } };
    let update = db.leases.update_one(seen, ours).write_concern(visible());
    let matched = db.command(update.into_future()).await?.matched_count;
    Ok(if matched == 1 { Answer::Ours(token) } else { Answer::Again })
}

/// Gives a lease back.
pub(super) async fn release(db: &Database, name: &str, holder: InstanceId) -> Outcome<()> {
    let held = doc! { "_id": name, "holder": holder.to_string() };
    let held = &held;
    db.insist(move || async move {
        let release = db.leases.update_one(held.clone(), doc! { "$set": { "holder": null } });
        db.command(release.write_concern(visible()).into_future()).await.map(drop)
    })
    .await
}

/// Raises the counter of an instance. Raised twice for one beat, it does no harm.
pub(super) async fn heartbeat(db: &Database, id: InstanceId, role: &str, node: &str) -> Outcome<()> {
    let beat = doc! {
        "$inc": { "beats": 1_i64 },
        "$set": { "role": role, "node": node, "seen_at": date(Timestamp::now()) },
    };
    db.upsert(&db.instances, doc! { "_id": id.to_string() }, beat).await
}

/// All instances.
pub(super) async fn instances(db: &Database) -> Outcome<Vec<Instance>> {
    let find = db.instances.find(doc! {}).sort(doc! { "_id": 1 }).max_time(db.attempt());
    let found: Vec<Document> = db.command(async { find.await?.try_collect().await }).await?;
    found.iter().map(|stored| Ok(read(stored)?)).collect()
}

fn read(stored: &Document) -> Result<Instance, StateError> {
    Ok(Instance {
        id: parse(text(stored, "_id")?)?,
        role: text(stored, "role")?.to_owned(),
        node: text(stored, "node")?.to_owned(),
        beats: number(stored, "beats")?,
        seen_at: moment(stored, "seen_at")?,
    })
}

fn parse(id: &str) -> Result<InstanceId, StateError> {
    id.parse().map_err(|_| StateError::Corrupt(format!("{id:?} is not the id of an instance")))
}

/// Reserves a key of a destination for a path.
pub(super) async fn reserve(
    db: &Database,
    destination: &str,
    key: &str,
    account: &AccountName,
    path: &VirtualPath,
) -> Outcome<bool> {
    let which = doc! { "destination": destination, "key": key };
    let mut row = which.clone();
    row.extend(doc! { "account": account.as_str(), "path_key": path.key() });
    let (which, row) = (&which, &row);
    db.insist(move || async move {
        let insert = db.key_reservations.insert_one(row).write_concern(visible());
        match db.command(insert.into_future()).await {
            Ok(_) => return Ok(true),
            Err(Fault::Duplicate(_)) => {}
            Err(fault) => return Err(fault),
        }
        let find = db.key_reservations.find_one(which.clone());
        match db.command(find.into_future()).await? {
            Some(found) => {
                Ok(text(&found, "account")? == account.as_str() && text(&found, "path_key")? == path.key())
            }
            None => Err(Fault::Unknown("the reservation is not on a majority of the servers yet".to_owned())),
        }
    })
    .await
}
