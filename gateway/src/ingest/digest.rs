//! The SHA-256 of an upload as its bytes go by, in a form that survives the process.

use super::{content_type::Edges, error::IngestError};
use dropgate_schemas::{
    digest::{Base64, Sha256},
    upload::{Staged, StagedBlob},
};
use sha2::{
    Digest as _,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// Digest, length and both ends of everything that went by so far, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningDigest {
    sha256: sha2::Sha256,
    edges: Edges,
}

impl RunningDigest {
    /// Continues where `staged` ends.
    pub(super) fn resume(staged: &Staged) -> Result<Self, IngestError> {
        let state = SerializedState::<sha2::Sha256>::try_from(staged.sha256_state.0.as_slice())
            .map_err(|_| IngestError::NotResumable)?;
        let sha256 = sha2::Sha256::deserialize(&state).map_err(|_| IngestError::NotResumable)?;
        let edges = Edges::resume(staged).ok_or(IngestError::NotResumable)?;
        Ok(Self { sha256, edges })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.edges.update(bytes);
        self.sha256.update(bytes);
    }

    pub(super) const fn length(&self) -> u64 {
        self.edges.length()
    }

    pub(super) const fn edges(&self) -> &Edges {
        &self.edges
    }

    pub(super) fn finish(&self) -> Sha256 {
        Sha256(self.sha256.clone().finalize().into())
    }

    /// The state to save, given that everything up to here is durable in `blob`.
    pub(super) fn staged(&self, blob: StagedBlob) -> Staged {
        Staged {
            length: self.length(),
            sha256_state: Base64(self.sha256.serialize().to_vec()),
            head: Base64(self.edges.head().to_vec()),
            tail: Base64(self.edges.tail_beyond_head().to_vec()),
            blob: Some(blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::content_type::EDGE_BYTES;
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
            let edge = content.len().min(EDGE_BYTES);
            prop_assert_eq!(digest.edges().head(), &content[..edge]);
            prop_assert_eq!(digest.edges().tail(), Some(&content[content.len() - edge..]));
        }
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let good = RunningDigest::default().staged(blob());
        let short = Staged { sha256_state: Base64(vec![1, 2, 3]), ..good.clone() };
        let headless = Staged { length: 10, ..good.clone() };
        let endless = Staged { tail: Base64(vec![0; EDGE_BYTES + 1]), ..good.clone() };
        for staged in [short, headless, endless] {
            assert!(matches!(RunningDigest::resume(&staged), Err(IngestError::NotResumable)));
        }
    }

    #[test]
    fn a_state_without_the_last_bytes_goes_on_and_has_them_again_when_enough_followed() {
        let mut digest = RunningDigest::default();
        digest.update(&[1; 5_000]);
        let old = Staged { tail: Base64::default(), ..digest.staged(blob()) };
        let mut digest = RunningDigest::resume(&old).unwrap();
        digest.update(&[2; EDGE_BYTES - 1]);
        assert_eq!(digest.edges().tail(), None);
        digest.update(&[3]);
        assert_eq!(digest.edges().tail().and_then(<[u8]>::last), Some(&3));
        assert_eq!(digest.edges().tail().map(<[u8]>::len), Some(EDGE_BYTES));
    }
}
