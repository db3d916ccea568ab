//! Against a real server: `scripts/services` starts one, `DROPGATE_TEST_MONGODB_URI` names it.

mod faults;
mod lost_answers;
mod measure;
mod opening;
mod placing;
mod setting;

use crate::state::conformance::Fixture;
use setting::Place;

async fn two_handles() -> Fixture {
    let place = Place::new();
    let (one, two) = (place.open().await, place.open().await);
    Fixture { one, two, keep: Box::new(place) }
}

crate::state_store_conformance!(two_handles);
