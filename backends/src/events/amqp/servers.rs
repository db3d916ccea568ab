//! Against a real RabbitMQ.

use super::*;
use crate::{
    amqp::testing::{Broker, Host, OwnBroker, password, until},
    events::conformance::{self, event},
};
use serde_json::{Value, json};

const BACK: Duration = Duration::from_secs(40);

fn keys(host: &Host) -> AmqpEventsConfig {
    AmqpEventsConfig {
        uri: host.uri(),
        user: Some(host.user_name()),
        password: Some("env:PASSWORD".to_owned()),
        ..AmqpEventsConfig::default()
    }
}

async fn open(host: &Host) -> AmqpEvents {
    AmqpEvents::open(&keys(host), host.secrets(), "dropgate test").await.unwrap()
}

async fn heard(host: &Host, queue: &str) -> Vec<Value> {
    let messages = host.messages(queue).await;
    messages.iter().map(|m| serde_json::from_str(m["payload"].as_str().unwrap()).unwrap()).collect()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|e| e["sequence"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn conforms() {
    let host = Broker::shared().host().await;
    let (one, other) = (open(&host).await, open(&host).await);
    host.bind("all", "dropgate.events", "#").await;
    conformance::suite(&one, &other, async || heard(&host, "all").await).await;
}

#[tokio::test]
async fn a_message_is_a_cloud_event_and_goes_to_those_who_want_it() {
    let host = Broker::shared().host().await;
    let events = open(&host).await;
    host.bind("acme", "dropgate.events", "acme.*.dropgate.upload.#").await;
    host.bind("deliveries", "dropgate.events", "#.dropgate.delivery.#").await;
    let logged = event(7);
    events.publish(std::slice::from_ref(&logged)).await.unwrap();
    let messages = host.messages("acme").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["routing_key"], "acme.demo.dropgate.upload.aborted.v1");
    let expected = json!({
        "content_type": "application/cloudevents+json", "delivery_mode": 2, "message_id": logged.event.id.to_string(),
    });
    assert_eq!(messages[0]["properties"], expected);
    assert!(host.messages("deliveries").await.is_empty());
    assert_eq!(heard(&host, "dropgate.events.archive").await, [serde_json::to_value(&logged.event).unwrap()]);
}

#[tokio::test]
async fn nobody_listening_blocks_nothing_and_the_archive_lets_its_oldest_go() {
    let host = Broker::shared().host().await;
    let small = AmqpEventsConfig { archive_events: 30, ..keys(&host) };
    let events = AmqpEvents::open(&small, host.secrets(), "dropgate test").await.unwrap();
    let all: Vec<_> = (1..=100).map(event).collect();
    events.publish(&all).await.unwrap();
    until("the archive holds the newest", BACK, async || {
        numbers(&heard(&host, "dropgate.events.archive").await) == (71..=100).collect::<Vec<_>>()
    })
    .await;
    let none = AmqpEventsConfig { archive_events: 0, prefix: "other".to_owned(), ..keys(&host) };
    let events = AmqpEvents::open(&none, host.secrets(), "dropgate test").await.unwrap();
    events.publish(&all).await.unwrap();
    events.check().await.unwrap();
    assert!(host.get("queues", "other.events.archive").await.is_none());
}

#[tokio::test]
async fn from_the_first_refused_event_on_they_go_out_again_and_one_alone_while_it_is_refused() {
    let host = Broker::shared().host().await;
    let events = open(&host).await;
    let full = json!({"x-max-length": 3, "x-overflow": "reject-publish"});
    host.bind_with("full", "dropgate.events", "#", full).await;
    // Looking at a queue puts its messages back, maybe in another order: the one that tells the order is looked at once.
    host.bind("order", "dropgate.events", "#").await;
    let all: Vec<_> = (1..=10).map(event).collect();
    assert_eq!(events.publish(&all).await.unwrap(), 3);
    let archived = async |wanted: &[u64]| {
        let mut found = numbers(&heard(&host, "dropgate.events.archive").await);
        let mut wanted = wanted.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        found == wanted
    };
    let once: Vec<u64> = (1..=10).collect();
    until("the archive has what it took", BACK, async || archived(&once).await).await;
    for _ in 0..3 {
        let error = events.publish(&all[3..]).await.unwrap_err();
        assert!(matches!(error, EventError::Unavailable(_)), "{error}");
    }
    let repeated = [once.as_slice(), &[4, 4, 4]].concat();
    until("nothing but what was refused is repeated", BACK, async || archived(&repeated).await).await;
    host.delete("queues", "full").await;
    assert_eq!(events.publish(&all[3..]).await.unwrap(), 1);
    assert_eq!(events.publish(&all[4..]).await.unwrap(), 6);
    let in_order = [repeated.as_slice(), &[4, 5, 6, 7, 8, 9, 10]].concat();
    until("no gap", BACK, async || archived(&in_order).await).await;
    assert_eq!(numbers(&heard(&host, "order").await), in_order);
    events.close().await;
}

#[tokio::test]
async fn refusals_name_what_and_the_remedy() {
    let host = Broker::shared().host().await;
    let refusal =
        async |keys: AmqpEventsConfig, secrets| match AmqpEvents::open(&keys, secrets, "dropgate test").await
        {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        };
    let error = refusal(keys(&host), password("wrong")).await;
    assert!(error.contains("[backends.events]") && error.contains("ACCESS_REFUSED"), "{error}");
    host.put("exchanges", "dropgate.events", json!({"type": "fanout", "durable": true})).await;
    let error = refusal(keys(&host), host.secrets()).await;
    assert!(error.contains("dropgate.events") && error.contains("`prefix`"), "{error}");
    // May not write there: told when it tries.
    host.delete("exchanges", "dropgate.events").await;
    drop(open(&host).await);
    let (user, secret) = host.user("^$", "^$", "^$").await;
    let reader = AmqpEventsConfig { user: Some(user.clone()), ..keys(&host) };
    let events = AmqpEvents::open(&reader, password(&secret), "dropgate test").await.unwrap();
    let error = events.publish(&[event(1)]).await.unwrap_err();
    assert!(matches!(error, EventError::Rejected(_)), "{error}");
    assert!(
        error.to_string().contains("dropgate.events") && error.to_string().contains("set_permissions"),
        "{error}"
    );
    host.forget_user(&user).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_or_loses_the_archive_gets_everything_again() {
    let own = tokio::task::spawn_blocking(OwnBroker::start).await.unwrap();
    let host = own.broker.host().await;
    let events = open(&host).await;
    let all: Vec<_> = (1..=50).map(event).collect();
    events.publish(&all[..10]).await.unwrap();
    own.restart().await;
    until("publishing works again", BACK, async || events.publish(&all[10..20]).await.is_ok()).await;
    own.kill();
    assert!(matches!(events.publish(&all[20..]).await, Err(EventError::Unavailable(_))));
    assert!(events.check().await.is_err());
    own.tell("start").await;
    until("publishing works again", BACK, async || events.publish(&all[20..]).await.is_ok()).await;
    let mut seen = numbers(&heard(&host, "dropgate.events.archive").await);
    seen.dedup();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    host.delete("queues", "dropgate.events.archive").await;
    until("the archive is there again", BACK, async || events.check().await.is_ok()).await;
    until("publishing works again", BACK, async || events.publish(&all[..5]).await.is_ok()).await;
    assert_eq!(numbers(&heard(&host, "dropgate.events.archive").await), [1, 2, 3, 4, 5]);
    events.close().await;
}
