//! How SQLite goes about the queries of the hot path, and that it can go about all of them.

use super::super::{find::Search, open};
use crate::state::{
    UploadOrder, UploadQuery,
    conformance::{dice::Dice, random::any_query, samples},
};
use dropgate_schemas::path::Area;

fn database() -> (tempfile::TempDir, rusqlite::Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    drop(open(&path).unwrap());
    let db = rusqlite::Connection::open(path).unwrap();
    (dir, db)
}

fn plan(db: &rusqlite::Connection, query: &UploadQuery) -> Vec<String> {
    let search = Search::new(query);
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {}", search.sql())).unwrap();
    let rows = statement.query_map(search.values(), |row| row.get(3)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn listings_and_look_ups_follow_an_index_and_sort_nothing() {
    let (_dir, db) = database();
    let acme = Some(samples::account("acme"));
    let listing = UploadQuery {
        account: acme.clone(),
        directory: Some(samples::path("/upload/a")),
        area: Some(Area::Sent),
        limit: 100,
        ..Default::default()
    };
    let of_path = UploadQuery {
        account: acme.clone(),
        path: Some(samples::path("/upload/a/b")),
        order: UploadOrder::ByVersion,
        limit: 1,
        ..Default::default()
    };
    for (query, wanted) in [
        (UploadQuery { order: UploadOrder::ByName, ..listing.clone() }, "account=? AND dir_key=? AND area=?"),
        (
            UploadQuery { order: UploadOrder::ByNameAfter("x".to_owned()), ..listing },
            "account=? AND dir_key=? AND area=? AND name_key>?",
        ),
        (of_path.clone(), "account=? AND path_key=?"),
        (UploadQuery { area: Some(Area::Upload), ..of_path }, "account=? AND path_key=?"),
        (UploadQuery { account: acme, limit: 100, ..Default::default() }, "account=?"),
        (UploadQuery { limit: 100, ..Default::default() }, "uploads_by_id"),
    ] {
        let plan = plan(&db, &query);
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].contains(wanted), "{plan:?}");
    }
}

#[test]
fn every_query_has_a_plan() {
    let (_dir, db) = database();
    let mut dice = Dice::new(3);
    for _ in 0..2_000 {
        plan(&db, &any_query(&mut dice, &[]));
    }
}
