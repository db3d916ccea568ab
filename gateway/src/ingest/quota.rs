//! Quotas: how much an account may still send.
//!
//! What counts is read from the records at each OPEN, so nothing can drift apart in a crash or between gateways. Uploads that
//! are open at the same time don't see each other: together they may go over by their own size.

use super::commit::Committer;
use crate::vfs::{Refusal, open::OpenPlan};
use dropgate_backends::state::Usage;
use dropgate_schemas::{time::Timestamp, upload::Upload};

/// How much there may be and how much is left, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The bound.
    pub total: u64,
    /// Not used yet.
    pub left: u64,
}

impl Committer {
    /// The bytes that an upload may have by the account's quota, none for any number. `declared` is the size that the client
    /// tells.
    ///
    /// # Errors
    /// If nothing is left, or less than declared; or if the state store does not answer.
    pub(super) async fn room_for(
        &self,
        plan: &OpenPlan,
        declared: Option<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let quota = self.facts.account.quota;
        if quota.is_none() {
            return Ok(None);
        }
        // A file that is complete under its temp name counts already, and is about to be replaced.
        let again = match plan {
            OpenPlan::Restart(upload) | OpenPlan::Continue(upload) => Some(upload.as_ref()),
            OpenPlan::Create { .. } => None,
        };
        let usage = |since| self.usage_without(again, since);
        let mut room = u64::MAX;
        let enough = |left: u64| left > 0 && declared.is_none_or(|size| size <= left);
        if quota.bytes_per_day.is_some() || quota.uploads_per_day.is_some() {
            let today = usage(Some(today())).await?;
            if let Some(most) = quota.uploads_per_day
                && today.uploads >= most
            {
                return Err(Refusal::failure(format!(
                    "over quota: this account has sent its {most} files of today; try again after 00:00 UTC, or ask the \
                     operator for more"
                )));
            }
            if let Some(most) = quota.bytes_per_day {
                room = most.saturating_sub(today.bytes);
                if !enough(room) {
                    return Err(Refusal::failure(format!(
                        "over quota: {room} of this account's {most} bytes of today are left; try again after 00:00 UTC, or \
                         ask the operator for more"
                    )));
                }
            }
        }
        if let Some(most) = quota.total_bytes {
            let left = most.saturating_sub(usage(None).await?.bytes);
            if !enough(left) {
                return Err(Refusal::failure(format!(
                    "over quota: {left} of this account's {most} bytes are left; ask the operator for more"
                )));
            }
            room = room.min(left);
        }
        Ok((room < u64::MAX).then_some(room))
    }

    async fn usage_without(
        &self,
        again: Option<&Upload>,
        since: Option<Timestamp>,
    ) -> Result<Usage, Refusal> {
        let usage = self.backends.state.usage(&self.facts.account.name, since).await?;
        let counts = |upload: &&Upload| since.is_none_or(|since| upload.opened_at >= since);
        let again = again.filter(counts).and_then(|upload| upload.size);
        Ok(Usage {
            uploads: usage.uploads.saturating_sub(u64::from(again.is_some())),
            bytes: usage.bytes.saturating_sub(again.unwrap_or(0)),
        })
    }

    /// What the quota leaves of bytes, the tightest bound; none without a bound on bytes.
    ///
    /// # Errors
    /// If the state store does not answer.
    pub async fn quota_room(&self) -> Result<Option<Room>, Refusal> {
        let quota = self.facts.account.quota;
        let mut rooms = Vec::with_capacity(2);
        for (most, since) in [(quota.bytes_per_day, Some(today())), (quota.total_bytes, None)] {
            if let Some(total) = most {
                let used = self.usage_without(None, since).await?.bytes;
                rooms.push(Room { total, left: total.saturating_sub(used) });
            }
        }
        Ok(rooms.into_iter().min_by_key(|room| room.left))
    }
}

/// When the day began, in UTC.
fn today() -> Timestamp {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let now = Timestamp::now().millis();
    Timestamp::from_millis(now - now.rem_euclid(DAY))
}
