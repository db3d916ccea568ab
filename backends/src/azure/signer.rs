//! Where the SAS of a request comes from: a secret, or an account key that makes short-lived ones.

use super::sas::{Grant, Scope};
use crate::secrets::{Secret, SecretStore};
use dropgate_schemas::time::Timestamp;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// A SAS from the secret store is looked up again after so long, so that a new one is taken up without a restart.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// What is made with an account key is good for so long ...
const LIFE: Duration = Duration::from_secs(3600);
/// ... and made anew after so long.
const RENEW: Duration = Duration::from_secs(1800);

pub(super) struct Signer {
    reference: String,
    how: How,
    secrets: Arc<dyn SecretStore>,
    held: Mutex<Option<Held>>,
}

enum How {
    Sas,
    Key { account: String, scope: Scope, permissions: &'static str, plain: bool },
}

struct Held {
    query: Secret,
    since: Instant,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Signer {
    pub(super) fn with_sas(reference: &str, secrets: Arc<dyn SecretStore>) -> Self {
        Self { reference: reference.to_owned(), how: How::Sas, secrets, held: Mutex::new(None) }
    }

    pub(super) fn with_key(
        account: &str,
        reference: &str,
        scope: Scope,
        plain: bool,
        secrets: Arc<dyn SecretStore>,
    ) -> Self {
        let permissions = match &scope {
            Scope::Container(_) => "racwdl",
            Scope::Account => "c",
        };
        let how = How::Key { account: account.to_owned(), scope, permissions, plain };
        Self { reference: reference.to_owned(), how, secrets, held: Mutex::new(None) }
    }

    /// The query to put on a request. The sentence of an error never holds the secret.
    pub(super) async fn query(&self) -> Result<Secret, String> {
        let mut held = self.held.lock().await;
        let life = match &self.how {
            How::Sas => LOOK_AGAIN,
            How::Key { .. } => RENEW,
        };
        if let Some(held) = held.as_ref().filter(|held| held.since.elapsed() < life) {
            return Ok(held.query.clone());
        }
        match self.make().await {
            Ok(query) => {
                *held = Some(Held { query: query.clone(), since: Instant::now() });
                Ok(query)
            }
            // The one before may still be good; if it is not, the service says so.
            Err(error) => match held.as_ref() {
                Some(held) if held.since.elapsed() < LIFE => {
                    tracing::warn!(%error, "the credential for Azure Blob can't be renewed now");
                    Ok(held.query.clone())
                }
                Some(_) | None => Err(error),
            },
        }
    }

    /// The next request asks the secret store again: the service refused what it was shown.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn make(&self) -> Result<Secret, String> {
        let reference = &self.reference;
        let secret = self.secrets.resolve(reference).await.map_err(|e| e.to_string())?;
        let text = secret.expose_str().ok_or_else(|| format!("the secret {reference} is not text"))?.trim();
        match &self.how {
            How::Sas => {
                let query = text.rsplit_once('?').map_or(text, |(_, query)| query);
                let right = query.split('&').any(|pair| pair.starts_with("sig="))
                    && query.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'"');
                if !right {
                    return Err(format!(
                        "the secret {reference} is not a SAS: it should begin with sv= and hold a signature"
                    ));
                }
                Ok(Secret::new(query.as_bytes()))
            }
            How::Key { account, scope, permissions, plain } => {
                let expires = Timestamp::now().plus(LIFE).to_jiff();
                let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let grant = Grant { account, scope, permissions, expires: &expires, plain: *plain };
                let signed = grant.sign(text).map(|query| Secret::new(query.into_bytes()));
                signed.ok_or_else(|| {
                    format!("the secret {reference} is not an account key: it should be base64")
                })
            }
        }
    }
}
