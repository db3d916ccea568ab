//! Against a real RabbitMQ.

use super::*;
use crate::{
    amqp::testing::{Broker, Host, OwnBroker, password, until},
    queue::conformance::{Fixture, job},
};
use dropgate_schemas::id::OutboxId;
use serde_json::{Value, json};
use std::collections::HashSet;

const LONG: Duration = Duration::from_secs(30);
/// Above the pauses of the loop that makes connections anew.
const BACK: Duration = Duration::from_secs(40);

fn keys(host: &Host) -> AmqpQueueConfig {
    AmqpQueueConfig {
        uri: host.uri(),
        user: Some(host.user_name()),
        password: Some("env:PASSWORD".to_owned()),
        ..AmqpQueueConfig::default()
    }
}

async fn open(host: &Host) -> Arc<AmqpQueue> {
    Arc::new(AmqpQueue::open(&keys(host), host.secrets(), "dropgate test").await.unwrap())
}

async fn two_handles() -> Fixture {
    let host = Broker::shared().host().await;
    Fixture { one: open(&host).await, two: open(&host).await, lease: None, keep: Box::new(host) }
}

crate::job_queue_conformance!(two_handles);

async fn refusal(keys: &AmqpQueueConfig, secrets: Arc<dyn SecretStore>) -> String {
    match AmqpQueue::open(keys, secrets, "dropgate test").await {
        Ok(_) => panic!("opened"),
        Err(error @ OpenError::Remote { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
    }
}

fn tags(claimed: &[Claimed]) -> Vec<u64> {
    claimed.iter().map(|c| c.tag).collect()
}

/// Takes until `expected` different jobs came, acking all.
async fn take_all(queue: &AmqpQueue, expected: &HashSet<OutboxId>) -> usize {
    let (mut seen, mut repeats) = (HashSet::new(), 0);
    let begun = Instant::now();
    while &seen != expected {
        assert!(begun.elapsed() < Duration::from_secs(90), "{} of {}", seen.len(), expected.len());
        let Ok(claimed) = queue.take(64, Duration::from_secs(2)).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        for one in &claimed {
            assert!(expected.contains(&one.job.entry));
            repeats += usize::from(!seen.insert(one.job.entry));
        }
        let _ = queue.ack(&tags(&claimed)).await;
    }
    repeats
}

fn entries(jobs: &[Job]) -> HashSet<OutboxId> {
    jobs.iter().map(|job| job.entry).collect()
}

#[tokio::test]
async fn what_is_declared_is_what_operators_read_about() {
    let host = Broker::shared().host().await;
    let queue = open(&host).await;
    let declared = host.get("queues", "dropgate.deliveries").await.unwrap();
    assert_eq!(declared["type"], "quorum");
    assert_eq!(declared["durable"], true);
    let expected = json!({
        "x-queue-type": "quorum", "x-delivery-limit": 20, "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once", "x-dead-letter-exchange": "dropgate.jobs",
        "x-dead-letter-routing-key": "dead",
    });
    assert_eq!(declared["arguments"], expected);
    assert_eq!(host.get("queues", "dropgate.deliveries.dead").await.unwrap()["type"], "quorum");
    let wanted = job();
    queue.publish(std::slice::from_ref(&wanted)).await.unwrap();
    let messages = host.messages("dropgate.deliveries").await;
    assert_eq!(messages[0]["properties"]["delivery_mode"], 2);
    assert_eq!(messages[0]["properties"]["message_id"], wanted.entry.to_string());
    let body: Job = serde_json::from_str(messages[0]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(body, wanted);
    until("the connection is named", BACK, async || {
        let (_, all) =
            host.broker.call(reqwest::Method::GET, &format!("vhosts/{}/connections", host.name), None).await;
        all.as_array().is_some_and(|all| {
            all.iter().any(|one| one["client_properties"]["connection_name"] == "dropgate test jobs out")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_jobs_go_to_two_takers_once_each() {
    let host = Broker::shared().host().await;
    let (one, two) = (open(&host).await, open(&host).await);
    let jobs: Vec<Job> = (0..10_000).map(|_| job()).collect();
    let taker = |queue: Arc<AmqpQueue>| {
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let claimed = queue.take(32, Duration::from_secs(3)).await.unwrap();
                if claimed.is_empty() {
                    return taken;
                }
                assert!(claimed.iter().all(|c| c.redelivered == 0));
                queue.ack(&tags(&claimed)).await.unwrap();
                taken.extend(claimed.into_iter().map(|c| c.job.entry));
            }
        })
    };
    // The first half while nobody takes.
    let begun = Instant::now();
    one.publish(&jobs[..5_000]).await.unwrap();
    let takers = [taker(one.clone()), taker(two.clone())];
    two.publish(&jobs[5_000..]).await.unwrap();
    eprintln!("published in {:?}", begun.elapsed());
    let mut all = Vec::new();
    for taker in takers {
        let taken = taker.await.unwrap();
        assert!(taken.len() > 100, "one of them was left out: {}", taken.len());
        all.extend(taken);
    }
    eprintln!("taken in {:?}", begun.elapsed());
    assert_eq!(all.len(), jobs.len(), "each once");
    assert_eq!(HashSet::from_iter(all), entries(&jobs));
    until("the queue is empty", BACK, async || one.depth().await.unwrap() == 0).await;
}

#[tokio::test]
async fn a_queue_that_was_deleted_is_made_anew() {
    let host = Broker::shared().host().await;
    let queue = open(&host).await;
    let taker = Arc::clone(&queue);
    let taking = tokio::spawn(async move { taker.take(1, LONG).await });
    until("somebody takes", BACK, async || {
        host.get("queues", "dropgate.deliveries").await.is_some_and(|q| q["consumers"] == 1)
    })
    .await;
    host.delete("queues", "dropgate.deliveries").await;
    // Returned as unroutable at first: the exchange is there, the queue isn't.
    queue.publish(&[job()]).await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap().len(), 1);
    host.delete("exchanges", "dropgate.jobs").await;
    queue.publish(&[job()]).await.unwrap();
    assert_eq!(queue.take(1, LONG).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_nobody_can_hold_is_an_error_and_not_lost_silently() {
    let host = Broker::shared().host().await;
    // May publish and look, and can't make anything: the queue is deleted, and stays away.
    drop(open(&host).await);
    let (user, secret) = host.user("^$", "^dropgate[.]jobs$", "^$").await;
    let keys = AmqpQueueConfig { user: Some(user.clone()), ..keys(&host) };
    let queue = AmqpQueue::open(&keys, password(&secret), "dropgate test").await.unwrap();
    queue.publish(&[job()]).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1);
    queue.check().await.unwrap();
    host.delete("queues", "dropgate.deliveries").await;
    let error = queue.publish(&[job()]).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("dropgate"), "{error}");
    // A worker comes and makes it.
    let worker = open(&host).await;
    until("publishing works again", BACK, async || queue.publish(&[job()]).await.is_ok()).await;
    assert!(!worker.take(10, LONG).await.unwrap().is_empty());
    host.forget_user(&user).await;
}

#[tokio::test]
async fn refusals_name_what_and_the_remedy_and_hold_no_secret() {
    let host = Broker::shared().host().await;
    let error = refusal(&keys(&host), password("not-the-password")).await;
    assert!(error.contains("[backends.queue]") && error.contains(&host.broker.address), "{error}");
    assert!(error.contains("ACCESS_REFUSED") && error.contains("`user` and `password`"), "{error}");
    assert!(!error.contains("not-the-password"), "{error}");

    let nowhere = AmqpQueueConfig { uri: format!("amqp://{}/nowhere", host.broker.address), ..keys(&host) };
    let error = refusal(&nowhere, host.secrets()).await;
    assert!(error.contains("vhost nowhere not found") && error.contains("add_vhost"), "{error}");

    let (user, secret) = host.user("^$", "^$", "^$").await;
    let keys_of_user = AmqpQueueConfig { user: Some(user.clone()), ..keys(&host) };
    host.broker.call(reqwest::Method::DELETE, &format!("permissions/{}/{user}", host.name), None).await;
    let error = refusal(&keys_of_user, password(&secret)).await;
    assert!(error.contains("refused for user") && error.contains("set_permissions"), "{error}");
    host.forget_user(&user).await;

    host.put(
        "queues",
        "dropgate.deliveries",
        json!({"durable": true, "arguments": {"x-queue-type": "classic"}}),
    )
    .await;
    let error = refusal(&keys(&host), host.secrets()).await;
    assert!(error.contains("dropgate.deliveries") && error.contains("PRECONDITION_FAILED"), "{error}");
    assert!(error.contains("`prefix`"), "{error}");
    let elsewhere = AmqpQueueConfig { prefix: "other".to_owned(), ..keys(&host) };
    AmqpQueue::open(&elsewhere, host.secrets(), "dropgate test").await.unwrap();

    let (inside, missing) = (
        AmqpQueueConfig { uri: format!("amqp://u:hunter2@{}/x", host.broker.address), ..keys(&host) },
        AmqpQueueConfig { password: Some("env:NOT_THERE".to_owned()), ..keys(&host) },
    );
    let error = refusal(&inside, host.secrets()).await;
    assert!(error.contains("names a password") && !error.contains("hunter2"), "{error}");
    let error = refusal(&missing, host.secrets()).await;
    assert!(error.contains("env:NOT_THERE"), "{error}");
    // Something else than a broker.
    let api = AmqpQueueConfig { uri: host.broker.api_as_amqp(), ..keys(&host) };
    let opened = AmqpQueue::open(&api, host.secrets(), "dropgate test").await;
    match opened {
        Ok(queue) => assert!(queue.check().await.is_err()),
        Err(error) => assert!(error.to_string().contains("AMQP"), "{error}"),
    }
}

#[tokio::test]
async fn a_message_that_is_no_job_goes_to_the_dead_letters() {
    let host = Broker::shared().host().await;
    let queue = open(&host).await;
    let path = format!("exchanges/{}/dropgate.jobs/publish", host.name);
    let stray = json!({"properties": {}, "routing_key": "deliveries", "payload": "hello", "payload_encoding": "string"});
    host.broker.call(reqwest::Method::POST, &path, Some(stray)).await;
    queue.publish(&[job()]).await.unwrap();
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = queue.take(10, LONG).await.unwrap();
    }
    assert_eq!(taken.len(), 1);
    until("it is among the dead letters", BACK, async || {
        host.messages("dropgate.deliveries.dead")
            .await
            .first()
            .is_some_and(|m: &Value| m["payload"] == "hello")
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_given_up_keeps_nothing() {
    let host = Broker::shared().host().await;
    let (one, two) = (open(&host).await, open(&host).await);
    let jobs: Vec<Job> = (0..200).map(|_| job()).collect();
    one.publish(&jobs).await.unwrap();
    for millis in 0..40 {
        let _ = tokio::time::timeout(Duration::from_millis(millis), one.take(10, LONG)).await.map(|taken| {
            for claimed in taken.unwrap() {
                one.held.remove(claimed.tag);
            }
        });
    }
    // What was taken and thrown away here comes back with the connection, the rest at once.
    one.close().await;
    take_all(&two, &entries(&jobs)).await;
}

#[tokio::test]
async fn nobody_holds_more_than_the_bound() {
    let host = Broker::shared().host().await;
    let keys = AmqpQueueConfig { prefetch: 5, ..keys(&host) };
    let queue = AmqpQueue::open(&keys, host.secrets(), "dropgate test").await.unwrap();
    queue.publish(&(0..9).map(|_| job()).collect::<Vec<_>>()).await.unwrap();
    let mut held = Vec::new();
    while held.len() < 5 {
        held.extend(queue.take(10, LONG).await.unwrap());
    }
    assert_eq!(held.len(), 5);
    assert!(queue.take(10, Duration::from_millis(300)).await.unwrap().is_empty());
    queue.ack(&tags(&held[..2])).await.unwrap();
    let mut more = Vec::new();
    while more.len() < 2 {
        more.extend(queue.take(10, LONG).await.unwrap());
    }
    assert_eq!(more.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_paused_killed_or_wiped_delays_and_loses_nothing() {
    let own = tokio::task::spawn_blocking(OwnBroker::start).await.unwrap();
    let host = own.broker.host().await;
    let secrets = host.secrets();
    let queue = open(&host).await;
    let jobs: Vec<Job> = (0..300).map(|_| job()).collect();
    queue.publish(&jobs[..100]).await.unwrap();
    own.restart().await;
    until("publishing works again", BACK, async || queue.publish(&jobs[100..]).await.is_ok()).await;
    let held = queue.take(50, LONG).await.unwrap();

    // Killed with jobs in hand: their tags settle nothing, and they come again.
    own.kill();
    let begun = Instant::now();
    let error = queue.publish(&[job()]).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(queue.check().await.is_err());
    // A process that starts now starts.
    let late = AmqpQueue::open(&keys(&host), secrets.clone(), "dropgate test").await.unwrap();
    assert!(matches!(late.publish(&[job()]).await, Err(QueueError::Unavailable(_))));
    own.tell("start").await;
    let begun = Instant::now();
    queue.ack(&tags(&held)).await.unwrap();
    queue.release(held[0].tag, Duration::ZERO).await.unwrap();
    take_all(&queue, &entries(&jobs)).await;
    eprintln!("killed: drained {:?} after it was back", begun.elapsed());
    until("the late one is connected", BACK, async || late.check().await.is_ok()).await;

    // Paused: connections stay open and nothing answers.
    let more = [job(), job()];
    own.tell("pause").await;
    let begun = Instant::now();
    assert!(queue.publish(&more).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    for _ in 0..3 {
        assert!(queue.take(1, Duration::from_millis(200)).await.is_err());
    }
    own.tell("resume").await;
    let begun = Instant::now();
    until("publishing works again", BACK, async || queue.publish(&more).await.is_ok()).await;
    take_all(&queue, &entries(&more)).await;
    eprintln!("paused: drained {:?} after it was back", begun.elapsed());

    // Wiped, virtual host and all.
    let name = host.name.clone();
    let path = format!("vhosts/{name}");
    own.broker.call(reqwest::Method::DELETE, &path, None).await;
    until("the loss is seen", BACK, async || queue.check().await.is_err()).await;
    own.broker.call(reqwest::Method::PUT, &path, Some(json!({}))).await;
    host.permit(&host.user_name(), ".*", ".*", ".*").await;
    until("publishing works again", BACK, async || queue.publish(&more).await.is_ok()).await;
    take_all(&late, &entries(&more)).await;
    queue.close().await;
    late.close().await;
}
