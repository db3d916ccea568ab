//! A session with a Vault server, or with OpenBao, which has the same interface; shared by the adapters that keep things there.
//!
//! vaultrs speaks the protocol. What it does not have is here: the token is renewed before it expires and replaced when it
//! can't be, requests are repeated while that is likely to help, and every error says what to do about it.

mod failure;
mod kv;
mod login;
#[cfg(test)]
#[cfg(feature = "server-tests")]
pub(crate) mod servers;

pub(crate) use failure::VaultError;
pub(crate) use kv::Kv;

use crate::{open::OpenError, secrets::SecretStore};
use failure::Answer;
use kv::{Reply, Request};
use login::{Login, Session};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;
use vaultrs::client::{VaultClient, VaultClientSettings};

/// How often one request is sent at most, when the server could not be reached or said that it has a problem.
const TRIES: u32 = 3;
/// The pause before the second try; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest and longest pause between two tries to keep a session alive.
const TEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Where a Vault is and how to log in, as the config has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server<'a> {
    pub(crate) address: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) token: Option<&'a str>,
    pub(crate) role_id: Option<&'a str>,
    pub(crate) secret_id: Option<&'a str>,
    pub(crate) approle_mount: &'a str,
    pub(crate) deadline: Duration,
}

/// See the module.
pub(crate) struct Vault {
    settings: VaultClientSettings,
    /// Its address as people read it: without user and password.
    address: String,
    login: Login,
    secrets: Arc<dyn SecretStore>,
    session: RwLock<Option<Arc<Session>>>,
    /// Held while logging in: many requests that find the token revoked make one login.
    logging_in: tokio::sync::Mutex<()>,
    renewed: Arc<Notify>,
    _tending: DropGuard,
}

impl Vault {
    /// Makes the session. `key` names the section of the config, `secrets` resolves the references of the login, and
    /// `data_dir` is what a relative path is below.
    ///
    /// A server that can't be reached or is sealed is no error: it may come back, and until then the adapters say so. What
    /// is wrong with the config or the login is one.
    pub(crate) async fn connect(
        key: &'static str,
        server: Server<'_>,
        secrets: Arc<dyn SecretStore>,
        data_dir: &Path,
    ) -> Result<Arc<Self>, OpenError> {
        let wrong = |address: &str, what: String, remedy: &str| OpenError::Remote {
            key,
            address: address.to_owned(),
            what,
            remedy: remedy.to_owned(),
        };
        const ADDRESS: &str = "set address to something like https://vault.example.com:8200";
        if server.address.is_empty() {
            return Err(wrong("vault", "there is no address".to_owned(), ADDRESS));
        }
        let url = url::Url::parse(server.address)
            .map_err(|e| wrong(server.address, format!("that is not an address: {e}"), ADDRESS))?;
        let address = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong(&address, "that is not an address of a web server".to_owned(), ADDRESS));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(&address, "there is a user or password in the address".to_owned(), ADDRESS));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let what = "there is more in the address than scheme, host and port".to_owned();
            return Err(wrong(&address, what, ADDRESS));
        }
        if let Some(namespace) = server.namespace.filter(|namespace| !is_path(namespace)) {
            let what = format!("{namespace:?} is not a namespace");
            return Err(wrong(&address, what, "use letters, digits, _, -, . and / in namespace"));
        }
        let login = Login::of(&server).map_err(|what| {
            wrong(
                &address,
                what,
                "set token, or role_id and secret_id, to references such as env:VAULT_TOKEN",
            )
        })?;
        let ca_file: Option<PathBuf> = server.ca_file.map(|path| data_dir.join(path));
        let settings = VaultClientSettings {
            address: url,
            ca_certs: ca_file.iter().map(|path| path.display().to_string()).collect(),
            identity: None,
            // Shorter than the deadline of a whole call, so that there is time left for a cached answer.
            timeout: Some(server.deadline / 3),
            token: String::new(),
            verify: true,
            version: 1,
            wrapping: false,
            namespace: server.namespace.map(str::to_owned),
            proxy: None,
        };
        // Shows at once whether the CA file is one.
        client(settings.clone()).await.map_err(|e| match (&ca_file, e) {
            (Some(path), VaultError::Refused { what, .. }) => OpenError::Unusable {
                key,
                path: path.clone(),
                what,
                remedy: "set ca_file to a file with certificates in PEM form".to_owned(),
            },
            (_, other) => wrong(&address, other.to_string(), "check the keys of this section"),
        })?;
        let stop = CancellationToken::new();
        let renewed = Arc::new(Notify::new());
        let vault = Arc::new(Self {
            settings,
            address,
            login,
            secrets,
            session: RwLock::new(None),
            logging_in: tokio::sync::Mutex::new(()),
            renewed: renewed.clone(),
            _tending: stop.clone().drop_guard(),
        });
        tokio::spawn(tend(Arc::downgrade(&vault), renewed, stop));
        match vault.session().await {
            Ok(_) => Ok(vault),
            Err(VaultError::Refused { what, remedy }) => {
                Err(OpenError::Remote { key, address: vault.address.clone(), what, remedy })
            }
            Err(error) => {
                warn!(address = vault.address, %error, "{key}: going on without Vault, and trying again when it is needed");
                Ok(vault)
            }
        }
    }

    /// Its address, for error messages.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn session(&self) -> Result<Arc<Session>, VaultError> {
        match self.current() {
            Some(session) => Ok(session),
            None => self.log_in(None).await,
        }
    }

    /// A session other than `stale`: that of somebody who logged in meanwhile, or a new one.
    async fn log_in(&self, stale: Option<&Arc<Session>>) -> Result<Arc<Session>, VaultError> {
        let _one = self.logging_in.lock().await;
        if let Some(session) = self.current()
            && stale.is_none_or(|stale| !Arc::ptr_eq(stale, &session))
        {
            return Ok(session);
        }
        let session =
            Arc::new(self.login.perform(&self.settings, self.secrets.as_ref(), &self.address).await?);
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        self.renewed.notify_one();
        Ok(session)
    }

    /// Sends one request, again where that helps: after a hiccup of the network or the server, and with a new token when the
    /// old one is no longer good.
    async fn send(&self, request: Request<'_>) -> Result<Reply, VaultError> {
        let mut pause = PAUSE;
        let mut tries = 1;
        let mut new_token = false;
        loop {
            let session = self.session().await?;
            let error = match request.send(&session.client).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match Answer::of(error, &self.address) {
                Answer::Unreachable { again: true, .. } if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Answer::Unreachable { what, .. } => return Err(VaultError::Unavailable(what)),
                Answer::Forbidden if !new_token && !session.is_good(&self.address).await? => {
                    new_token = true;
                    self.log_in(Some(&session)).await?;
                }
                Answer::Forbidden => return Err(request.forbidden()),
                Answer::Absent { version } => return Ok(Reply::Absent { version }),
                Answer::NoMount => return Err(request.no_mount()),
                Answer::Conflict => return Err(VaultError::Conflict),
                Answer::Other(what) => return Err(request.other(what)),
            }
        }
    }

    /// Renews the token when it is due, or logs in again where that can't be done. Says when to look again.
    async fn tend(&self) -> Duration {
        let Some(session) = self.current() else { return TEND.1 };
        let Some(due) = session.renew_at() else { return TEND.1 };
        let now = Instant::now();
        if due > now {
            return due - now;
        }
        let failed = match session.renew(&self.address).await {
            Ok(true) => return session.renew_at().map_or(TEND.1, |due| due.saturating_duration_since(now)),
            // Not renewable (any longer): a new login, where the config allows for one.
            Ok(false) => self.log_in(Some(&session)).await.err(),
            Err(VaultError::Unavailable(what)) => Some(VaultError::Unavailable(what)),
            Err(VaultError::Refused { .. } | VaultError::Conflict) => self.log_in(Some(&session)).await.err(),
        };
        let left = session.expires_in();
        if let Some(error) = failed {
            warn!(address = self.address, left_seconds = left.as_secs(), %error, "the Vault token could not be renewed");
        }
        // Once it has expired, whoever needs a token finds out and logs in.
        if left.is_zero() { TEND.1 } else { (left / 4).clamp(TEND.0, TEND.1) }
    }
}

async fn tend(vault: Weak<Vault>, renewed: Arc<Notify>, stop: CancellationToken) {
    loop {
        let wait = match vault.upgrade() {
            Some(vault) => tokio::select! {
                wait = vault.tend() => wait,
                () = stop.cancelled() => return,
            },
            None => return,
        };
        tokio::select! {
            () = tokio::time::sleep(wait.max(TEND.0)) => {}
            () = renewed.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// A client with these settings. Reads certificates, so it is made where that may block.
async fn client(settings: VaultClientSettings) -> Result<VaultClient, VaultError> {
    let made = tokio::task::spawn_blocking(move || VaultClient::new(settings));
    match made.await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(VaultError::Refused {
            what: failure::chain(&error),
            remedy: "check ca_file and the certificates of this system".to_owned(),
        }),
        Err(error) => Err(VaultError::Unavailable(error.to_string())),
    }
}

/// Whether every component is made of what needs no escaping in an address.
pub(crate) fn is_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    })
}
