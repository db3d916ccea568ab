//! Arrows between states.

use super::{
    Fixture,
    samples::{change, upload},
};
use crate::state::StateError;
use dropgate_schemas::{
    change::{Change, Durability},
    upload::UploadState,
};

/// Every pair of states: the store follows the arrows of [`UploadState::may_become`] and no others, and never without an
/// audit entry.
pub async fn arrows_are_followed_and_audited(store: &Fixture) {
    for (number, from) in UploadState::ALL.into_iter().enumerate() {
        for to in UploadState::ALL {
            let mut record = upload("acme", &format!("/upload/{from}-{to}-{number}"), 1);
            record.state = from;
            store.one.apply(change(&record, Durability::Visible)).await.unwrap();
            record.revision = 1;
            record.state = to;
            if from != to {
                let silent = Change { audit: Vec::new(), ..change(&record, Durability::Visible) };
                let refused = store.one.apply(silent).await;
                assert!(matches!(refused, Err(StateError::Rejected(_))), "{from} -> {to}: {refused:?}");
            }
            let result = store.one.apply(change(&record, Durability::Visible)).await;
            if from.may_become(to) {
                assert_eq!(result.unwrap(), 2, "{from} -> {to}");
            } else {
                let Err(StateError::Rejected(why)) = result else { panic!("{from} -> {to}: {result:?}") };
                assert!(why.contains(from.as_str()) && why.contains(to.as_str()), "{why}");
                assert_eq!(store.one.upload(record.upload_id).await.unwrap().unwrap().state, from);
            }
        }
    }
    let stays = upload("acme", "/upload/stays", 1);
    store.one.apply(change(&stays, Durability::Visible)).await.unwrap();
    let mut stays = store.one.upload(stays.upload_id).await.unwrap().unwrap();
    stays.declared_size = Some(1);
    let silent = Change { audit: Vec::new(), ..change(&stays, Durability::Visible) };
    assert_eq!(store.one.apply(silent).await.unwrap(), 2, "other fields may change without an entry");
}
