//! What every state store promises, as tests that each adapter passes unchanged: [`state_store_conformance!`] makes one
//! test of each case. A case gets a store of its own, seen through two handles as two processes would see it.
//!
//! [`state_store_conformance!`]: crate::state_store_conformance

pub mod accounts;
pub mod audit;
pub mod backlog;
pub mod changes;
pub mod dice;
pub mod directories;
pub mod events;
pub mod inbox;
pub mod leases;
pub mod model;
pub mod outbox;
pub mod queries;
pub mod random;
pub mod samples;
pub mod states;
pub mod tokens;
pub mod usage;
pub mod waiting;

use super::StateStore;
use std::{any::Any, sync::Arc};

/// A store with nothing in it.
pub struct Fixture {
    /// One handle.
    pub one: Arc<dyn StateStore>,
    /// Another handle on the same records, which shares nothing with the first within the process.
    pub two: Arc<dyn StateStore>,
    /// What must live as long as the store: its directory, its server.
    pub keep: Box<dyn Any + Send>,
}

/// One test for each case of the conformance suite. Takes the path of a function without arguments that returns a future
/// of a [`Fixture`].
#[macro_export]
macro_rules! state_store_conformance {
    ($open:path) => {
        $crate::state_store_conformance! { $open;
            changes {
                a_new_record_is_at_revision_one_and_reads_back_as_it_was_written,
                every_kind_of_subject_is_conditional_on_its_revision,
                a_number_is_given_to_one_version_of_a_path,
                audit_and_outbox_come_with_the_record_or_not_at_all,
                one_of_many_racing_changes_wins,
                a_refused_change_takes_no_other_with_it,
                inline_content_comes_with_the_record,
                the_answered_mark_is_no_revision_and_stays,
            }
            states { arrows_are_followed_and_audited, }
            queries {
                every_condition_in_every_order_agrees_with_the_model,
                pages_newest_first_lose_and_repeat_nothing,
                pages_by_name_lose_and_repeat_nothing,
                two_spellings_of_a_name_are_one_path,
            }
            directories { they_show_where_they_should_and_page_by_name, }
            inbox { entries_are_listed_by_name_until_they_are_removed, }
            usage { complete_uploads_count_from_the_day_they_were_opened, }
            accounts { they_are_kept_and_listed_by_name, }
            tokens { tokens_are_kept_listed_by_id_and_seen_revoked_at_once, }
            audit {
                the_bytes_are_those_that_were_written,
                every_condition_agrees_with_the_model,
            }
            outbox {
                entries_are_due_by_kind_in_the_order_of_storing,
                what_is_put_off_comes_back_in_its_time,
            }
            events {
                two_loggers_leave_no_gap_and_repeat_nothing,
                an_event_keeps_its_numbers,
                one_partners_events_page_by_position,
                cursors_never_go_back,
            }
            leases {
                a_lease_has_one_holder_until_it_stands_still,
                a_lease_that_is_given_back_is_free_at_once,
                heartbeats_are_counted,
                a_key_belongs_to_one_path,
            }
            backlog { it_counts_what_is_there, }
            waiting {
                a_change_by_anybody_ends_the_wait,
                a_change_just_before_the_wait_is_not_missed,
            }
            random { many_changes_agree_with_the_model, }
        }
    };
    ($open:path; $($module:ident { $($case:ident,)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = $open().await;
                $crate::state::conformance::$module::$case(&fixture).await;
                fixture.two.close().await;
                fixture.one.close().await;
            }
        )+)+
    };
}
