//! What the queue carries: a doorbell. The truth is the record.

use crate::id::{DeliveryId, OutboxId, UploadId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One message of the job queue. Losing, repeating or reordering it does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The outbox entry that asked for it.
    pub entry: OutboxId,
    /// The upload to look at.
    pub upload: UploadId,
    /// What to do there.
    pub work: Work,
}

/// What a job asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Evaluate the routes and store the deliveries.
    Route,
    /// Make one delivery.
    Deliver {
        /// Which.
        delivery: DeliveryId,
    },
}
