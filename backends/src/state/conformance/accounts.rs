//! Accounts.

use super::{
    Fixture,
    samples::{account, login},
};
use dropgate_schemas::change::{Change, Durability, Subject};

/// Removed ones too.
pub async fn they_are_kept_and_listed_by_name(store: &Fixture) {
    let mut names = ["mike", "alpha", "zulu", "0-first", "alpha-2", "alpha_1"];
    for name in names {
        let mut login = login(name);
        login.removed = name == "zulu";
        let change = Change {
            subject: Subject::Account(login.clone()),
            audit: Vec::new(),
            outbox: Vec::new(),
            durability: Durability::Durable,
        };
        login.revision = store.one.apply(change).await.unwrap();
        assert_eq!(store.two.account(&login.name).await.unwrap(), Some(login));
    }
    assert_eq!(store.two.account(&account("nobody")).await.unwrap(), None);
    names.sort_unstable();
    let mut seen = Vec::new();
    loop {
        let page = store.two.list_accounts(seen.last(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|a| a.name));
    }
    assert_eq!(seen.iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
    let asked = [account("zulu"), account("nobody"), account("mike")];
    let mut several: Vec<String> =
        store.two.accounts(&asked).await.unwrap().into_iter().map(|a| a.name.to_string()).collect();
    several.sort_unstable();
    assert_eq!(several, ["mike", "zulu"]);
    assert!(store.two.accounts(&[]).await.unwrap().is_empty());
}
