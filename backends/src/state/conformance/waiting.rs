//! Hearing of changes.

use super::{
    Fixture,
    samples::{created, upload},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(20);
/// Far less than [`LONG`] and far more than it takes.
const SOON: Duration = Duration::from_secs(5);

/// Heard by the handle that made it and by the other.
pub async fn a_change_by_anybody_ends_the_wait(store: &Fixture) {
    for listener in [&store.one, &store.two] {
        let listener = Arc::clone(listener);
        let begun = Instant::now();
        let waiting = tokio::spawn(async move {
            // Early returns without a reason are allowed: so wait until there is something to see.
            loop {
                if !listener.find(everything()).await.unwrap().is_empty() {
                    return;
                }
                listener.changed(LONG).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut change = upload("acme", &format!("/upload/{}", uuid::Uuid::now_v7()), 1);
        change.deleted_at = None;
        store.one.apply(created(&change)).await.unwrap();
        waiting.await.unwrap();
        assert!(begun.elapsed() < SOON, "heard too late: {:?}", begun.elapsed());
        break_away(store).await;
    }
    let begun = Instant::now();
    store.one.changed(Duration::from_millis(50)).await;
    assert!(begun.elapsed() < SOON, "waited longer than asked");
}

fn everything() -> crate::UploadQuery {
    crate::UploadQuery { area: Some(dropgate_schemas::path::Area::Upload), limit: 1, ..Default::default() }
}

/// Hides what is there, for the next round.
async fn break_away(store: &Fixture) {
    for mut upload in store.one.find(everything()).await.unwrap() {
        upload.deleted_at = Some(dropgate_schemas::time::Timestamp::now());
        store.one.apply(created(&upload)).await.unwrap();
    }
}

/// Looking, then waiting: what came between is heard of.
pub async fn a_change_just_before_the_wait_is_not_missed(store: &Fixture) {
    for n in 0..20 {
        let (writer, listener) = if n % 2 == 0 { (&store.one, &store.two) } else { (&store.two, &store.two) };
        // Used up: earlier changes that the listener has not heard of yet.
        listener.changed(Duration::from_millis(150)).await;
        writer.apply(created(&upload("acme", &format!("/upload/{n}"), 1))).await.unwrap();
        let begun = Instant::now();
        listener.changed(LONG).await;
        assert!(begun.elapsed() < SOON, "round {n}: missed");
    }
}
