use super::open;
use crate::state::conformance::Fixture;

async fn two_handles() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dropgate.db");
    let (one, _) = open(&path).unwrap();
    let (two, _) = open(&path).unwrap();
    Fixture { one, two, keep: Box::new(dir) }
}

crate::state_store_conformance!(two_handles);
