//! Secrets of a KV version 2 mount of Vault, besides those of this host.

use super::{Secret, SecretError, SecretStore, local::LocalSecrets};
use crate::{
    cache::Cache,
    vault::{Kv, VaultError, is_path},
};
use async_trait::async_trait;
use serde_json::Value;
use std::time::Duration;

/// So many secrets are remembered for the time that Vault is down.
const REMEMBERED: usize = 1000;
const REMEDY: &str = "use env:NAME, file:PATH or vault:PATH#KEY";

/// `env:NAME`, `file:PATH`, and `vault:PATH#KEY`, where PATH is below the mount.
pub(crate) struct VaultSecrets {
    local: LocalSecrets,
    kv: Kv,
    cache: Cache<String, Secret>,
    /// Leaves time for a remembered answer before the deadline of a whole call.
    limit: Duration,
}

impl VaultSecrets {
    pub(crate) fn new(local: LocalSecrets, kv: Kv, remember: Duration, deadline: Duration) -> Self {
        Self { local, kv, cache: Cache::new(remember, REMEMBERED), limit: deadline.mul_f64(0.9) }
    }

    async fn read(&self, reference: &str, path: &str, key: &str) -> Result<Secret, SecretError> {
        let (began, named) = (self.cache.begin(), reference.to_owned());
        let read = tokio::time::timeout(self.limit, self.kv.read(path)).await;
        let read =
            read.unwrap_or_else(|_| Err(VaultError::Unavailable("Vault did not answer in time".to_owned())));
        let why = match read {
            Ok(found) => {
                let secret = self.pick(reference, path, key, found.map(|found| found.fields));
                self.cache.confirm(began, &named, secret.as_ref().ok());
                return secret;
            }
            Err(VaultError::Unavailable(why)) => match self.cache.get(&named) {
                Some(secret) => return Ok(secret),
                None => why,
            },
            Err(error) => error.to_string(),
        };
        Err(SecretError::Unavailable { reference: named, why })
    }

    fn pick(
        &self,
        reference: &str,
        path: &str,
        key: &str,
        fields: Option<serde_json::Map<String, Value>>,
    ) -> Result<Secret, SecretError> {
        let mount = self.kv.mount();
        let missing = |remedy| Err(SecretError::NotFound { reference: reference.to_owned(), remedy });
        let Some(fields) = fields else {
            return missing(format!("write it with `vault kv put -mount={mount} {path} {key}=…`"));
        };
        match fields.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(Secret::new(text.as_bytes())),
            Some(_) => missing(format!(
                "{key} is empty or not a text: write it with `vault kv patch -mount={mount} {path} {key}=…`"
            )),
            None => {
                let keys = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                missing(format!(
                    "there are only the keys [{keys}]: add it with `vault kv patch -mount={mount} {path} {key}=…`"
                ))
            }
        }
    }
}

#[async_trait]
impl SecretStore for VaultSecrets {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        match reference.split_once(':') {
            Some(("vault", rest)) => match rest.rsplit_once('#') {
                Some((path, key)) if is_path(path) && !key.is_empty() => {
                    self.read(reference, path, key).await
                }
                Some(_) | None => Err(SecretError::malformed(reference, REMEDY)),
            },
            Some(_) | None => match self.local.resolve(reference).await {
                Err(SecretError::Malformed(_)) => Err(SecretError::malformed(reference, REMEDY)),
                other => other,
            },
        }
    }
}
