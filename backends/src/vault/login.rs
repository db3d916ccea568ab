//! Logging in, and the token one gets.

use super::{Server, VaultError, client, failure::Answer, is_path};
use crate::secrets::{SecretError, SecretStore};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use vaultrs::{
    auth::approle,
    client::{VaultClient, VaultClientSettings},
    token,
};

/// How to log in. All but the mount are references.
pub(super) enum Login {
    Token { token: String },
    AppRole { mount: String, role_id: String, secret_id: String },
}

/// One token and the client that sends it.
pub(super) struct Session {
    pub(super) client: VaultClient,
    lease: Mutex<Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// None: it does not expire.
    expires: Option<Instant>,
    /// When to renew it.
    renew: Option<Instant>,
    renewable: bool,
    /// As long as it was given for at first.
    full: Duration,
}

impl Lease {
    fn new(now: Instant, seconds: u64, renewable: bool, full: Option<Duration>) -> Self {
        let lasts = Duration::from_secs(seconds);
        Self {
            expires: (seconds > 0).then(|| now + lasts),
            renew: (seconds > 0).then(|| now + lasts.mul_f64(0.6)),
            renewable,
            full: full.unwrap_or(lasts),
        }
    }
}

impl Login {
    /// From the config; what is wrong with it otherwise.
    pub(super) fn of(server: &Server<'_>) -> Result<Self, String> {
        match (server.token, server.role_id, server.secret_id) {
            (Some(token), None, None) => Ok(Self::Token { token: token.to_owned() }),
            (None, Some(role_id), Some(secret_id)) if is_path(server.approle_mount) => Ok(Self::AppRole {
                mount: server.approle_mount.to_owned(),
                role_id: role_id.to_owned(),
                secret_id: secret_id.to_owned(),
            }),
            (None, Some(_), Some(_)) => {
                Err(format!("approle_mount {:?} is not the path of a login", server.approle_mount))
            }
            (Some(_), _, _) => Err("there is a token and also a role_id or secret_id".to_owned()),
            (None, Some(_), None) => Err("there is a role_id without a secret_id".to_owned()),
            (None, None, Some(_)) => Err("there is a secret_id without a role_id".to_owned()),
            (None, None, None) => Err("there is neither a token nor a role_id".to_owned()),
        }
    }

    /// Logs in.
    pub(super) async fn perform(
        &self,
        settings: &VaultClientSettings,
        secrets: &dyn SecretStore,
        address: &str,
    ) -> Result<Session, VaultError> {
        match self {
            Self::Token { token } => {
                let text = resolve(secrets, token).await?;
                let client = client(VaultClientSettings { token: text, ..settings.clone() }).await?;
                let now = Instant::now();
                let found = token::lookup_self(&client).await.map_err(|e| {
                    failed(Answer::of(e, address), || VaultError::Refused {
                        what: format!("the token {token} is not valid, or not any more"),
                        remedy: "make a new one with `vault token create`, with the policies `default` and that of dropgate"
                            .to_owned(),
                    })
                })?;
                let lease = Lease::new(now, found.ttl, found.renewable.unwrap_or(false), None);
                Ok(Session { client, lease: Mutex::new(lease) })
            }
            Self::AppRole { mount, role_id, secret_id } => {
                let (role, secret) = (resolve(secrets, role_id).await?, resolve(secrets, secret_id).await?);
                let anonymous = client(settings.clone()).await?;
                let now = Instant::now();
                let answer = approle::login(&anonymous, mount, &role, &secret).await;
                let found = answer.map_err(|e| {
                    failed(Answer::of(e, address), || VaultError::Refused {
                        what: format!(
                            "the AppRole login at {mount} with role_id {role_id} and secret_id {secret_id} was refused"
                        ),
                        remedy: format!(
                            "check that the role is there, and make a new secret id with `vault write -f auth/{mount}/role/NAME/secret-id`"
                        ),
                    })
                })?;
                let lease = Lease::new(now, found.lease_duration, found.renewable, None);
                let client = token_client(settings, found.client_token).await?;
                Ok(Session { client, lease: Mutex::new(lease) })
            }
        }
    }
}

async fn token_client(settings: &VaultClientSettings, token: String) -> Result<VaultClient, VaultError> {
    client(VaultClientSettings { token, ..settings.clone() }).await
}

/// A login that did not succeed; `refused` says what that means when the server answered.
fn failed(answer: Answer, refused: impl FnOnce() -> VaultError) -> VaultError {
    match answer {
        Answer::Unreachable { what, .. } => VaultError::Unavailable(what),
        Answer::NoMount => VaultError::Refused {
            what: "no login is mounted there".to_owned(),
            remedy: "set approle_mount to where it is: `vault auth list` shows it".to_owned(),
        },
        Answer::Forbidden | Answer::Absent { .. } | Answer::Conflict => refused(),
        Answer::Other(said) => match refused() {
            VaultError::Refused { what, remedy } => {
                VaultError::Refused { what: format!("{what} ({said})"), remedy }
            }
            other => other,
        },
    }
}

/// The text of a reference, if it can be sent in a header.
async fn resolve(secrets: &dyn SecretStore, reference: &str) -> Result<String, VaultError> {
    let secret = secrets.resolve(reference).await.map_err(|error| match error {
        SecretError::Unavailable { .. } => VaultError::Unavailable(error.to_string()),
        SecretError::NotFound { .. } | SecretError::Malformed(_) => {
            VaultError::Refused { what: error.to_string(), remedy: "the login to Vault needs it".to_owned() }
        }
    })?;
    let text = secret
        .expose_str()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
    text.map(str::to_owned).ok_or_else(|| VaultError::Refused {
        what: format!("{reference} does not hold one word of visible characters"),
        remedy: "write the token or id there, and nothing else".to_owned(),
    })
}

impl Session {
    /// When it is to be renewed; none if it never expires.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.lease().renew
    }

    /// How long it is still good for.
    pub(super) fn expires_in(&self) -> Duration {
        self.lease().expires.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    fn lease(&self) -> Lease {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server still knows the token.
    pub(super) async fn is_good(&self, address: &str) -> Result<bool, VaultError> {
        match token::lookup_self(&self.client).await {
            Ok(_) => Ok(true),
            Err(error) => match Answer::of(error, address) {
                Answer::Unreachable { what, .. } => Err(VaultError::Unavailable(what)),
                Answer::Forbidden
                | Answer::Absent { .. }
                | Answer::NoMount
                | Answer::Conflict
                | Answer::Other(_) => Ok(false),
            },
        }
    }

    /// Renews it. False if that does no more good: it can't be renewed, or its longest life is nearly over.
    pub(super) async fn renew(&self, address: &str) -> Result<bool, VaultError> {
        let before = self.lease();
        if !before.renewable {
            return Ok(false);
        }
        let now = Instant::now();
        let renewed = token::renew_self(&self.client, None).await.map_err(|error| {
            failed(Answer::of(error, address), || VaultError::Refused {
                what: "the token can't be renewed".to_owned(),
                remedy: "log in again".to_owned(),
            })
        })?;
        let lease = Lease::new(now, renewed.lease_duration, renewed.renewable, Some(before.full));
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        Ok(Duration::from_secs(renewed.lease_duration) * 4 > before.full * 3)
    }
}
