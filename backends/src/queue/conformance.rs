//! What every job queue promises, as tests that each adapter passes unchanged: [`job_queue_conformance!`] makes one test of
//! each case. A case gets a queue of its own, seen through two handles as two processes would see it.
//!
//! [`job_queue_conformance!`]: crate::job_queue_conformance

use super::{Claimed, JobQueue};
use dropgate_schemas::{
    id::{DeliveryId, OutboxId, UploadId},
    job::{Job, Work},
};
use std::{
    any::Any,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A wait that no test is meant to see the end of.
const LONG: Duration = Duration::from_secs(30);
/// Far less than [`LONG`] and far more than it takes.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(200);

/// A queue with nothing in it.
pub struct Fixture {
    /// One handle.
    pub one: Arc<dyn JobQueue>,
    /// Another handle on the same queue, which shares nothing with the first within the process.
    pub two: Arc<dyn JobQueue>,
    /// The adapter's lease, set short: how long a job is out before it is given out again while its taker lives. None if
    /// it stays out for as long.
    pub lease: Option<Duration>,
    /// What must live as long as the queue: its directory, its server.
    pub keep: Box<dyn Any + Send>,
}

/// One test for each case of the conformance suite. Takes the path of a function without arguments that returns a future
/// of a [`Fixture`].
#[macro_export]
macro_rules! job_queue_conformance {
    ($open:path) => {
        $crate::job_queue_conformance! { $open;
            what_is_published_is_given_to_one_taker,
            taking_waits_for_the_first_job_and_no_longer,
            what_is_done_never_comes_back,
            what_is_released_comes_back_after_its_delay,
            what_is_not_settled_comes_back,
            what_a_closed_taker_held_comes_back_at_once,
            depth_counts_what_waits,
        }
    };
    ($open:path; $($case:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = $open().await;
                $crate::queue::conformance::$case(&fixture).await;
            }
        )+
    };
}

/// A job that no other is like.
#[must_use]
pub fn job() -> Job {
    let upload = UploadId::new();
    let delivery = DeliveryId::derive(upload, "archive", 1);
    Job { entry: OutboxId::new(), upload, work: Work::Deliver { delivery } }
}

fn tags(claimed: &[Claimed]) -> Vec<u64> {
    claimed.iter().map(|c| c.tag).collect()
}

/// 120 jobs of both kinds, four takers at once on two handles, each job comes as it was, to one of them.
pub async fn what_is_published_is_given_to_one_taker(queue: &Fixture) {
    let mut jobs: Vec<Job> = (0..120).map(|_| job()).collect();
    for job in jobs.iter_mut().step_by(3) {
        job.work = Work::Route;
    }
    queue.one.publish(&[]).await.unwrap();
    for batch in jobs.chunks(25) {
        queue.one.publish(batch).await.unwrap();
    }
    let takers: Vec<_> = (0..4)
        .map(|n| {
            let handle = Arc::clone(if n % 2 == 0 { &queue.one } else { &queue.two });
            tokio::spawn(async move {
                let mut taken = Vec::new();
                loop {
                    let claimed = handle.take(7, A_WHILE).await.unwrap();
                    assert!(claimed.len() <= 7);
                    if claimed.is_empty() {
                        return taken;
                    }
                    handle.ack(&tags(&claimed)).await.unwrap();
                    taken.extend(claimed);
                }
            })
        })
        .collect();
    let mut seen: HashMap<OutboxId, Job> = HashMap::new();
    for taker in takers {
        for claimed in taker.await.unwrap() {
            assert_eq!(claimed.redelivered, 0);
            assert!(
                seen.insert(claimed.job.entry, claimed.job.clone()).is_none(),
                "given out twice: {claimed:?}"
            );
        }
    }
    assert_eq!(seen.len(), jobs.len());
    assert!(jobs.iter().all(|job| seen.get(&job.entry) == Some(job)));
    queue.one.check().await.unwrap();
}

/// Published by the taker's own handle or another.
pub async fn taking_waits_for_the_first_job_and_no_longer(queue: &Fixture) {
    let begun = Instant::now();
    assert!(queue.one.take(10, A_WHILE).await.unwrap().is_empty());
    assert!(begun.elapsed() >= A_WHILE && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(queue.one.take(10, Duration::ZERO).await.unwrap().is_empty());
    for publisher in [&queue.one, &queue.two] {
        let taker = Arc::clone(&queue.one);
        let taking = tokio::spawn(async move { taker.take(10, LONG).await });
        tokio::time::sleep(A_WHILE).await;
        let begun = Instant::now();
        publisher.publish(&[job()]).await.unwrap();
        let claimed = taking.await.unwrap().unwrap();
        assert!(begun.elapsed() < SOON, "heard too late: {:?}", begun.elapsed());
        assert_eq!(claimed.len(), 1);
        queue.one.ack(&tags(&claimed)).await.unwrap();
    }
}

/// Not even after the lease.
pub async fn what_is_done_never_comes_back(queue: &Fixture) {
    queue.one.publish(&[job(), job(), job()]).await.unwrap();
    let claimed = queue.one.take(10, LONG).await.unwrap();
    assert_eq!(claimed.len(), 3);
    queue.one.ack(&tags(&claimed)).await.unwrap();
    queue.one.ack(&[]).await.unwrap();
    let longest = queue.lease.unwrap_or_default() * 2 + A_WHILE;
    assert!(queue.two.take(10, longest).await.unwrap().is_empty());
}

/// To whoever asks.
pub async fn what_is_released_comes_back_after_its_delay(queue: &Fixture) {
    let (first, second) = (job(), job());
    queue.one.publish(std::slice::from_ref(&first)).await.unwrap();
    let claimed = queue.one.take(1, LONG).await.unwrap();
    let delay = Duration::from_millis(700);
    queue.one.release(claimed[0].tag, delay).await.unwrap();
    let released = Instant::now();
    // Others are not held up.
    queue.one.publish(std::slice::from_ref(&second)).await.unwrap();
    let claimed = queue.two.take(10, LONG).await.unwrap();
    assert_eq!(claimed.iter().map(|c| &c.job).collect::<Vec<_>>(), [&second]);
    queue.two.ack(&tags(&claimed)).await.unwrap();
    let claimed = queue.two.take(10, LONG).await.unwrap();
    // A clock that counts whole milliseconds may be one short.
    let waited = released.elapsed() + Duration::from_millis(2);
    assert!(waited >= delay && waited < delay + SOON, "{waited:?}");
    assert_eq!(claimed.iter().map(|c| &c.job).collect::<Vec<_>>(), [&first]);
    assert_eq!(claimed[0].redelivered, 1);
    queue.two.release(claimed[0].tag, Duration::ZERO).await.unwrap();
    let claimed = queue.one.take(10, LONG).await.unwrap();
    assert_eq!(claimed[0].redelivered, 2);
    queue.one.ack(&tags(&claimed)).await.unwrap();
}

/// While its taker lives, if the adapter has a lease.
pub async fn what_is_not_settled_comes_back(queue: &Fixture) {
    let Some(lease) = queue.lease else { return };
    let job = job();
    queue.one.publish(std::slice::from_ref(&job)).await.unwrap();
    let taken = Instant::now();
    let claimed = queue.one.take(10, LONG).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let again = queue.two.take(10, LONG).await.unwrap();
    let out = taken.elapsed();
    assert!(out + Duration::from_millis(2) >= lease && out < lease + SOON, "{out:?}");
    assert_eq!(again.len(), 1);
    assert_eq!((&again[0].job, again[0].redelivered), (&job, 1));
    queue.two.ack(&tags(&again)).await.unwrap();
}

/// Closed, as a process does at its end.
pub async fn what_a_closed_taker_held_comes_back_at_once(queue: &Fixture) {
    let jobs = [job(), job()];
    queue.two.publish(&jobs).await.unwrap();
    let held = queue.one.take(10, LONG).await.unwrap();
    assert_eq!(held.len(), 2);
    let begun = Instant::now();
    queue.one.close().await;
    let mut again = Vec::new();
    while again.len() < 2 {
        again.extend(queue.two.take(10, LONG).await.unwrap());
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(jobs.iter().all(|job| again.iter().any(|claimed| claimed.job == *job)));
    queue.two.ack(&tags(&again)).await.unwrap();
}

/// Not what is out.
pub async fn depth_counts_what_waits(queue: &Fixture) {
    let settles_at = async |expected: u64| {
        let begun = Instant::now();
        // A broker counts a moment late.
        while queue.two.depth().await.unwrap() != expected {
            assert!(begun.elapsed() < SOON, "never {expected}: {}", queue.two.depth().await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    settles_at(0).await;
    queue.one.publish(&[job(), job(), job()]).await.unwrap();
    settles_at(3).await;
    let claimed = queue.one.take(2, LONG).await.unwrap();
    assert_eq!(claimed.len(), 2);
    settles_at(1).await;
    queue.one.release(claimed[0].tag, Duration::ZERO).await.unwrap();
    settles_at(2).await;
    queue.one.ack(&[claimed[1].tag]).await.unwrap();
    settles_at(2).await;
}
