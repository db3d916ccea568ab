//! Directories.

use super::{
    Fixture,
    samples::{account, directory, path},
};
use dropgate_schemas::{
    change::{Change, Durability, Subject},
    directory::Directory,
    path::Area,
};

async fn write(store: &Fixture, directory: Directory) -> u64 {
    let change = Change {
        subject: Subject::Directory(directory),
        audit: Vec::new(),
        outbox: Vec::new(),
        durability: Durability::Durable,
    };
    store.one.apply(change).await.unwrap()
}

/// By area, direct children only, of one account only, names in byte order.
pub async fn they_show_where_they_should_and_page_by_name(store: &Fixture) {
    let mut names: Vec<String> = (0..25).map(|n| format!("{}{n}", ["x", "Y", "\u{e9}"][n % 3])).collect();
    for name in &names {
        for place in
            [format!("/upload/in/{name}"), format!("/upload/{name}"), format!("/upload/in/{name}/deeper")]
        {
            assert_eq!(write(store, directory("acme", &place)).await, 1);
        }
        write(store, directory("other", &format!("/upload/in/{name}"))).await;
    }
    let mut hidden = directory("acme", "/upload/in/hidden");
    (hidden.in_upload, hidden.in_sent, hidden.in_failed) = (false, true, false);
    hidden.revision = write(store, hidden.clone()).await;
    names.sort();
    let (acme, parent) = (account("acme"), path("/upload/in"));
    let mut seen: Vec<String> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let page = store.two.directories(&acme, &parent, Area::Upload, after.as_deref(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|d| d.path.name_key().to_owned()));
    }
    assert_eq!(seen, names);
    for (area, count) in [(Area::Upload, 25), (Area::Sent, 26), (Area::Failed, 25), (Area::Inbox, 0)] {
        let found = store.two.directories(&acme, &parent, area, None, 100).await.unwrap();
        assert_eq!(found.len(), count, "{area:?}");
    }
    assert_eq!(store.two.directory(&acme, &path("/upload/in/hidden")).await.unwrap(), Some(hidden.clone()));
    hidden.in_upload = true;
    assert_eq!(write(store, hidden).await, 2);
    assert_eq!(store.two.directories(&acme, &parent, Area::Upload, None, 100).await.unwrap().len(), 26);
    assert_eq!(store.two.directory(&acme, &path("/upload/in/none")).await.unwrap(), None);
    assert_eq!(store.two.directory(&account("nobody"), &path("/upload/in/hidden")).await.unwrap(), None);
    let spelled = directory("acme", "/upload/u\u{308}");
    write(store, spelled).await;
    assert!(store.two.directory(&acme, &path("/upload/\u{fc}")).await.unwrap().is_some());
}
