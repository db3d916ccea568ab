//! The event log.

use super::{
    Fixture,
    samples::{event, partner, upload},
};
use crate::state::LoggedEvent;
use dropgate_schemas::event::Event;
use std::{collections::HashMap, sync::Arc};

/// 2 x 60 batches at once, many events in both.
pub async fn two_loggers_leave_no_gap_and_repeat_nothing(store: &Fixture) {
    let uploads = ["acme", "other", "third"].map(|name| upload(name, "/upload/x", 1));
    let events: Vec<Event> = (0..180).map(|n| event(&uploads[n % 3])).collect();
    let loggers: Vec<_> = [Arc::clone(&store.one), Arc::clone(&store.two)]
        .into_iter()
        .map(|handle| {
            let events = events.clone();
            tokio::spawn(async move {
                for batch in events.chunks(3) {
                    let logged = handle.log_events(batch.to_vec()).await.unwrap();
                    assert_eq!(logged.len(), batch.len());
                    for (logged, event) in logged.iter().zip(batch) {
                        assert_eq!(logged.event.id, event.id);
                    }
                }
            })
        })
        .collect();
    for logger in loggers {
        logger.await.unwrap();
    }
    let mut seen: Vec<LoggedEvent> = Vec::new();
    loop {
        let position = seen.last().map_or(0, |logged| logged.position);
        let page = store.one.events_after(position, None, 50).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen.len(), events.len());
    let mut sequences: HashMap<String, u64> = HashMap::new();
    for (position, logged) in (1..).zip(&seen) {
        assert_eq!(logged.position, position);
        let sequence = sequences.entry(logged.event.partner.to_string()).or_default();
        *sequence += 1;
        assert_eq!(logged.event.sequence.parse::<u64>().unwrap(), *sequence);
    }
    let widths: Vec<usize> = seen.iter().map(|logged| logged.event.sequence.len()).collect();
    assert!(
        widths.iter().all(|width| *width >= 10 && Some(width) == widths.first()),
        "zero-padded: {widths:?}"
    );
    assert!(events.iter().all(|event| seen.iter().any(|logged| logged.event.id == event.id)));
}

/// Logged again, alone or among new ones.
pub async fn an_event_keeps_its_numbers(store: &Fixture) {
    let record = upload("acme", "/upload/x", 1);
    let (first, second, third) = (event(&record), event(&record), event(&record));
    let before = store.one.log_events(vec![first.clone(), second.clone()]).await.unwrap();
    let after = store.two.log_events(vec![third.clone(), first.clone(), second.clone()]).await.unwrap();
    let numbers = |logged: &[LoggedEvent]| {
        logged.iter().map(|l| (l.position, l.event.id, l.event.sequence.clone())).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&after)[1..], numbers(&before)[..]);
    assert_eq!(after[0].position, 3);
    let mut unnumbered = after[0].event.clone();
    unnumbered.sequence = String::new();
    assert_eq!(unnumbered, third, "nothing but the number is filled in");
    assert_eq!(store.one.events_after(3, None, 10).await.unwrap().len(), 0);
    assert_eq!(numbers(&store.one.events_after(1, None, 1).await.unwrap()), numbers(&before[1..]));
    assert!(store.one.log_events(Vec::new()).await.unwrap().is_empty());
}

/// Nobody else's in between, and none left out, from whatever position.
pub async fn one_partners_events_page_by_position(store: &Fixture) {
    let uploads = ["acme", "other", "acme-2"].map(|name| upload(name, "/upload/x", 1));
    let events: Vec<Event> = (0..40).map(|n| event(&uploads[n * n % 3])).collect();
    let all = store.one.log_events(events).await.unwrap();
    for of in &uploads {
        let ours: Vec<u64> =
            all.iter().filter(|l| l.event.partner == of.partner).map(|l| l.position).collect();
        for from in [0, 7, 39, 40, u64::MAX] {
            let mut seen = Vec::new();
            loop {
                let after = seen.last().copied().unwrap_or(from);
                let page = store.two.events_after(after, Some(&of.partner), 4).await.unwrap();
                assert!(page.len() <= 4 && page.iter().all(|l| l.event.partner == of.partner));
                if page.is_empty() {
                    break;
                }
                seen.extend(page.iter().map(|l| l.position));
            }
            let expected: Vec<u64> = ours.iter().copied().filter(|position| *position > from).collect();
            assert_eq!(seen, expected, "{} after {from}", of.partner);
        }
    }
    assert!(store.one.events_after(0, Some(&partner("nobody")), 4).await.unwrap().is_empty());
}

/// Each reader has its own.
pub async fn cursors_never_go_back(store: &Fixture) {
    assert_eq!(store.one.cursor("ndjson").await.unwrap(), 0);
    for (given, kept) in [(5, 5), (3, 5), (9, 9), (9, 9)] {
        store.one.advance_cursor("ndjson", given).await.unwrap();
        assert_eq!(store.two.cursor("ndjson").await.unwrap(), kept);
    }
    assert_eq!(store.two.cursor("webhook").await.unwrap(), 0);
}
