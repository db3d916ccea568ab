//! Telling of changes. Within the process at once; across processes by pulses: each process has a document of its own with a
//! counter that it raises after its changes, at most every 50 ms however many there are, and whoever waits looks at all pulses
//! as often. No load comes from processes that change nothing and wait for nothing, and none that grows with the
//! number of changes.

use super::{
    document::{date, number},
    open::hasty,
};
use dropgate_schemas::time::Timestamp;
use futures::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{Document, doc},
    options::ReadConcern,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often pulses are looked at while somebody waits.
const POLL: Duration = Duration::from_millis(50);
/// Shortest time between two pulses: nobody would see more of them.
const GATHER: Duration = POLL;
/// And how often while that fails.
const POLL_TROUBLED: Duration = Duration::from_millis(500);
/// More processes than any cluster has.
const MOST: i64 = 10_000;

/// Waiters, and the tasks that tell and ask on their behalf.
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    pulses: Collection<Document>,
    me: String,
    /// Longest time for one command.
    limit: Duration,
    changed: Notify,
    /// Changes of this process, for those who came too late to hear of them.
    rung: AtomicUsize,
    waiting: AtomicUsize,
    somebody_waits: Notify,
    beat: Notify,
    stopped: CancellationToken,
}

impl Watch {
    /// Starts the tasks; they end with [`Self::stop`].
    pub(super) fn start(pulses: Collection<Document>, limit: Duration) -> Self {
        let shared = Arc::new(Shared {
            pulses,
            me: Uuid::now_v7().to_string(),
            limit,
            changed: Notify::new(),
            rung: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            somebody_waits: Notify::new(),
            beat: Notify::new(),
            stopped: CancellationToken::new(),
        });
        let (telling, asking) = (Arc::clone(&shared), Arc::clone(&shared));
        tokio::spawn(async move { telling.stopped.run_until_cancelled(telling.tell()).await });
        tokio::spawn(async move { asking.stopped.run_until_cancelled(asking.ask()).await });
        Self { shared }
    }

    /// Tells of a change of this process that others can see now.
    pub(super) fn ring(&self) {
        self.shared.rung.fetch_add(1, Ordering::AcqRel);
        self.shared.changed.notify_waiters();
        self.shared.beat.notify_one();
    }

    /// Waits for a change by this process or another, but not longer than `at_most`. A change between the caller's last look
    /// and this call is noticed too, when its pulse comes or at the first look at the pulses.
    pub(super) async fn changed(&self, at_most: Duration) {
        let rung = self.shared.changed.notified();
        let _waiting = Waiting::new(&self.shared);
        let _ = tokio::time::timeout(at_most, self.shared.stopped.run_until_cancelled(rung)).await;
    }

    /// Ends the tasks and lets every waiter go.
    pub(super) fn stop(&self) {
        self.shared.stopped.cancel();
    }
}

impl Shared {
    async fn tell(&self) {
        loop {
            self.beat.notified().await;
            let pulse = self
                .pulses
                .update_one(
                    doc! { "_id": &self.me },
                    doc! { "$inc": { "n": 1_i64 }, "$set": { "at": date(Timestamp::now()) } },
                )
                .upsert(true)
                .write_concern(hasty());
            // Where it fails, others see the change when their wait is over.
            if !matches!(tokio::time::timeout(self.limit, pulse.into_future()).await, Ok(Ok(_))) {
                tracing::debug!("could not tell other processes of a change");
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn ask(&self) {
        let mut last = None;
        loop {
            while self.waiting.load(Ordering::Acquire) == 0 {
                self.somebody_waits.notified().await;
            }
            let rung = self.rung.load(Ordering::Acquire);
            let Ok(Some(others)) = tokio::time::timeout(self.limit, self.pulses_of_others()).await else {
                tokio::time::sleep(POLL_TROUBLED).await;
                continue;
            };
            let now = Some((rung, others));
            if now != last {
                self.changed.notify_waiters();
            }
            last = now;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn pulses_of_others(&self) -> Option<BTreeMap<String, u64>> {
        let find = self
            .pulses
            .find(doc! { "_id": { "$ne": &self.me } })
            .projection(doc! { "n": 1 })
            .limit(MOST)
            .read_concern(ReadConcern::local())
            .max_time(self.limit);
        let found: Vec<Document> = find.await.ok()?.try_collect().await.ok()?;
        found
            .iter()
            .map(|pulse| Some((pulse.get_str("_id").ok()?.to_owned(), number(pulse, "n").ok()?)))
            .collect()
    }
}

/// Somebody waits, for as long as this lives.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        if shared.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            shared.somebody_waits.notify_one();
        }
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
