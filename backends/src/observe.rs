//! What happens in this process, counted, so that every role can say it on `/metrics` without knowing who serves that.
//!
//! The figures are plain atomics: counting costs nothing worth speaking of and can't fail. Names, labels and help texts stand
//! here in one place; the `ops` crate prints them. A counter begins at zero with the process.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How a figure is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Name of the family, without the `_total` that counters get.
    pub name: &'static str,
    /// One label that tells the members of a family apart: name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// For people.
    pub help: &'static str,
}

macro_rules! label {
    () => {
        None
    };
    ($name:literal $value:literal) => {
        Some(($name, $value))
    };
}

macro_rules! figures {
    (
        $(#[$doc:meta])* $kind:ident: $atomic:ident;
        $($(#[$member_doc:meta])* $member:ident = $name:literal $($label:literal = $value:literal)?, $help:literal;)+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$member_doc])* #[doc = $help] $member,)+ }

        impl $kind {
            /// Every one, members of a family side by side.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// How it is printed.
            #[must_use]
            pub const fn describe(self) -> Description {
                match self {
                    $(Self::$member => Description { name: $name, label: label!($($label $value)?), help: $help },)+
                }
            }

            fn cell(self) -> &'static $atomic {
                match self {
                    $(Self::$member => { static CELL: $atomic = $atomic::new(0); &CELL })+
                }
            }
        }
    };
}

figures! {
    /// Things that only ever grow.
    Counter: AtomicU64;
    SessionsOpened = "dropgate_sessions", "SSH connections accepted";
    SessionsRefused = "dropgate_sessions_refused", "SSH connections closed at once because a limit was reached";
    LoginsAccepted = "dropgate_logins" "result" = "accepted", "Logins";
    LoginsRefused = "dropgate_logins" "result" = "refused", "Logins";
    LoginsWeak = "dropgate_logins_weak", "Logins that used an algorithm standing on SHA-1; `dropgate account list --weak-algorithms` says whose";
    RequestsRefused = "dropgate_requests_refused", "SFTP requests answered with an error";
    BytesReceived = "dropgate_received_bytes", "Bytes of WRITE requests taken in";
    UploadsOpened = "dropgate_uploads" "step" = "opened", "Uploads by the step they reached";
    UploadsInterrupted = "dropgate_uploads" "step" = "interrupted", "Uploads by the step they reached";
    UploadsAborted = "dropgate_uploads" "step" = "aborted", "Uploads by the step they reached";
    UploadsHeld = "dropgate_uploads" "step" = "held", "Uploads by the step they reached";
    UploadsAccepted = "dropgate_uploads" "step" = "accepted", "Uploads by the step they reached";
    UploadsProcessed = "dropgate_uploads" "step" = "processed", "Uploads by the step they reached";
    UploadsFailed = "dropgate_uploads" "step" = "failed", "Uploads by the step they reached";
    DeliveriesSucceeded = "dropgate_deliveries" "result" = "succeeded", "Delivery attempts by their result";
    DeliveriesDeferred = "dropgate_deliveries" "result" = "deferred", "Delivery attempts by their result";
    DeliveriesDead = "dropgate_deliveries" "result" = "dead_lettered", "Delivery attempts by their result";
    BytesDelivered = "dropgate_delivered_bytes", "Bytes written to destinations and verified";
    EventsPublished = "dropgate_events_published", "Events handed to the publisher";
    WebhooksTaken = "dropgate_webhook_posts" "result" = "taken", "Events posted to webhooks by what became of it";
    WebhooksRefused = "dropgate_webhook_posts" "result" = "refused", "Events posted to webhooks by what became of it";
    WebhooksPassedOver = "dropgate_webhook_posts" "result" = "passed_over", "Events posted to webhooks by what became of it";
    ApiAnswered = "dropgate_api_requests" "result" = "answered", "Requests to the HTTP API by what became of them";
    ApiRefused = "dropgate_api_requests" "result" = "refused", "Requests to the HTTP API by what became of them";
    ApiWrong = "dropgate_api_requests" "result" = "wrong", "Requests to the HTTP API by what became of them";
    ApiFailed = "dropgate_api_requests" "result" = "failed", "Requests to the HTTP API by what became of them";
    ModelAnswered = "dropgate_type_model" "result" = "answered", "Files whose type the learned model was to name, by what came of it";
    ModelBusy = "dropgate_type_model" "result" = "busy", "Files whose type the learned model was to name, by what came of it";
    ModelLate = "dropgate_type_model" "result" = "late", "Files whose type the learned model was to name, by what came of it";
    ModelFailed = "dropgate_type_model" "result" = "failed", "Files whose type the learned model was to name, by what came of it";
    JobsPublished = "dropgate_jobs_published", "Jobs put into the queue";
    ErrorsBlob = "dropgate_backend_errors" "backend" = "blob", "Calls to a backend that failed or took too long";
    ErrorsState = "dropgate_backend_errors" "backend" = "state", "Calls to a backend that failed or took too long";
    ErrorsQueue = "dropgate_backend_errors" "backend" = "queue", "Calls to a backend that failed or took too long";
    ErrorsEvents = "dropgate_backend_errors" "backend" = "events", "Calls to a backend that failed or took too long";
    ErrorsCredentials = "dropgate_backend_errors" "backend" = "credentials", "Calls to a backend that failed or took too long";
}

figures! {
    /// Things that come and go.
    Gauge: AtomicI64;
    SessionsOpen = "dropgate_sessions_open", "SSH connections open now";
    UploadsReceiving = "dropgate_uploads_receiving", "Upload handles open now";
    DeliveriesRunning = "dropgate_deliveries_running", "Deliveries this process works on now";
}

impl Counter {
    /// One more.
    pub fn one(self) {
        self.add(1);
    }
    /// So many more.
    pub fn add(self, n: u64) {
        self.cell().fetch_add(n, Relaxed);
    }
    /// How many since the process began.
    #[must_use]
    pub fn value(self) -> u64 {
        self.cell().load(Relaxed)
    }
}

impl Gauge {
    /// One more until the guard is dropped.
    #[must_use = "it counts for as long as the guard lives"]
    pub fn enter(self) -> Inside {
        self.cell().fetch_add(1, Relaxed);
        Inside(self)
    }
    /// How many now.
    #[must_use]
    pub fn value(self) -> i64 {
        self.cell().load(Relaxed)
    }
}

/// Counts as one in a [`Gauge`] for as long as it lives.
#[derive(Debug)]
pub struct Inside(Gauge);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.cell().fetch_sub(1, Relaxed);
    }
}

/// Upper bounds of the buckets of every [`Timing`], in seconds.
pub const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From CLOSE (or the final RENAME) to the durable acceptance.
    Acceptance,
    /// From the acceptance to the verified copy at one destination.
    Delivery,
    /// From the end of a file to the answer of the learned model on its type.
    Model,
}

/// Counts by bucket, not cumulative; the last one holds what is above every bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// One more than there are [`BUCKETS`].
    pub buckets: Vec<u64>,
    /// Sum of all durations in seconds.
    pub sum: f64,
}

struct Cells {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Cells {
    const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS.len() + 1], micros: AtomicU64::new(0) }
    }
}

impl Timing {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::Acceptance, Self::Delivery, Self::Model];

    /// How it is printed.
    #[must_use]
    pub const fn describe(self) -> Description {
        match self {
            Self::Acceptance => Description {
                name: "dropgate_acceptance_seconds",
                label: None,
                help: "From CLOSE (or the final RENAME) to the durable acceptance",
            },
            Self::Delivery => Description {
                name: "dropgate_delivery_seconds",
                label: None,
                help: "From the acceptance to the verified copy at one destination",
            },
            Self::Model => Description {
                name: "dropgate_type_model_seconds",
                label: None,
                help: "From the end of a file to the answer of the learned model on its type",
            },
        }
    }

    fn cells(self) -> &'static Cells {
        static ACCEPTANCE: Cells = Cells::new();
        static DELIVERY: Cells = Cells::new();
        static MODEL: Cells = Cells::new();
        match self {
            Self::Acceptance => &ACCEPTANCE,
            Self::Delivery => &DELIVERY,
            Self::Model => &MODEL,
        }
    }

    /// Records one duration.
    pub fn record(self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        let cells = self.cells();
        if let Some(bucket) = cells.buckets.get(place) {
            bucket.fetch_add(1, Relaxed);
        }
        cells.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Everything recorded since the process began.
    #[must_use]
    pub fn distribution(self) -> Distribution {
        let cells = self.cells();
        Distribution {
            buckets: cells.buckets.iter().map(|c| c.load(Relaxed)).collect(),
            sum: Duration::from_micros(cells.micros.load(Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_grow_and_gauges_come_back() {
        let before = Counter::JobsPublished.value();
        Counter::JobsPublished.add(3);
        assert!(Counter::JobsPublished.value() >= before + 3);
        let inside = Gauge::DeliveriesRunning.enter();
        assert!(Gauge::DeliveriesRunning.value() >= 1);
        drop(inside);
        assert_eq!(Gauge::DeliveriesRunning.value(), 0);
    }

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        Timing::Delivery.record(Duration::from_millis(1));
        Timing::Delivery.record(Duration::from_secs(60));
        let seen = Timing::Delivery.distribution();
        assert_eq!(seen.buckets.first(), Some(&1));
        assert_eq!(seen.buckets.last(), Some(&1));
        assert!((seen.sum - 60.001).abs() < 1e-6);
    }

    #[test]
    fn members_of_a_family_share_name_and_help_and_stand_side_by_side() {
        let mut families: Vec<Description> = Vec::new();
        for description in Counter::ALL.iter().map(|c| c.describe()) {
            match families.last() {
                Some(last) if last.name == description.name => {
                    assert_eq!(last.help, description.help);
                    assert_ne!(last.label, description.label);
                }
                _ => assert!(families.iter().all(|f| f.name != description.name), "{}", description.name),
            }
            families.push(description);
        }
    }
}
