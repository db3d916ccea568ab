//! One container of Azure Blob: how it is reached and what its answers mean. Made for the blob store and for the
//! destination of the workers, which share it.
//!
//! The client retries nothing by itself: [`Container::patiently`] does, so that it knows whether an earlier try of the same
//! call may have had its effect. A SAS is put on a request below everything that logs (see `transport`).

mod blob;
mod failure;
pub(crate) mod sas;
mod signer;
mod transport;

pub use blob::{Condition, Finished, Part, Properties};
pub use failure::{Cause, Failure};

use crate::{
    config::{AzureBlockSum, AzureIdentity, AzureLogin, AzurePlace},
    secrets::SecretStore,
};
use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport, Url},
};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use signer::Signer;
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Most blocks of one blob.
pub const MAX_BLOCKS: u32 = 50_000;
/// Tries of one call, if time allows.
const TRIES: u32 = 4;
/// Pause before the second try; doubled for each further one, with jitter.
const PAUSE: Duration = Duration::from_millis(100);

/// Time for one call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One try.
    pub attempt: Duration,
    /// All tries together.
    pub total: Duration,
}

impl Limits {
    /// Limits that end a little before `deadline`, so that the reason is known by then.
    #[must_use]
    pub fn within(deadline: Duration) -> Self {
        Self { attempt: deadline * 2 / 5, total: deadline * 9 / 10 }
    }
}

/// A container. Cheap to clone; nothing is contacted before the first call.
#[derive(Clone)]
pub struct Container {
    client: Arc<BlobContainerClient>,
    address: Arc<str>,
    name: Arc<str>,
    limits: Limits,
    block_sum: AzureBlockSum,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Container {
    /// Of a place that was checked.
    ///
    /// # Errors
    /// A sentence, if the address or the environment of the identity is not right.
    pub fn new(place: &AzurePlace, secrets: Arc<dyn SecretStore>, limits: Limits) -> Result<Self, String> {
        Self::build(place, secrets, limits, None)
    }

    /// For making the container itself: what an account key signs for a container does not reach so far.
    pub(crate) fn for_creation(
        place: &AzurePlace,
        secrets: Arc<dyn SecretStore>,
        limits: Limits,
    ) -> Result<Self, String> {
        Self::build(place, secrets, limits, Some(sas::Scope::Account))
    }

    fn build(
        place: &AzurePlace,
        secrets: Arc<dyn SecretStore>,
        limits: Limits,
        scope: Option<sas::Scope>,
    ) -> Result<Self, String> {
        let address = format!("{}/{}", place.endpoint, place.container);
        let url = Url::parse(&address).map_err(|e| format!("{address} is not a URL: {e}"))?;
        let (credential, signer) = match &place.login {
            AzureLogin::Identity { identity, client_id } => {
                let credential = credential(*identity, client_id.as_deref());
                (Some(credential.map_err(|e| failure::said(&e))?), None)
            }
            AzureLogin::Sas(reference) => (None, Some(Signer::with_sas(reference, secrets))),
            AzureLogin::AccountKey { account, reference } => {
                let scope = scope.unwrap_or_else(|| sas::Scope::Container(place.container.clone()));
                let plain = url.scheme() == "http";
                (None, Some(Signer::with_key(account, reference, scope, plain, secrets)))
            }
        };
        let options = BlobContainerClientOptions {
            client_options: ClientOptions {
                retry: RetryOptions::none(),
                transport: Some(Transport::new(Arc::new(transport::Signed::new(signer)))),
                ..ClientOptions::default()
            },
            ..BlobContainerClientOptions::default()
        };
        let client = BlobContainerClient::new(url, credential, Some(options));
        Ok(Self {
            client: Arc::new(client.map_err(|e| failure::said(&e))?),
            address: address.into(),
            name: place.container.as_str().into(),
            limits,
            block_sum: place.block_sum,
        })
    }

    /// Its URL, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client of the container itself.
    pub(crate) fn client(&self) -> &BlobContainerClient {
        &self.client
    }

    /// Makes a call, and makes it again while the service is busy or can't be reached and time is left.
    ///
    /// # Errors
    /// [`Failure`] of the last try. [`Failure::unsure`] if an earlier one may have had its effect.
    pub(crate) async fn patiently<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T, Failure>
    where
        F: Future<Output = azure_core::Result<T>> + Send,
    {
        let begun = Instant::now();
        let mut unsure = false;
        for attempt in 1.. {
            let left = self.limits.total.saturating_sub(begun.elapsed());
            let failure = match tokio::time::timeout(self.limits.attempt.min(left), call()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => Failure::of(&self.address, &error),
                Err(_) => Failure::late(&self.address, begun.elapsed()),
            };
            let pause = PAUSE * 2_u32.pow(attempt - 1).min(32);
            let pause = pause.mul_f64(rand::random_range(0.5..1.0));
            // What was damaged on its way may arrive whole the next time.
            let again = matches!(failure.cause, Cause::Unavailable | Cause::Damaged)
                && attempt < TRIES
                && begun.elapsed() + pause < self.limits.total;
            unsure |= failure.unsure;
            if !again {
                return Err(Failure { unsure, ..failure });
            }
            tracing::debug!(address = %self.address, error = %failure.what, attempt, "a call to Azure is made again");
            tokio::time::sleep(pause).await;
        }
        Err(Failure::late(&self.address, begun.elapsed()))
    }
}

fn credential(
    identity: AzureIdentity,
    client_id: Option<&str>,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    Ok(match identity {
        AzureIdentity::Managed => ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
            ..ManagedIdentityCredentialOptions::default()
        }))?,
        AzureIdentity::Workload => {
            WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                client_id: client_id.map(str::to_owned),
                ..WorkloadIdentityCredentialOptions::default()
            }))?
        }
        AzureIdentity::DeveloperTools => DeveloperToolsCredential::new(None)?,
    })
}

/// The CRC-64 that Azure checks what it is sent with, as the header wants it: eight bytes, the lowest first. Its polynomial
/// (0x9A6C9329AC4BC9B5, reflected) is the one that others call CRC-64/NVME.
#[must_use]
pub fn crc64(bytes: &[u8]) -> Vec<u8> {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes).to_le_bytes().to_vec()
}

#[cfg(test)]
mod tests;
