//! The rules first, then, where they found nothing closer than "text" or "a ZIP archive", the learned model.

use super::{Edges, by_rules};
use crate::listener::SettingError;
use dropgate_schemas::content::ContentType;
use serde::{Deserialize, Serialize};

/// `[gateway.content_type]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContentTypeConfig {
    /// Whether Magika's model is asked for what the rules can't name. Default true, in a program that was built with the
    /// feature `magika`; others refuse true.
    pub learned: bool,
    /// Milliseconds by which it may delay an acceptance, the wait for its turn included. Default 100.
    pub budget_ms: u64,
    /// How much of one core it may use, in per cent, over some ten seconds; what comes beyond that is named by the rules alone.
    /// Default 10.
    pub cpu_percent: u32,
}

impl Default for ContentTypeConfig {
    fn default() -> Self {
        Self { learned: cfg!(feature = "magika"), budget_ms: 100, cpu_percent: 10 }
    }
}

impl ContentTypeConfig {
    /// Everything in these settings that can't work.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingError> {
        [
            (
                cfg!(feature = "magika") || !self.learned,
                "learned",
                self.learned.to_string(),
                "this program was built without the feature `magika`: write false",
            ),
            (
                (1..=5000).contains(&self.budget_ms),
                "budget_ms",
                self.budget_ms.to_string(),
                "write 1 to 5000: a client waits for it",
            ),
            (
                (1..=1000).contains(&self.cpu_percent),
                "cpu_percent",
                self.cpu_percent.to_string(),
                "write 1 to 1000, or turn the model off with learned = false",
            ),
        ]
        .into_iter()
        .filter(|(good, ..)| !good)
        .map(|(_, key, value, why)| SettingError { key, value, why })
        .collect()
    }
}

/// Names the types of the files that come in. One serves a whole gateway.
#[derive(Debug, Default)]
pub struct Detector {
    #[cfg(feature = "magika")]
    learned: Option<super::learned::Learned>,
}

impl Detector {
    /// As `config` says. The model is loaded by [`Self::load`], or by the first file that needs it.
    #[must_use]
    pub fn new(
        #[cfg_attr(
            not(feature = "magika"),
            expect(unused_variables, reason = "all of it is about the model")
        )]
        config: &ContentTypeConfig,
    ) -> Self {
        Self {
            #[cfg(feature = "magika")]
            learned: config.learned.then(|| super::learned::Learned::new(config)),
        }
    }

    /// Loads the model in the background, if there is one.
    pub fn load(&self) {
        #[cfg(feature = "magika")]
        if let Some(learned) = &self.learned {
            learned.load();
        }
    }

    /// Names the content with these edges. Takes at most the budget of the configuration.
    pub async fn detect(&self, edges: &Edges) -> ContentType {
        let found = by_rules(edges.head(), edges.length());
        #[cfg(feature = "magika")]
        if let Some(learned) = &self.learned {
            return learned.refine(found, edges).await;
        }
        found
    }

    /// What the model says, whatever the rules would: `None` if it is not there, gives no answer, or has too little to look at.
    pub async fn ask_model(&self, edges: &Edges) -> Option<ContentType> {
        #[cfg(feature = "magika")]
        return self.learned.as_ref()?.ask_anyway(edges).await;
        #[cfg(not(feature = "magika"))]
        {
            let _ = edges;
            None
        }
    }
}
