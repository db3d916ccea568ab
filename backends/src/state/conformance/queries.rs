//! Finding uploads.

use super::{
    Fixture,
    dice::Dice,
    model,
    random::{any_query, any_upload},
    samples::{self, created, path, upload},
};
use crate::state::{UploadOrder, UploadQuery};
use dropgate_schemas::{
    path::Area,
    upload::{Upload, UploadState},
};
use std::collections::HashSet;

/// 150 uploads of every kind, 1,500 queries of every combination.
pub async fn every_condition_in_every_order_agrees_with_the_model(store: &Fixture) {
    let mut dice = Dice::new(1);
    let mut all: Vec<Upload> = Vec::new();
    while all.len() < 150 {
        let mut upload = any_upload(&mut dice);
        let same = |other: &&Upload| other.account == upload.account && other.path == upload.path;
        upload.version = all.iter().filter(same).map(|u| u.version).max().unwrap_or(0) + 1;
        upload.revision = store.one.apply(created(&upload)).await.unwrap();
        all.push(upload);
    }
    for n in 0..1_500 {
        let query = any_query(&mut dice, &all);
        let found = store.two.find(query.clone()).await.unwrap();
        agree(&found, &model::find(&all, &query), &query, n);
    }
}

/// The same uploads in the same order; where the order leaves a choice (one name in several directories, one version of
/// several paths), the choice may differ.
pub(super) fn agree(found: &[Upload], expected: &[Upload], query: &UploadQuery, n: usize) {
    let key = |upload: &Upload| match query.order {
        UploadOrder::NewestFirst | UploadOrder::Before(_) => (upload.upload_id.to_string(), 0),
        UploadOrder::ByName | UploadOrder::ByNameAfter(_) => {
            (upload.path.name_key().to_owned(), upload.version)
        }
        UploadOrder::ByVersion => (String::new(), upload.version),
    };
    let keys = |uploads: &[Upload]| uploads.iter().map(key).collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "query {n}: {query:#?}");
    let ids: HashSet<_> = found.iter().map(|u| u.upload_id).collect();
    assert_eq!(ids.len(), found.len(), "an upload was found twice by query {n}: {query:#?}");
    for upload in found {
        assert_eq!(
            model::find(std::slice::from_ref(upload), &UploadQuery { limit: 1, ..query.clone() }).len(),
            1,
            "found by query {n} but should not be: {query:#?} {upload:#?}"
        );
    }
}

/// While others come in.
pub async fn pages_newest_first_lose_and_repeat_nothing(store: &Fixture) {
    let mut opened = Vec::new();
    for n in 0..55 {
        let upload = upload("acme", &format!("/upload/{n}"), 1);
        store.one.apply(created(&upload)).await.unwrap();
        opened.push(upload.upload_id);
    }
    opened.reverse();
    let mut order = UploadOrder::NewestFirst;
    let mut seen = Vec::new();
    loop {
        let query =
            UploadQuery { account: Some(samples::account("acme")), limit: 10, order, ..Default::default() };
        let page = store.two.find(query).await.unwrap();
        let Some(last) = page.last() else { break };
        order = UploadOrder::Before(last.upload_id);
        seen.extend(page.iter().map(|u| u.upload_id));
        let late = upload("acme", &format!("/upload/late-{}", seen.len()), 1);
        store.one.apply(created(&late)).await.unwrap();
    }
    assert_eq!(seen, opened);
}

/// Names that sort by bytes, in a directory beside others.
pub async fn pages_by_name_lose_and_repeat_nothing(store: &Fixture) {
    let mut names: Vec<String> =
        (0..40).map(|n| format!("{}-{n}", ["a", "B", "\u{e4}", "\u{1f600}", "z z"][n % 5])).collect();
    for name in &names {
        for place in ["/upload/here", "/upload/here/below", "/upload/hereafter", "/upload"] {
            store.one.apply(created(&upload("acme", &format!("{place}/{name}"), 1))).await.unwrap();
        }
        store.one.apply(created(&upload("acme", &format!("/upload/here/{name}"), 2))).await.unwrap();
        let mut gone = upload("acme", &format!("/upload/here/gone {name}"), 1);
        gone.state = UploadState::Aborted;
        store.one.apply(created(&gone)).await.unwrap();
    }
    names.sort();
    let mut order = UploadOrder::ByName;
    let mut seen = Vec::new();
    loop {
        let query = UploadQuery {
            account: Some(samples::account("acme")),
            directory: Some(path("/upload/here")),
            area: Some(Area::Upload),
            limit: 7,
            order,
            ..Default::default()
        };
        let page = store.two.find(query).await.unwrap();
        let Some(last) = page.last() else { break };
        order = UploadOrder::ByNameAfter(last.path.name_key().to_owned());
        for upload in &page {
            // Both versions of a name stand side by side, the higher first; the lower may fall to the page break.
            if seen.last().is_none_or(|name: &String| name != upload.path.name_key()) {
                assert_eq!(upload.version, 2);
                seen.push(upload.path.name_key().to_owned());
            } else {
                assert_eq!(upload.version, 1);
            }
        }
    }
    assert_eq!(seen, names);
}

/// The key decides; each upload keeps its own spelling.
pub async fn two_spellings_of_a_name_are_one_path(store: &Fixture) {
    let nfd = upload("acme", "/upload/u\u{308}/o\u{308}", 1);
    let nfc = upload("acme", "/upload/\u{fc}/\u{f6}", 2);
    store.one.apply(created(&nfd)).await.unwrap();
    store.one.apply(created(&nfc)).await.unwrap();
    let account = Some(samples::account("acme"));
    for spelling in [&nfd.path, &nfc.path] {
        for query in [
            UploadQuery { path: Some(spelling.clone()), ..Default::default() },
            UploadQuery { directory: Some(spelling.parent()), ..Default::default() },
            UploadQuery { under: Some(spelling.parent()), ..Default::default() },
        ] {
            let query =
                UploadQuery { account: account.clone(), order: UploadOrder::ByVersion, limit: 10, ..query };
            let found = store.two.find(query).await.unwrap();
            let spelled: Vec<&str> = found.iter().map(|u| u.path.as_str()).collect();
            assert_eq!(spelled, [nfc.path.as_str(), nfd.path.as_str()]);
        }
    }
}
