//! What accounts have sent.

use super::{
    Fixture,
    samples::{account, created, full_upload, upload},
};
use crate::state::Usage;
use dropgate_schemas::{time::Timestamp, upload::UploadState};
use std::time::Duration;

/// With their size, in whatever state, until they are aborted; of one account only.
pub async fn complete_uploads_count_from_the_day_they_were_opened(store: &Fixture) {
    let acme = account("acme");
    assert_eq!(store.one.usage(&acme, None).await.unwrap(), Usage::default());
    let now = Timestamp::now();
    let before = now.minus(Duration::from_secs(3600));
    for (n, (opened_at, size)) in
        [(now, Some(5)), (now, Some(70)), (now, Some(0)), (now, None), (before, Some(900)), (before, None)]
            .into_iter()
            .enumerate()
    {
        let mut written = upload("acme", &format!("/upload/{n}"), 1);
        (written.opened_at, written.size) = (opened_at, size);
        store.one.apply(created(&written)).await.unwrap();
    }
    let mut other = upload("other", "/upload/x", 1);
    other.size = Some(1);
    store.one.apply(created(&other)).await.unwrap();
    let of = async |since| store.two.usage(&acme, since).await.unwrap();
    assert_eq!(of(Some(now)).await, Usage { uploads: 3, bytes: 75 });
    assert_eq!(of(None).await, Usage { uploads: 4, bytes: 975 });

    // A size that comes, changes and goes.
    let mut growing = upload("acme", "/upload/growing", 1);
    growing.revision = store.one.apply(created(&growing)).await.unwrap();
    assert_eq!(of(None).await.uploads, 4);
    (growing.state, growing.size) = (UploadState::Held, Some(1_000));
    growing.revision = store.one.apply(created(&growing)).await.unwrap();
    assert_eq!(of(None).await, Usage { uploads: 5, bytes: 1_975 });
    (growing.state, growing.size) = (UploadState::Receiving, None);
    growing.revision = store.one.apply(created(&growing)).await.unwrap();
    assert_eq!(of(None).await, Usage { uploads: 4, bytes: 975 });
    (growing.state, growing.size) = (UploadState::Aborted, Some(1_000));
    store.one.apply(created(&growing)).await.unwrap();
    assert_eq!(of(None).await, Usage { uploads: 4, bytes: 975 });

    // The largest size that a record can have does not break the sum.
    store.one.apply(created(&full_upload("large", "/upload/a", 1))).await.unwrap();
    store.one.apply(created(&full_upload("large", "/upload/b", 1))).await.unwrap();
    let large = store.two.usage(&account("large"), None).await.unwrap();
    assert_eq!(large, Usage { uploads: 2, bytes: 2 << 50 });
}
