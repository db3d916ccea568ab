//! Random changes and queries, against a naive model.

use super::{
    Fixture,
    dice::Dice,
    model, queries,
    samples::{self, change, delivery, path, upload},
};
use crate::state::{StateError, UploadOrder, UploadQuery};
use dropgate_schemas::{
    change::Durability,
    delivery::DeliveryState,
    digest::Sha256,
    id::{BlobId, InstanceId, UploadId},
    path::Area,
    time::Timestamp,
    upload::{BlobRef, Staged, StagedBlob, Upload, UploadState},
};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

const ACCOUNTS: [&str; 3] = ["acme", "other", "third"];
const PATHS: [&str; 10] = [
    "/upload/a",
    "/upload/b.csv",
    "/upload/dir/a",
    "/upload/dir/b.csv",
    "/upload/dir/deep/a",
    "/upload/dir2/a",
    "/upload/dir-/a",
    "/upload/dir0/a",
    "/upload/\u{fc}/\u{f6}",
    "/upload/u\u{308}/o\u{308}",
];
const DIRECTORIES: [&str; 6] =
    ["/upload", "/upload/dir", "/upload/dir/deep", "/upload/dir2", "/upload/u\u{308}", "/"];

fn instances() -> [InstanceId; 3] {
    [1, 2, 3].map(|n| InstanceId::from_uuid(Uuid::from_u128(n)))
}

fn blobs() -> [BlobId; 4] {
    [1, 2, 3, 4].map(|n| BlobId::from_uuid(Uuid::from_u128(n)))
}

fn digests() -> [Sha256; 3] {
    [Sha256::of(b"a"), Sha256::of(b"b"), Sha256::of(b"c")]
}

fn any_moment(dice: &mut Dice) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(dice.roll() % 50))
}

/// An upload of some account, path and state. Its version is always 1.
pub fn any_upload(dice: &mut Dice) -> Upload {
    let mut upload = upload(dice.pick(&ACCOUNTS), dice.pick(&PATHS), 1);
    upload.partner = samples::partner(dice.pick(&["acme", "shared"]));
    upload.opened_at = any_moment(dice);
    change_fields(dice, &mut upload);
    upload.state = dice.pick(&UploadState::ALL);
    upload
}

fn change_fields(dice: &mut Dice, upload: &mut Upload) {
    upload.updated_at = any_moment(dice);
    upload.owner = dice.maybe(2, &instances());
    upload.sha256 = dice.maybe(2, &digests());
    upload.blob = dice.maybe(3, &blobs()).map(|blob| BlobRef::Stored { blob });
    upload.staged = (upload.blob.is_none() && dice.once_in(2)).then(|| Staged {
        length: dice.roll() >> 20,
        sha256_state: Default::default(),
        head: Default::default(),
        tail: Default::default(),
        blob: dice.maybe(2, &blobs()).map(|blob| StagedBlob { blob, blocks: Vec::new(), tag: None }),
    });
    upload.deleted_at = dice.once_in(6).then(|| any_moment(dice));
    upload.deliveries = (0..dice.below(3))
        .map(|n| {
            let states = [DeliveryState::Pending, DeliveryState::Claimed, DeliveryState::Delivered];
            let mut delivery = delivery(upload, &format!("d{n}"), dice.pick(&states));
            delivery.owner = dice.maybe(2, &instances());
            delivery
        })
        .collect();
}

/// A query with any combination of conditions, about things that are likely to be there.
pub fn any_query(dice: &mut Dice, all: &[Upload]) -> UploadQuery {
    let ids: Vec<UploadId> = all.iter().map(|u| u.upload_id).chain([UploadId::new()]).collect();
    let states = if dice.once_in(3) { dice.below(4) } else { 0 };
    UploadQuery {
        account: dice.maybe(2, &ACCOUNTS).map(samples::account),
        partner: dice.maybe(6, &["acme", "shared", "nobody"]).map(samples::partner),
        path: dice.maybe(5, &PATHS).map(path),
        directory: dice.maybe(5, &DIRECTORIES).map(path),
        under: dice.maybe(6, &DIRECTORIES).map(path),
        states: (0..states).map(|_| dice.pick(&UploadState::ALL)).collect(),
        area: dice.maybe(4, &Area::ALL),
        owner: dice.maybe(6, &instances()),
        sha256: dice.maybe(6, &digests()),
        blob: dice.maybe(8, &blobs()),
        since: dice.once_in(6).then(|| any_moment(dice)),
        until: dice.once_in(6).then(|| any_moment(dice)),
        updated_before: dice.once_in(6).then(|| any_moment(dice)),
        order: match dice.below(5) {
            0 => UploadOrder::NewestFirst,
            1 => UploadOrder::Before(dice.pick(&ids)),
            2 => UploadOrder::ByName,
            3 => UploadOrder::ByNameAfter((dice.pick(&["a", "b.csv", "", "\u{f6}"])).to_owned()),
            _ => UploadOrder::ByVersion,
        },
        limit: dice.pick(&[0, 1, 2, 10, 1_000]),
    }
}

/// 600 changes, half of them bad in some way.
pub async fn many_changes_agree_with_the_model(store: &Fixture) {
    let mut dice = Dice::new(42);
    let mut model: HashMap<UploadId, Upload> = HashMap::new();
    for step in 0..600 {
        let known: Vec<UploadId> = {
            let mut ids: Vec<UploadId> = model.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        let mut wanted = if known.is_empty() || dice.once_in(3) {
            let mut fresh = any_upload(&mut dice);
            fresh.version = 1 + u32::try_from(dice.below(4)).unwrap();
            fresh
        } else {
            let mut changed = model[&dice.pick(&known)].clone();
            change_fields(&mut dice, &mut changed);
            if dice.once_in(2) {
                changed.state = dice.pick(&UploadState::ALL);
            }
            if dice.once_in(5) {
                changed.path = path(dice.pick(&PATHS));
                changed.version = 1 + u32::try_from(dice.below(6)).unwrap();
            }
            changed
        };
        if dice.once_in(8) {
            wanted.revision = dice.roll() % 4;
        }
        let silent = dice.once_in(10);
        let mut change = change(&wanted, dice.pick(&[Durability::Visible, Durability::Durable]));
        if silent {
            change.audit.clear();
        }
        let handle = if dice.once_in(2) { &store.one } else { &store.two };
        let result = handle.apply(change).await;
        let expected = predict(&model, &wanted, silent);
        let said = match &result {
            Ok(_) => "ok",
            Err(StateError::Conflict { .. }) => "conflict",
            Err(StateError::NotFound(_)) => "not found",
            Err(StateError::Rejected(_)) => "rejected",
            Err(_) => "other",
        };
        assert_eq!(said, expected, "step {step}: {result:?} {wanted:#?}");
        if let Ok(revision) = result {
            assert_eq!(revision, wanted.revision + 1);
            wanted.revision = revision;
            model.insert(wanted.upload_id, wanted);
        }
        if step % 20 == 19 {
            compare(store, &mut dice, &model, step).await;
        }
    }
    assert!(model.len() > 30, "only {} uploads were made", model.len());
}

fn predict(model: &HashMap<UploadId, Upload>, wanted: &Upload, silent: bool) -> &'static str {
    let stored = model.get(&wanted.upload_id);
    match stored {
        None if wanted.revision > 0 => return "not found",
        Some(stored) if stored.revision != wanted.revision => return "conflict",
        Some(stored) if !stored.state.may_become(wanted.state) => return "rejected",
        _ => {}
    }
    if silent && stored.is_none_or(|stored| stored.state != wanted.state) {
        return "rejected";
    }
    let taken = model.values().any(|other| {
        other.upload_id != wanted.upload_id
            && other.account == wanted.account
            && other.path == wanted.path
            && other.version == wanted.version
    });
    if taken { "conflict" } else { "ok" }
}

async fn compare(store: &Fixture, dice: &mut Dice, model: &HashMap<UploadId, Upload>, step: usize) {
    let all: Vec<Upload> = model.values().cloned().collect();
    for upload in &all {
        assert_eq!(store.two.upload(upload.upload_id).await.unwrap().as_ref(), Some(upload), "step {step}");
    }
    for _ in 0..20 {
        let query = any_query(dice, &all);
        let found = store.one.find(query.clone()).await.unwrap();
        queries::agree(&found, &model::find(&all, &query), &query, step);
    }
    for name in ACCOUNTS {
        for place in PATHS {
            let (account, place) = (samples::account(name), path(place));
            let highest =
                all.iter().filter(|u| u.account == account && u.path == place).map(|u| u.version).max();
            assert_eq!(store.one.highest_version(&account, &place).await.unwrap(), highest.unwrap_or(0));
        }
    }
    let mut counted = store.two.backlog().await.unwrap().uploads;
    counted.retain(|(_, count)| *count > 0);
    counted.sort_unstable();
    let mut expected: HashMap<UploadState, u64> = HashMap::new();
    for upload in all.iter().filter(|u| u.deleted_at.is_none()) {
        *expected.entry(upload.state).or_default() += 1;
    }
    let mut expected: Vec<(UploadState, u64)> = expected.into_iter().collect();
    expected.sort_unstable();
    assert_eq!(counted, expected, "step {step}");
}
