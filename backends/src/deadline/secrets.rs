use super::{Deadline, sentence};
use crate::secrets::{Secret, SecretError, SecretStore};

// Written out, for the error names the reference.
#[async_trait::async_trait]
impl SecretStore for Deadline<dyn SecretStore> {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        tokio::time::timeout(self.limit, self.inner.resolve(reference)).await.unwrap_or_else(|_| {
            Err(SecretError::Unavailable { reference: reference.to_owned(), why: sentence(self.limit) })
        })
    }
}
