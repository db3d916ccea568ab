use super::*;
use crate::{Backends, BackendsConfig, state::conformance::samples};
use dropgate_schemas::{
    change::{Change, OutboxEntry},
    event::{Event, EventBody, Other},
    upload::Upload,
};
use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Takes events while it is not down.
struct Listener {
    whole_log: bool,
    down: AtomicBool,
    patience: Duration,
    heard: Mutex<Vec<u64>>,
    asked: Mutex<Vec<u64>>,
}

impl Listener {
    fn new(whole_log: bool) -> Self {
        let patience = Duration::from_secs(3600);
        Self {
            whole_log,
            down: AtomicBool::new(false),
            patience,
            heard: Mutex::default(),
            asked: Mutex::default(),
        }
    }
    fn heard(&self) -> Vec<u64> {
        self.heard.lock().unwrap().clone()
    }
}

#[async_trait]
impl Subscriber for Listener {
    fn name(&self) -> &str {
        "listener"
    }
    fn wants_the_whole_log(&self) -> bool {
        self.whole_log
    }
    fn wants(&self, event: &Event) -> bool {
        event.subject.as_str() != "/upload/5"
    }
    fn patience(&self) -> Duration {
        self.patience
    }
    async fn tell(&self, event: &Event) -> Result<(), NotTaken> {
        let number = event.sequence.parse().unwrap();
        self.asked.lock().unwrap().push(number);
        if self.down.load(Relaxed) {
            return Err(NotTaken { why: "down".to_owned(), retry_after: None });
        }
        self.heard.lock().unwrap().push(number);
        Ok(())
    }
}

async fn open(dir: &Path) -> Backends {
    Backends::open(&BackendsConfig::default(), dir).await.unwrap()
}

/// Logs `count` more events.
async fn happen(backends: &Backends, from: u32, count: u32) {
    for number in from..from + count {
        let upload: Upload = samples::upload("demo", &format!("/upload/{number}"), 1);
        let event = Event::about(&upload, EventBody::UploadAborted(Other::about(&upload)));
        let change = Change { outbox: vec![OutboxEntry::event(event)], ..samples::created(&upload) };
        backends.state.apply(change).await.unwrap();
    }
    while super::super::event::log_step(backends).await.unwrap().1 == Step::More {}
}

async fn told(telling: &mut Telling<'_>, term: u64) {
    while telling.step(term).await.unwrap() == Step::More {}
}

#[tokio::test]
async fn a_new_one_hears_what_happens_from_now_on_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    for past in [0, 1, 2, 4, 9] {
        let before = backends.state.events_after(0, None, 100).await.unwrap().len() as u32;
        happen(&backends, before + 1, past - before).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        let (listener, logged) = (Listener::new(false), Notify::new());
        let telling = Telling::new(backends.state.as_ref(), &listener, &logged, Timestamp::now());
        assert_eq!(telling.end_of_the_past().await.unwrap(), u64::from(past));
    }
    let (listener, logged) = (Listener::new(false), Notify::new());
    let start = || Telling::new(backends.state.as_ref(), &listener, &logged, Timestamp::now());
    let mut first = start();
    told(&mut first, 1).await;
    assert!(listener.heard().is_empty());
    happen(&backends, 10, 2).await;
    // Down from the first event on, and the relay goes: nothing counts as the past for the next one.
    listener.down.store(true, Relaxed);
    told(&mut first, 1).await;
    listener.down.store(false, Relaxed);
    let mut second = start();
    told(&mut second, 2).await;
    told(&mut second, 2).await;
    assert_eq!(listener.heard(), [10, 11]);
    // And one that wants all of it.
    let all = Listener::new(true);
    let state = open(&dir.path().join("other")).await;
    happen(&state, 1, 100).await;
    let mut third = Telling::new(state.state.as_ref(), &all, &logged, Timestamp::now());
    told(&mut third, 1).await;
    let expected: Vec<u64> = (1..=100).filter(|n| *n != 5).collect();
    assert_eq!(all.heard(), expected, "in order, without the one it does not want");
}

#[tokio::test]
async fn one_that_is_down_is_tried_again_later_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let (listener, logged) = (Listener::new(true), Notify::new());
    happen(&backends, 1, 3).await;
    listener.down.store(true, Relaxed);
    let mut telling = Telling::new(backends.state.as_ref(), &listener, &logged, Timestamp::now());
    let mut waited = Duration::ZERO;
    for tries in 1..=12 {
        assert_eq!(telling.step(1).await.unwrap(), Step::Rest);
        waited += telling.next_try.unwrap().saturating_duration_since(Instant::now());
        // Before its time it is left alone, whatever else happens.
        telling.next_try = Some(Instant::now() + Duration::from_secs(60));
        telling.step(1).await.unwrap();
        assert_eq!(listener.asked.lock().unwrap().len(), tries);
        telling.next_try = Some(Instant::now());
        telling.called().await;
    }
    assert!(waited > Duration::from_secs(60), "the pauses grow: {waited:?}");
    assert!(listener.asked.lock().unwrap().iter().all(|n| *n == 1), "no other one overtakes it");
    listener.down.store(false, Relaxed);
    told(&mut telling, 1).await;
    assert_eq!(listener.heard(), [1, 2, 3]);
    assert_eq!(backends.state.cursor("webhook/listener").await.unwrap(), 3);
}

#[tokio::test]
async fn what_is_too_old_is_passed_over_once_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path()).await;
    let (listener, logged) = (Listener { patience: Duration::ZERO, ..Listener::new(true) }, Notify::new());
    happen(&backends, 1, 3).await;
    listener.down.store(true, Relaxed);
    let before = Counter::WebhooksPassedOver.value();
    let mut telling = Telling::new(backends.state.as_ref(), &listener, &logged, Timestamp::now());
    told(&mut telling, 1).await;
    assert_eq!(*listener.asked.lock().unwrap(), [1, 2, 3]);
    assert!(Counter::WebhooksPassedOver.value() >= before + 3);
    assert_eq!(backends.state.cursor("webhook/listener").await.unwrap(), 3);
}

#[test]
fn pauses_grow_to_a_quarter_of_an_hour_and_heed_what_is_asked() {
    let error = |retry_after| NotTaken { why: String::new(), retry_after };
    for failures in 0..40 {
        assert!(pause(failures, &error(None)) <= LONGEST_PAUSE);
    }
    assert!((0..100).any(|_| pause(30, &error(None)) > LONGEST_PAUSE / 2));
    assert!(pause(0, &error(None)) <= FIRST_PAUSE);
    assert!(pause(0, &error(Some(Duration::from_secs(30)))) >= Duration::from_secs(30));
    assert_eq!(pause(0, &error(Some(Duration::from_secs(86_400)))), LONGEST_PAUSE);
}
