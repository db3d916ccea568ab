//! The client of one bucket, with its credentials.

use super::DeliverError;
use crate::config::S3Config;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation},
};
use dropgate_backends::{SecretError, SecretStore};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// After so long the secrets are read again, so that a new key is used without a restart.
const KEPT: Duration = Duration::from_secs(300);
/// One request is sent at most so often.
const TRIES: u32 = 3;

/// Makes the client when it is first needed.
pub(super) struct Connection {
    config: S3Config,
    secrets: Arc<dyn SecretStore>,
    made: Mutex<Option<(Instant, Client)>>,
}

impl Connection {
    pub(super) fn new(config: &S3Config, secrets: Arc<dyn SecretStore>) -> Self {
        Self { config: config.clone(), secrets, made: Mutex::new(None) }
    }

    /// The client.
    pub(super) async fn client(&self) -> Result<Client, DeliverError> {
        let mut made = self.made.lock().await;
        if let Some((at, client)) = made.as_ref()
            // The default chain renews what it found by itself.
            && (at.elapsed() < KEPT || self.config.access_key_id.is_none())
        {
            return Ok(client.clone());
        }
        let client = Client::from_conf(self.settings().await?);
        *made = Some((Instant::now(), client.clone()));
        Ok(client)
    }

    async fn settings(&self) -> Result<aws_sdk_s3::Config, DeliverError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.config.connect_seconds.duration())
            .operation_attempt_timeout(self.config.deadline_seconds.duration())
            .build();
        let version = BehaviorVersion::v2026_01_12();
        let mut builder = match &self.config.access_key_id {
            Some(id) => {
                let secret = self.config.secret_access_key.as_deref().unwrap_or_default();
                let token = match &self.config.session_token {
                    Some(token) => Some(self.text(token).await?),
                    None => None,
                };
                let keys = Credentials::new(
                    self.text(id).await?,
                    self.text(secret).await?,
                    token,
                    None,
                    "dropgate destination",
                );
                Builder::new()
                    .behavior_version(version)
                    .region(Region::new(self.region().unwrap_or("us-east-1").to_owned()))
                    .credentials_provider(keys)
            }
            None => {
                let mut loader = aws_config::defaults(version).timeout_config(timeouts.clone());
                if let Some(region) = self.region() {
                    loader = loader.region(Region::new(region.to_owned()));
                }
                let loaded = loader.load().await;
                if loaded.region().is_none() {
                    return Err(DeliverError::Denied(format!(
                        "destination {}: no region is known: set region, or AWS_REGION for the worker",
                        self.config.name
                    )));
                }
                Builder::from(&loaded)
            }
        };
        if let Some(endpoint) = &self.config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(builder
            .force_path_style(self.config.path_style)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            // Checksums are given where they are wanted; others would keep away stores that don't know them.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build())
    }

    fn region(&self) -> Option<&str> {
        self.config.region.as_deref()
    }

    async fn text(&self, reference: &str) -> Result<String, DeliverError> {
        let secret = self.secrets.resolve(reference).await.map_err(|error| match error {
            SecretError::NotFound { .. } | SecretError::Malformed(_) => {
                DeliverError::Denied(error.to_string())
            }
            SecretError::Unavailable { .. } => DeliverError::Source(error.to_string()),
        })?;
        let text = secret
            .expose_str()
            .map(str::trim)
            .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
        text.map(str::to_owned).ok_or_else(|| {
            DeliverError::Denied(format!(
                "the secret {reference} does not hold one word of visible characters: write the key there, and nothing else"
            ))
        })
    }
}
