//! What is found when the database is opened.

use super::{super::collections::ALL, setting::Place};
use crate::state::conformance::samples;
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

/// What and remedy of the refusal, in one line.
async fn refused(place: &Place) -> String {
    let Err(failure) = place.try_open().await else { panic!("it was opened") };
    assert!(!failure.what.is_empty() && !failure.remedy.is_empty(), "{failure:?}");
    format!("{}; {}", failure.what, failure.remedy)
}

#[tokio::test]
async fn a_collection_of_another_program_is_named_and_left_alone() {
    for name in ["dg_uploads", "dg_meta"] {
        let place = Place::new();
        let raw = place.raw().await;
        let theirs: Collection<Document> = raw.collection(name);
        theirs.insert_one(doc! { "_id": 1, "theirs": true }).await.unwrap();
        let said = refused(&place).await;
        assert!(said.contains(name) && said.contains(raw.name()) && said.contains("prefix"), "{said}");
        assert_eq!(raw.list_collection_names().await.unwrap(), [name], "something was made");
        assert_eq!(theirs.count_documents(doc! {}).await.unwrap(), 1);
        // Beside it there is room.
        let mut beside = Place::new();
        beside.settings.database.clone_from(&place.settings.database);
        beside.settings.prefix = "other_".to_owned();
        beside.open().await.close().await;
        assert_eq!(theirs.find_one(doc! {}).await.unwrap().unwrap(), doc! { "_id": 1, "theirs": true });
    }
}

#[tokio::test]
async fn the_mark_of_another_program_is_not_taken_for_ours() {
    let place = Place::new();
    let meta: Collection<Document> = place.raw().await.collection("dg_meta");
    meta.insert_one(doc! { "_id": "schema", "application": "other", "version": 1 }).await.unwrap();
    let said = refused(&place).await;
    assert!(said.contains("dg_meta") && said.contains("not Dropgate's"), "{said}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_an_unfinished_one_is_finished() {
    let place = Place::new();
    place.open().await.close().await;
    let raw = place.raw().await;
    let meta: Collection<Document> = raw.collection("dg_meta");
    let set = async |version: i64| {
        meta.update_one(doc! { "_id": "schema" }, doc! { "$set": { "version": version } }).await.unwrap();
    };
    set(99).await;
    let said = refused(&place).await;
    assert!(said.contains("schema 99") && said.contains("run the newer version"), "{said}");
    // The process that made it ended after its mark.
    set(0).await;
    for name in ALL.into_iter().filter(|name| *name != "meta") {
        raw.collection::<Document>(&format!("dg_{name}")).drop().await.unwrap();
    }
    let store = place.open().await;
    store.apply(samples::created(&samples::upload("acme", "/upload/x", 1))).await.unwrap();
    let schema = meta.find_one(doc! { "_id": "schema" }).await.unwrap().unwrap();
    assert_eq!(schema.get_i64("version").unwrap(), 1, "{schema}");
    let found = raw.collection::<Document>("dg_uploads").list_index_names().await.unwrap();
    assert!(found.iter().any(|name| name == "by_path"), "{found:?}");
}

#[tokio::test]
async fn many_may_open_an_empty_database_at_once() {
    let place = Place::new();
    let opened = futures::future::join_all((0..6).map(|_| place.try_open())).await;
    for store in opened {
        store.unwrap().check().await.unwrap();
    }
}

#[tokio::test]
async fn indexes_that_are_missing_are_made_and_those_that_differ_are_refused() {
    let place = Place::new();
    let store = place.open().await;
    let upload = samples::upload("acme", "/upload/x", 1);
    store.apply(samples::created(&upload)).await.unwrap();
    let uploads: Collection<Document> = place.raw().await.collection("dg_uploads");
    uploads.drop_index("by_path").await.unwrap();
    let again = place.open().await;
    let twin = samples::upload("acme", "/upload/x", 1);
    assert!(again.apply(samples::created(&twin)).await.is_err(), "one number was given to two versions");

    let other = IndexModel::builder()
        .keys(doc! { "record.account": 1, "keys.path": 1, "record.version": -1 })
        .options(IndexOptions::builder().name("by_path".to_owned()).build())
        .build();
    uploads.drop_index("by_path").await.unwrap();
    uploads.create_index(other).await.unwrap();
    let said = refused(&place).await;
    assert!(
        said.contains("by_path") && said.contains(r#"getCollection("dg_uploads").dropIndex("by_path")"#),
        "{said}"
    );

    // While it was not unique, a second version of that number came in.
    again.apply(samples::created(&twin)).await.unwrap();
    uploads.drop_index("by_path").await.unwrap();
    let said = refused(&place).await;
    assert!(said.contains("by_path") && said.contains("repeat"), "{said}");
    uploads.delete_one(doc! { "_id": twin.upload_id.to_string() }).await.unwrap();
    place.open().await.close().await;
}

#[tokio::test]
async fn a_login_that_is_not_taken_is_named_without_the_password() {
    let mut place = Place::new();
    place.settings.uri = place.settings.uri.replacen("mongodb://", "mongodb://nobody:canary-7k@", 1);
    let said = refused(&place).await;
    assert!(said.contains("check user, password and authSource"), "{said}");
    assert!(!said.contains("canary-7k"), "{said}");
    // So that the database is removed in the end.
    place.settings.uri = super::setting::shared();
}

#[tokio::test]
async fn a_record_can_be_read_by_people() {
    let place = Place::new();
    let store = place.open().await;
    let upload = samples::full_upload("acme", "/upload/in/\u{fc}.csv", 1);
    store.apply(samples::created(&upload)).await.unwrap();
    let uploads: Collection<Document> = place.raw().await.collection("dg_uploads");
    let found = uploads.find_one(doc! { "_id": upload.upload_id.to_string() }).await.unwrap().unwrap();
    let record = found.get_document("record").unwrap();
    assert_eq!(record.get_str("state").unwrap(), "receiving");
    assert_eq!(record.get_str("path").unwrap(), "/upload/in/\u{fc}.csv");
    assert_eq!(record.get_i32("revision").unwrap(), 1);
    assert_eq!(record.get("size").unwrap().to_string(), u64::MAX.to_string());
    assert_eq!(found.get_document("keys").unwrap().get_str("directory").unwrap(), "/upload/in");
}
