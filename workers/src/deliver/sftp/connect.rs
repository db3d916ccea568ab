//! Connection and login.

use super::{
    client::{Client, ClientError, Limits},
    hostkey::Pins,
};
use crate::{config::SftpConfig, deliver::DeliverError};
use dropgate_backends::{Secret, SecretError, SecretStore};
use russh::{
    Preferred, cipher,
    client::{self, AuthResult, KeyboardInteractiveAuthResponse},
    kex,
    keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key},
    mac,
};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Prompts that a server may ask in a keyboard-interactive login.
const PROMPTS: u32 = 5;
/// Ciphers, quickest first.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// A logged-in connection with its SFTP session.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) limits: Limits,
    /// Where keys begin, absolute if the server told.
    pub(super) root: String,
    /// The connection lives as long as this.
    _handle: client::Handle<Checker>,
}

/// What a server showed instead of a pinned key.
struct Seen {
    fingerprint: String,
    algorithm: Algorithm,
}

struct Checker {
    pins: Arc<Pins>,
    seen: Arc<Mutex<Option<Seen>>>,
}

impl client::Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            // Not offered, so not sent; its key counts like any other.
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKey::from(certificate.public_key().clone())
            }
        };
        let good = self.pins.hold(&key);
        if !good {
            let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Seen { fingerprint, algorithm: key.algorithm() });
        }
        Ok(good)
    }
}

/// Connects, checks the host key, logs in and begins an SFTP session.
pub(super) async fn connect(
    config: &SftpConfig,
    pins: &Arc<Pins>,
    secrets: &dyn SecretStore,
) -> Result<Connection, DeliverError> {
    let limit = config.connect_seconds.duration();
    let connecting = async {
        let mut handle = reach(config, pins).await?;
        log_in(&mut handle, config, secrets).await?;
        begin(handle, config).await
    };
    tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
        let (host, port, waited) = (&config.host, config.port, limit.as_secs());
        Err(DeliverError::Unavailable(format!("{host}:{port} did not let us in within {waited} s")))
    })
}

/// Connects to a server that shows a pinned key. One that has several keys is asked for another kind as long as the
/// one it showed is not pinned.
async fn reach(config: &SftpConfig, pins: &Arc<Pins>) -> Result<client::Handle<Checker>, DeliverError> {
    let (host, port) = (config.host.as_str(), config.port);
    let unavailable = |why: &dyn std::fmt::Display| {
        DeliverError::Unavailable(format!("{host}:{port} can't be reached: {why}"))
    };
    let mut tried: Vec<Algorithm> = Vec::new();
    let mut shown: Vec<String> = Vec::new();
    loop {
        let algorithms = pins.algorithms(&tried, config.legacy_algorithms);
        let seen = Arc::new(Mutex::new(None));
        let mut failure = None;
        if !algorithms.is_empty() {
            let checker = Checker { pins: Arc::clone(pins), seen: Arc::clone(&seen) };
            let ours = Arc::new(ssh_config(algorithms, config.legacy_algorithms));
            match client::connect(ours, (host, port), checker).await {
                Ok(handle) => return Ok(handle),
                Err(error) => failure = Some(error),
            }
        }
        match (seen.lock().unwrap_or_else(PoisonError::into_inner).take(), failure) {
            (Some(other), _) => {
                tried.push(other.algorithm);
                shown.push(other.fingerprint);
            }
            (None, Some(error)) if shown.is_empty() => return Err(unavailable(&error)),
            (None, _) => {
                return Err(DeliverError::Denied(format!(
                    "the host key of {host}:{port} is {} but host_keys of the destination pins {}: if its owner confirms the \
                     change, pin the new one; if not, somebody stands in between",
                    shown.join(" and "),
                    pins.show()
                )));
            }
        }
    }
}

fn ssh_config(host_keys: Vec<Algorithm>, legacy: bool) -> client::Config {
    let mut preferred =
        Preferred { key: Cow::Owned(host_keys), cipher: Cow::Borrowed(CIPHERS), ..Preferred::default() };
    if legacy {
        preferred.kex.to_mut().push(kex::DH_G14_SHA1);
        preferred.mac.to_mut().push(mac::HMAC_SHA1);
    }
    client::Config {
        preferred,
        nodelay: true,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        ..client::Config::default()
    }
}

async fn log_in(
    handle: &mut client::Handle<Checker>,
    config: &SftpConfig,
    secrets: &dyn SecretStore,
) -> Result<(), DeliverError> {
    let (host, user) = (config.host.as_str(), config.username.as_str());
    let lost = |e: russh::Error| DeliverError::Unavailable(format!("{host} broke off the login: {e}"));
    let mut tried = Vec::new();
    if let Some(reference) = &config.private_key {
        let key = text(secrets, reference).await?;
        let passphrase = match &config.passphrase {
            Some(reference) => Some(text(secrets, reference).await?),
            None => None,
        };
        let passphrase = passphrase.as_ref().and_then(Secret::expose_str);
        let key = decode_secret_key(key.expose_str().unwrap_or_default(), passphrase).map_err(|e| {
            DeliverError::Denied(format!(
                "the private key {reference} can't be read: {e}; check it and its passphrase"
            ))
        })?;
        let hash = match handle.best_supported_rsa_hash().await.map_err(lost)? {
            Some(best) => best,
            // A server that does not say is taken for one of today.
            None => Some(HashAlg::Sha256),
        };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        match handle.authenticate_publickey(user, key).await.map_err(lost)? {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { .. } => tried.push("the private key"),
        }
    }
    if let Some(reference) = &config.password {
        let password = text(secrets, reference).await?;
        let password = password.expose_str().unwrap_or_default();
        match handle.authenticate_password(user, password).await.map_err(lost)? {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { .. } => {}
        }
        if !handle.is_closed() && answer_prompts(handle, user, password).await.map_err(lost)? {
            return Ok(());
        }
        tried.push("the password");
    }
    if handle.is_closed() && tried.is_empty() {
        return Err(DeliverError::Unavailable(format!("{host} broke off the login")));
    }
    Err(DeliverError::Denied(format!(
        "{host} refused {} of user {user:?}: check username and credentials of the destination",
        tried.join(" and ")
    )))
}

/// Many servers ask for the password by keyboard-interactive only.
async fn answer_prompts(
    handle: &mut client::Handle<Checker>,
    user: &str,
    password: &str,
) -> Result<bool, russh::Error> {
    let mut response = handle.authenticate_keyboard_interactive_start(user, None::<String>).await?;
    for _ in 0..PROMPTS {
        match response {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                // The password is typed where typing doesn't show, and nowhere else.
                let answers =
                    prompts.iter().map(|p| if p.echo { String::new() } else { password.to_owned() });
                let answers = answers.collect();
                response = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(false)
}

async fn text(secrets: &dyn SecretStore, reference: &str) -> Result<Secret, DeliverError> {
    secrets.resolve(reference).await.map_err(|error| match error {
        SecretError::NotFound { .. } | SecretError::Malformed(_) => DeliverError::Denied(error.to_string()),
        SecretError::Unavailable { .. } => DeliverError::Source(error.to_string()),
    })
}

async fn begin(handle: client::Handle<Checker>, config: &SftpConfig) -> Result<Connection, DeliverError> {
    let host = config.host.as_str();
    let failed = |e: russh::Error| DeliverError::Unavailable(format!("{host} opened no channel: {e}"));
    let mut channel = handle.channel_open_session().await.map_err(failed)?;
    channel.request_subsystem(true, "sftp").await.map_err(failed)?;
    loop {
        match channel.wait().await {
            Some(russh::ChannelMsg::Success) => break,
            Some(russh::ChannelMsg::Failure) => {
                return Err(DeliverError::Denied(format!("{host} has no SFTP: it refused the subsystem")));
            }
            Some(_) => {}
            None => return Err(DeliverError::Unavailable(format!("{host} closed the channel"))),
        }
    }
    let client = Client::begin(channel, config.deadline_seconds.duration()).await;
    let client = client.map_err(|e| DeliverError::Unavailable(format!("{host}: {e}")))?;
    let limits = client.limits().await;
    let wanted = if config.path.is_empty() { "." } else { config.path.as_str() };
    let root = match client.real_path(wanted).await {
        Ok(absolute) => absolute,
        // Some servers resolve only what is there; then paths stay relative to the login directory.
        Err(ClientError::Status(_)) => wanted.to_owned(),
        Err(ClientError::Lost(why)) => return Err(DeliverError::Unavailable(format!("{host}: {why}"))),
    };
    Ok(Connection { client, limits, root, _handle: handle })
}
