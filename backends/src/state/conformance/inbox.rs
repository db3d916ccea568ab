//! Entries of `/inbox`.

use super::{
    Fixture,
    samples::{account, inbox_entry, path},
};
use crate::state::AuditQuery;
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    inbox::InboxEntry,
    time::Timestamp,
};

async fn write(store: &Fixture, entry: &InboxEntry) -> u64 {
    let audit = AuditEntry {
        account: Some(entry.account.clone()),
        subject: Some(entry.path.to_string()),
        ..AuditEntry::new(Action::InboxAdd, Actor::Operator { id: "op".to_owned() }, AuditResult::Ok)
    };
    let change = Change {
        subject: Subject::Inbox(entry.clone()),
        audit: vec![audit],
        outbox: Vec::new(),
        durability: Durability::Durable,
    };
    store.one.apply(change).await.unwrap()
}

/// Of one account only, names in byte order, page by page; a removed one can be read, and registered again.
pub async fn entries_are_listed_by_name_until_they_are_removed(store: &Fixture) {
    let acme = account("acme");
    let mut names: Vec<String> = (0..25).map(|n| format!("{}{n}", ["x", "Y", "\u{e9}"][n % 3])).collect();
    for name in &names {
        let mut entry = inbox_entry("acme", &format!("/inbox/{name}"));
        entry.revision = write(store, &entry).await;
        assert_eq!(entry.revision, 1);
        assert_eq!(store.two.inbox_entry(&acme, &entry.path).await.unwrap(), Some(entry));
        write(store, &inbox_entry("other", &format!("/inbox/{name}"))).await;
    }
    names.sort();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = store.two.inbox(&acme, seen.last().map(String::as_str), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|entry| entry.path.name_key().to_owned()));
    }
    assert_eq!(seen, names);

    let mut gone = inbox_entry("acme", "/inbox/x0");
    (gone.revision, gone.removed_at) = (1, Some(Timestamp::now()));
    gone.revision = write(store, &gone).await;
    assert_eq!(store.two.inbox_entry(&acme, &gone.path).await.unwrap(), Some(gone.clone()));
    assert_eq!(store.two.inbox(&acme, None, 100).await.unwrap().len(), 24);
    gone.removed_at = None;
    assert_eq!(write(store, &gone).await, 3);
    assert_eq!(store.two.inbox(&acme, None, 100).await.unwrap().len(), 25);

    assert_eq!(store.two.inbox_entry(&acme, &path("/inbox/none")).await.unwrap(), None);
    assert_eq!(store.two.inbox_entry(&account("nobody"), &gone.path).await.unwrap(), None);
    assert!(store.two.inbox(&account("nobody"), None, 100).await.unwrap().is_empty());
    write(store, &inbox_entry("acme", "/inbox/u\u{308}")).await;
    assert!(store.two.inbox_entry(&acme, &path("/inbox/\u{fc}")).await.unwrap().is_some());

    let query = AuditQuery { path: Some("/inbox/x0".to_owned()), limit: 10, ..AuditQuery::default() };
    assert_eq!(store.two.audit(query).await.unwrap().len(), 4, "three of acme, one of the other account");
}
