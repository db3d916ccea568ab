//! The SHA-256 of an upload as its bytes go by, in a form that survives the process.

use super::{content_type::HEAD_BYTES, error::IngestError};
use dropgate_schemas::{
    digest::{Base64, Sha256},
    upload::{Staged, StagedBlob},
};
use sha2::{
    Digest as _,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// Digest, length and first bytes of everything that went by so far, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningDigest {
    sha256: sha2::Sha256,
    length: u64,
    head: Vec<u8>,
}

impl RunningDigest {
    /// Continues where `staged` ends.
    pub(super) fn resume(staged: &Staged) -> Result<Self, IngestError> {
        let state = SerializedState::<sha2::Sha256>::try_from(staged.sha256_state.0.as_slice())
            .map_err(|_| IngestError::NotResumable)?;
        let sha256 = sha2::Sha256::deserialize(&state).map_err(|_| IngestError::NotResumable)?;
        let head = staged.head.0.clone();
        if head.len() as u64 != staged.length.min(HEAD_BYTES as u64) {
            return Err(IngestError::NotResumable);
        }
        Ok(Self { sha256, length: staged.length, head })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let missing = HEAD_BYTES - self.head.len();
        if missing > 0 {
            self.head.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        }
        self.sha256.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn finish(&self) -> Sha256 {
        Sha256(self.sha256.clone().finalize().into())
    }

    /// The state to save, given that everything up to here is durable in `blob`.
    pub(super) fn staged(&self, blob: StagedBlob) -> Staged {
        Staged {
            length: self.length,
            sha256_state: Base64(self.sha256.serialize().to_vec()),
            head: Base64(self.head.clone()),
            blob: Some(blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_schemas::id::BlobId;
    use proptest::prelude::*;

    fn blob() -> StagedBlob {
        StagedBlob { blob: BlobId::new(), blocks: Vec::new(), tag: None }
    }

    proptest! {
        #[test]
        fn a_digest_saved_anywhere_goes_on_as_if_nothing_had_happened(
            content in prop::collection::vec(any::<u8>(), 0..10_000), cut: prop::sample::Index,
        ) {
            let (first, second) = content.split_at(cut.index(content.len() + 1));
            let mut digest = RunningDigest::default();
            digest.update(first);
            let mut digest = RunningDigest::resume(&digest.staged(blob())).unwrap();
            digest.update(second);
            prop_assert_eq!(digest.finish(), Sha256::of(&content));
            prop_assert_eq!(digest.length(), content.len() as u64);
            prop_assert_eq!(digest.head(), &content[..content.len().min(HEAD_BYTES)]);
        }
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let good = RunningDigest::default().staged(blob());
        let short = Staged { sha256_state: Base64(vec![1, 2, 3]), ..good.clone() };
        let headless = Staged { length: 10, ..good };
        for staged in [short, headless] {
            assert!(matches!(RunningDigest::resume(&staged), Err(IngestError::NotResumable)));
        }
    }
}
