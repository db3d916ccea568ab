//! Connecting, and what all parts of the adapter share: the collections, the watch, and the limits of every call.

use super::{
    collections as names, events,
    failure::OpenFailure,
    fault::{Fault, Outcome},
    placing::Placing,
    schema,
    watch::Watch,
};
use crate::state::StateError;
use mongodb::{
    Client, Collection,
    bson::Document,
    options::{ClientOptions, DatabaseOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern},
};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// What to connect to, and how.
#[derive(Clone)]
pub(super) struct Settings {
    /// The connection string. May hold a password.
    pub(super) uri: String,
    pub(super) database: String,
    pub(super) prefix: String,
    /// Longest time one call may take.
    pub(super) deadline: Duration,
    /// Longest wait for a server that can be written to.
    pub(super) selection: Duration,
    pub(super) connections_min: u32,
    pub(super) connections_max: u32,
}

/// Making an index on a large collection takes a while.
const PREPARING: Duration = Duration::from_secs(600);

/// One open database.
pub(super) struct Database {
    client: Client,
    pub(super) meta: Collection<Document>,
    pub(super) uploads: Collection<Document>,
    pub(super) directories: Collection<Document>,
    pub(super) accounts: Collection<Document>,
    pub(super) inbox: Collection<Document>,
    pub(super) tokens: Collection<Document>,
    pub(super) pending: Collection<Document>,
    pub(super) audit: Collection<Document>,
    pub(super) outbox: Collection<Document>,
    pub(super) event_log: Collection<Document>,
    pub(super) cursors: Collection<Document>,
    pub(super) leases: Collection<Document>,
    pub(super) instances: Collection<Document>,
    pub(super) key_reservations: Collection<Document>,
    pub(super) watch: Watch,
    pub(super) placing: Placing,
    pub(super) log_ends: events::Ends,
    /// Longest time for one call.
    budget: Duration,
    /// Longest time for one command: half of it, so that there is time to find out what became of it.
    attempt: Duration,
    closed: AtomicBool,
}

impl Database {
    /// Connects, checks what is there, and makes what is missing.
    pub(super) async fn open(settings: &Settings) -> Result<Arc<Self>, OpenFailure> {
        let mut options = ClientOptions::parse(&settings.uri).await?;
        options.app_name.get_or_insert_with(|| "dropgate".to_owned());
        options.server_selection_timeout = Some(settings.selection);
        options.connect_timeout = Some(settings.selection);
        options.max_pool_size = Some(settings.connections_max);
        options.min_pool_size = Some(settings.connections_min);
        let client = Client::with_options(options)?;
        let database = client.database_with_options(
            &settings.database,
            DatabaseOptions::builder()
                .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
                .read_concern(ReadConcern::majority())
                .write_concern(durable())
                .build(),
        );
        let prepared = schema::prepare(&database, &settings.prefix);
        tokio::time::timeout(PREPARING, prepared).await.map_err(|_| {
            OpenFailure::new(
                format!("its indexes were not made within {} s", PREPARING.as_secs()),
                "wait until the server has made them, or see its log for the cause",
            )
        })??;
        let collection = |name| database.collection(&format!("{}{name}", settings.prefix));
        // A little less than the decorator around the port allows.
        let budget = settings.deadline.mul_f64(0.9);
        let database = Arc::new(Self {
            meta: collection(names::META),
            uploads: collection(names::UPLOADS),
            directories: collection(names::DIRECTORIES),
            accounts: collection(names::ACCOUNTS),
            inbox: collection(names::INBOX),
            tokens: collection(names::TOKENS),
            pending: collection(names::PENDING),
            audit: collection(names::AUDIT),
            outbox: collection(names::OUTBOX),
            event_log: collection(names::EVENT_LOG),
            cursors: collection(names::CURSORS),
            leases: collection(names::LEASES),
            instances: collection(names::INSTANCES),
            key_reservations: collection(names::KEY_RESERVATIONS),
            watch: Watch::start(collection(names::PULSES), budget / 2),
            placing: Placing::default(),
            log_ends: events::Ends::default(),
            client,
            budget,
            attempt: budget / 2,
            closed: AtomicBool::new(false),
        });
        database.placing.start(&database);
        Ok(database)
    }

    /// One command that may be repeated or given up, within the time for one.
    pub(super) async fn command<T>(
        &self,
        command: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Outcome<T> {
        self.is_open()?;
        match tokio::time::timeout(self.attempt, command).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Fault::late(self.attempt)),
        }
    }

    /// Repeats something that may be repeated until its outcome is known or the time for a call is used up.
    pub(super) async fn insist<T, F: Future<Output = Outcome<T>>>(&self, what: impl Fn() -> F) -> Outcome<T> {
        let mut patience = self.patience();
        loop {
            match what().await {
                Err(fault @ Fault::Unknown(_)) => patience.wait(fault).await?,
                other => return other,
            }
        }
    }

    /// Changes one document that is made if it is not there. Done again where that is safe: the change must bear being made
    /// twice.
    pub(super) async fn upsert(
        &self,
        collection: &Collection<Document>,
        which: Document,
        change: Document,
    ) -> Outcome<()> {
        let (which, change) = (&which, &change);
        self.insist(move || async move {
            let update =
                collection.update_one(which.clone(), change.clone()).upsert(true).write_concern(visible());
            match self.command(update.into_future()).await {
                Ok(_) => Ok(()),
                // Made by somebody else at the same moment: now it is there.
                Err(Fault::Duplicate(why)) => Err(Fault::Unknown(why)),
                Err(fault) => Err(fault),
            }
        })
        .await
    }

    /// The time that a call has.
    pub(super) fn patience(&self) -> Patience {
        Patience { until: Instant::now() + self.budget - self.attempt, pause: FIRST_PAUSE }
    }

    /// Longest time for one command, as the server is told it.
    pub(super) const fn attempt(&self) -> Duration {
        self.attempt
    }

    fn is_open(&self) -> Result<(), StateError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StateError::Unavailable("the state store is closed".to_owned()));
        }
        Ok(())
    }

    /// Ends all that runs in the background and closes the connections.
    pub(super) async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.watch.stop();
        self.placing.stop();
        self.client.clone().shutdown().immediate(true).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.watch.stop();
        self.placing.stop();
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What is left of the time for a call. Pauses between tries grow, and differ so that rivals don't meet again and again.
pub(super) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Waits before the next try; when the time is used up, answers with what went wrong.
    pub(super) async fn wait(&mut self, fault: Fault) -> Result<(), Fault> {
        use rand::RngExt as _;
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..=1.5));
        if Instant::now() + pause >= self.until {
            return Err(fault);
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// On a majority of the servers, and in their journals.
pub(super) fn durable() -> WriteConcern {
    let mut concern = WriteConcern::majority();
    concern.journal = Some(true);
    concern
}

/// On a majority of the servers: what a power cut of all of them may take back.
pub(super) fn visible() -> WriteConcern {
    let mut concern = WriteConcern::majority();
    concern.journal = Some(false);
    concern
}

/// On the server that was asked: for what is confirmed by a later write, or needs no confirmation.
pub(super) fn hasty() -> WriteConcern {
    WriteConcern::nodes(1)
}
