//! Magika's model, asked for what the rules can't name.
//!
//! A run takes milliseconds of a core, which is more than the whole rest of taking in a small file. So it runs beside the
//! connections, few at a time, within a share of the processor and within the time that an acceptance may wait for it. Whatever
//! it can't do within these bounds is named by the rules alone, and the record says so.

mod allowance;
mod doubt;
mod features;
mod model;

#[cfg(test)]
mod tests;

use super::{ContentTypeConfig, Edges};
use allowance::Allowance;
use doubt::Doubt;
use dropgate_backends::observe::{Counter, Timing};
use dropgate_schemas::content::{ContentType, ModelMissed};
use model::{Answer, Model};
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Asks the model.
#[derive(Debug)]
pub(super) struct Learned {
    shared: Arc<Shared>,
    /// Runs at the same time: half of the cores.
    turns: Arc<Semaphore>,
    budget: Duration,
}

struct Shared {
    /// None if it could not be loaded.
    model: OnceLock<Option<Model>>,
    allowance: Mutex<Allowance>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("allowance", &self.allowance).finish_non_exhaustive()
    }
}

impl Learned {
    pub(super) fn new(config: &ContentTypeConfig) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                model: OnceLock::new(),
                allowance: Mutex::new(Allowance::new(config.cpu_percent, Instant::now())),
            }),
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
            budget: Duration::from_millis(config.budget_ms),
        }
    }

    /// Loads the model beside everything else, so that the first file need not wait for it.
    pub(super) fn load(&self) {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || shared.model().is_some());
    }

    /// Puts the model's answer in the place of what the rules found, where it is closer.
    pub(super) async fn refine(&self, found: ContentType, edges: &Edges) -> ContentType {
        let Some(doubt) = Doubt::about(&found) else { return found };
        match self.answer(edges).await {
            Some(Ok(answer)) if doubt.is_settled_by(&answer.kind) => answer.into(),
            Some(Ok(_)) | None => found,
            Some(Err(missed)) => ContentType { model_missed: Some(missed), ..found },
        }
    }

    /// What the model says, whatever the rules would; `None` without an answer.
    pub(super) async fn ask_anyway(&self, edges: &Edges) -> Option<ContentType> {
        self.answer(edges).await?.ok().map(Into::into)
    }

    /// What the model says; `None` for a file that holds too little.
    async fn answer(&self, edges: &Edges) -> Option<Result<Answer, ModelMissed>> {
        let features = features::features(edges.head(), edges.tail()?)?;
        Some(self.ask(features).await)
    }

    async fn ask(&self, features: Vec<i32>) -> Result<Answer, ModelMissed> {
        let begun = Instant::now();
        let answer = if self.shared.allowance().may_use(begun) {
            timeout(self.budget, self.run(features)).await.unwrap_or(Err(ModelMissed::Late))
        } else {
            Err(ModelMissed::Busy)
        };
        match &answer {
            Ok(_) => {
                Counter::ModelAnswered.one();
                Timing::Model.record(begun.elapsed());
            }
            Err(ModelMissed::Busy) => Counter::ModelBusy.one(),
            Err(ModelMissed::Late) => Counter::ModelLate.one(),
            Err(ModelMissed::Failed) => Counter::ModelFailed.one(),
        }
        answer
    }

    /// One run, when there is a turn for it. A run that nobody waits for any more keeps its turn until it ends.
    async fn run(&self, features: Vec<i32>) -> Result<Answer, ModelMissed> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| ModelMissed::Failed)?;
        let shared = Arc::clone(&self.shared);
        let ran = spawn_blocking(move || {
            let answer = shared.run(&features);
            drop(turn);
            answer
        });
        // A panic inside of the model is no reason to refuse a file.
        ran.await.unwrap_or(None).ok_or(ModelMissed::Failed)
    }
}

impl Shared {
    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        // Nothing panics while it is held.
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self) -> Option<&Model> {
        let load = || {
            Model::load()
                .inspect_err(|error| tracing::error!(%error, "the model that names types can't be loaded: they are named by rules alone"))
                .ok()
        };
        self.model.get_or_init(load).as_ref()
    }

    fn run(&self, features: &[i32]) -> Option<Answer> {
        let model = self.model()?;
        let begun = Instant::now();
        let answer = model.identify(features);
        self.allowance().used(begun.elapsed(), Instant::now());
        answer.inspect_err(|error| tracing::warn!(%error, "the model that names types failed")).ok()
    }
}
