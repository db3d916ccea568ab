//! Memory for payload that the storage has not taken yet: one budget for a connection, one for the gateway.
//!
//! Bytes are counted, not buffers. A WRITE takes its bytes from both budgets before they are copied; they are given
//! back when the storage is done with them. Nothing else is waited for, which keeps intake and output independent.
//!
//! Blocks that are only half full hold memory too, and nobody would ever finish them if their clients pause. Therefore
//! a waiter makes *pressure*: the workers of other uploads then stage what they have. Small uploads, which have no
//! worker, live in a part of the gateway's budget of their own.

use super::spare::Spare;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};

/// Default bytes in memory for the uploads of one connection.
pub const CONNECTION_BYTES: usize = 8 << 20;

/// The most bytes of buffers that are kept for the next blocks, beside the budgets.
const SPARE_BYTES: usize = 8 << 20;

/// How often a waiter asks others for memory.
const PRESSURE_INTERVAL: Duration = Duration::from_millis(250);

/// A number of bytes that may be in memory at a time.
#[derive(Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    pressure: watch::Sender<()>,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let bytes = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { bytes, pressure: watch::Sender::new(()) })
    }

    /// Bytes that are free now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.bytes.available_permits()
    }

    fn try_acquire(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }

    async fn acquire(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        if let Some(permit) = self.try_acquire(bytes) {
            return Some(permit);
        }
        let acquire = Arc::clone(&self.bytes).acquire_many_owned(bytes);
        tokio::pin!(acquire);
        // Not at once: the storage mostly frees memory by itself, and blocks staged half full cost throughput.
        let mut ask = interval_at(Instant::now() + PRESSURE_INTERVAL, PRESSURE_INTERVAL);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // Fails only for a closed semaphore, and these are never closed.
                permit = &mut acquire => return permit.ok(),
                _ = ask.tick() => { self.pressure.send_replace(()); }
            }
        }
    }
}

/// The memory of all uploads of a gateway.
#[derive(Debug)]
pub struct GatewayBudget {
    blocks: Arc<Budget>,
    small: Arc<Semaphore>,
    pub(super) spare: Arc<Spare>,
}

impl GatewayBudget {
    /// Splits `bytes` into three quarters for uploads that stream to the blob store and one for small ones.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let small = (bytes / 4).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            blocks: Budget::new(bytes - bytes / 4),
            small: Arc::new(Semaphore::new(small)),
            spare: Arc::new(Spare::new((bytes / 16).min(SPARE_BYTES))),
        })
    }

    /// Bytes that are free for streaming uploads now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.blocks.available()
    }

    /// Bytes that are free for small uploads now.
    #[must_use]
    pub fn available_small(&self) -> usize {
        self.small.available_permits()
    }
}

/// What one upload takes its memory from.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Shared by the uploads of one connection.
    pub connection: Arc<Budget>,
    /// Shared by all connections.
    pub gateway: Arc<GatewayBudget>,
}

impl Budgets {
    /// Memory for `bytes` more of a small upload; none at once if that part of the budget is used up.
    pub(super) fn try_small(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.gateway.small).try_acquire_many_owned(bytes).ok()
    }

    /// Memory for `bytes` more of a streaming upload; none if it had to be waited for.
    pub(super) fn try_acquire(&self, bytes: u32) -> Option<Share> {
        let connection = self.connection.try_acquire(bytes)?;
        let gateway = self.gateway.blocks.try_acquire(bytes)?;
        Some(Share { connection, gateway })
    }

    /// Waits for memory for `bytes`, until `limit` has passed.
    pub(super) async fn acquire(&self, bytes: u32, limit: Duration) -> Option<Share> {
        let both = async {
            let connection = self.connection.acquire(bytes).await?;
            let gateway = self.gateway.blocks.acquire(bytes).await?;
            Some(Share { connection, gateway })
        };
        tokio::time::timeout(limit, both).await.ok().flatten()
    }

    /// Resolves when somebody waits for memory that this upload may hold; each call to the returned value waits anew.
    pub(super) fn pressure(&self) -> Pressure {
        Pressure {
            connection: self.connection.pressure.subscribe(),
            gateway: self.gateway.blocks.pressure.subscribe(),
        }
    }
}

/// Tells that somebody waits for memory.
pub(super) struct Pressure {
    connection: watch::Receiver<()>,
    gateway: watch::Receiver<()>,
}

impl Pressure {
    /// Resolves when somebody asks for memory from now on. Who asked before asks again, if the need has not passed.
    pub(super) async fn wanted(&mut self) {
        self.connection.mark_unchanged();
        self.gateway.mark_unchanged();
        // The senders live as long as the budgets, which the upload itself holds.
        tokio::select! {
            _ = self.connection.changed() => {}
            _ = self.gateway.changed() => {}
        }
    }
}

/// A number of bytes taken from both budgets; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    connection: OwnedSemaphorePermit,
    gateway: OwnedSemaphorePermit,
}

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.connection.num_permits()
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.connection.merge(other.connection);
        self.gateway.merge(other.gateway);
    }

    /// Takes `bytes` out of it, or all there is.
    pub(super) fn split(&mut self, bytes: usize) -> Option<Self> {
        let bytes = bytes.min(self.bytes());
        let connection = self.connection.split(bytes)?;
        let gateway = self.gateway.split(bytes)?;
        Some(Self { connection, gateway })
    }
}
