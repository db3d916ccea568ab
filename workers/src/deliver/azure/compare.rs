//! Comparing a committed blob with what was accepted.

use super::{Azure, BLOCK, failed};
use crate::deliver::{DeliverError, Target};
use dropgate_backends::azure::{Cause, Properties};
use dropgate_schemas::{delivery::VerifiedBy, digest::Sha256};
use sha2::Digest as _;

impl Azure {
    /// Compares by size, and by reading it back if it is not too large. The inner error says how it differs.
    pub(super) async fn compare(
        &self,
        target: &Target,
        found: &Properties,
    ) -> Result<Result<VerifiedBy, String>, DeliverError> {
        let (address, name) = (self.container.address(), self.name(target));
        if found.size != target.size {
            let what = format!("{address} has {} bytes of {name} instead of {}", found.size, target.size);
            return Ok(Err(what));
        }
        if target.size > self.read_back_bytes {
            return Ok(Ok(VerifiedBy::Size));
        }
        let mut hash = sha2::Sha256::new();
        let mut at = 0;
        while at < target.size {
            let end = (at + BLOCK).min(target.size);
            let part = self.container.part(&name, at, end, Some(&found.tag)).await.map_err(failed)?;
            if part.bytes.is_empty() {
                let what = format!("{address}: reading {name} back ended at {at}");
                return Err(DeliverError::Unavailable(what));
            }
            at += part.bytes.len() as u64;
            for piece in part.bytes.chunks(256 << 10) {
                hash.update(piece);
                tokio::task::yield_now().await;
            }
        }
        let digest = Sha256(hash.finalize().into());
        if digest == target.sha256 {
            return Ok(Ok(VerifiedBy::Sha256Readback));
        }
        let what = format!("{address} has {name} with SHA-256 {digest} instead of {}", target.sha256);
        Ok(Err(what))
    }

    /// Takes away what turned out to be wrong, unless it is something else by now.
    pub(super) async fn take_away(&self, target: &Target, found: &Properties) -> Result<(), DeliverError> {
        let name = self.name(target);
        match self.container.delete(&name, Some(&found.tag)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.cause == Cause::Conflict => Ok(()),
            Err(failure) => Err(DeliverError::Unavailable(format!(
                "{name} has wrong bytes and can't be taken away: {failure}"
            ))),
        }
    }
}
