//! Whether a login is good: password or public key against the credential store, the account's state against the state
//! store. Decides only; counting tries, delays and identity are the handler's.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dropgate_backends::CredentialStore;
use dropgate_backends::credentials::password::Passwords;
use dropgate_backends::observe::Counter;
use dropgate_schemas::account::{Account, AccountName, Credentials, PublicKey as StoredKey};
use dropgate_schemas::time::Timestamp;
use russh::keys::ssh_key::{Algorithm, HashAlg, PublicKey};
use serde::{Deserialize, Serialize};

use super::network::Network;
use super::{AlgorithmProfile, KnownAccounts};
use crate::listener::LimitHit;

/// How logins are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Wrong passwords on one connection before it is closed. Default 3.
    pub password_tries: u32,
    /// Failed logins of any kind on one connection before it is closed; asking for the methods (`none`) and offering
    /// keys do not count. Default 6.
    pub tries: u32,
    /// Keys that a client may offer on one connection, since each offer is looked up. Default 20.
    pub key_offers: u32,
    /// Time that every refused login takes, in milliseconds, whatever the reason. Default 1000.
    pub failure_delay_ms: u64,
    /// Deadline for the credential and the state store to answer, in seconds. Default 5.
    pub lookup_seconds: u64,
    /// While the state store can't be asked, accounts that it confirmed so many seconds ago at most may log in as they were
    /// then. Default 900.
    pub remember_seconds: u64,
    /// Passwords hashed at the same time; each takes 19 MiB and a core. Default: the number of cores.
    pub hashes_at_once: usize,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            password_tries: 3,
            tries: 6,
            key_offers: 20,
            failure_delay_ms: 1000,
            lookup_seconds: 5,
            remember_seconds: 900,
            hashes_at_once: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl AuthConfig {
    /// See `lookup_seconds`.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.lookup_seconds.max(1))
    }
}

/// What a client proved at login. Prints as `password` or the key's fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// It knew the password.
    Password,
    /// It signed with this key.
    PublicKey {
        /// `SHA256:…`.
        fingerprint: String,
    },
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password => f.write_str("password"),
            Self::PublicKey { fingerprint } => f.write_str(fingerprint),
        }
    }
}

/// Why a login was refused. For the audit trail; the client is told only that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no such account, or it was removed.
    #[error("unknown account")]
    UnknownAccount,
    /// The account may not log in.
    #[error("account disabled")]
    AccountDisabled,
    /// The account has no password.
    #[error("account has no password")]
    NoPassword,
    /// Wrong password.
    #[error("wrong password")]
    WrongPassword,
    /// The key is not one of the account's.
    #[error("unknown key")]
    UnknownKey,
    /// The key has expired.
    #[error("key expired")]
    KeyExpired,
    /// The key may not be used from this address.
    #[error("key not allowed from this address")]
    KeyNotFromHere,
    /// RSA below 2048 bits.
    #[error("key too short")]
    KeyTooShort,
    /// A signature algorithm that the listener's profile does not allow, such as `ssh-rsa` with SHA-1.
    #[error("signature algorithm not allowed")]
    AlgorithmNotAllowed,
    /// Everything was right, but a session limit was hit.
    #[error("{0}")]
    Limit(LimitHit),
}

/// A good login.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) account: Account,
    pub(crate) credential: Credential,
}

/// Outcome of checking a login.
#[derive(Debug)]
pub(crate) enum Verdict {
    Good(Box<Login>),
    Refused(Refusal),
    /// Nobody can tell now: a store is down or slow, or too many passwords are being checked.
    Unavailable,
}

const RSA_MIN_BITS: u32 = 2048;

/// Checks logins against the stores.
pub(crate) struct Authenticator {
    credentials: Arc<dyn CredentialStore>,
    accounts: Arc<KnownAccounts>,
    passwords: Passwords,
    profile: AlgorithmProfile,
    deadline: Duration,
}

struct Unavailable;

struct Found {
    account: Account,
    credentials: Credentials,
}

impl Authenticator {
    pub(crate) fn new(
        config: &AuthConfig,
        profile: AlgorithmProfile,
        credentials: Arc<dyn CredentialStore>,
        accounts: Arc<KnownAccounts>,
    ) -> Self {
        let deadline = config.deadline();
        Self { credentials, accounts, passwords: Passwords::new(config.hashes_at_once), profile, deadline }
    }

    /// Reads account and verifiers. A name that can't be an account's is nobody's.
    async fn find(&self, user: &str) -> Result<Option<Found>, Unavailable> {
        let Ok(name) = user.parse::<AccountName>() else { return Ok(None) };
        let lookup = tokio::time::timeout(self.deadline, self.credentials.lookup(&name));
        let (account, credentials) = tokio::join!(self.accounts.for_login(&name), lookup);
        let credentials = credentials.map_err(|_| {
            Counter::ErrorsCredentials.one();
            tracing::warn!(account = %name, "no answer in time from the credential store at login");
            Unavailable
        })?;
        let account = account.map_err(|error| {
            Counter::ErrorsState.one();
            tracing::warn!(account = %name, %error, "login can't be checked");
            Unavailable
        })?;
        let credentials = credentials.map_err(|error| {
            Counter::ErrorsCredentials.one();
            tracing::warn!(account = %name, %error, "login can't be checked");
            Unavailable
        })?;
        Ok(match (account, credentials) {
            (Some(account), Some(credentials)) if !account.removed => Some(Found { account, credentials }),
            _ => None,
        })
    }

    /// Checks a password. Does the same work whether the account exists or not.
    pub(crate) async fn password(&self, user: &str, password: &str) -> Verdict {
        let Ok(found) = self.find(user).await else { return Verdict::Unavailable };
        let hash = found.as_ref().and_then(|found| found.credentials.password_hash.as_deref());
        let right = match tokio::time::timeout(self.deadline, self.passwords.verify(password, hash)).await {
            Ok(Ok(right)) => right,
            Ok(Err(error)) => {
                Counter::ErrorsCredentials.one();
                tracing::warn!(user, %error, "a password can't be checked");
                return Verdict::Unavailable;
            }
            // Too many are being checked.
            Err(_) => return Verdict::Unavailable,
        };
        let Some(found) = found else { return Verdict::Refused(Refusal::UnknownAccount) };
        if found.credentials.password_hash.is_none() {
            return Verdict::Refused(Refusal::NoPassword);
        }
        if !right {
            return Verdict::Refused(Refusal::WrongPassword);
        }
        if !found.account.enabled {
            return Verdict::Refused(Refusal::AccountDisabled);
        }
        Verdict::Good(Box::new(Login { account: found.account, credential: Credential::Password }))
    }

    /// Checks whether `key` may log in as `user` from `peer`. Says nothing about who holds the key: the caller has
    /// verified a signature, or only answers an offer.
    pub(crate) async fn key(
        &self,
        user: &str,
        key: &PublicKey,
        signature: &Algorithm,
        peer: IpAddr,
    ) -> Verdict {
        let Ok(found) = self.find(user).await else { return Verdict::Unavailable };
        let Some(found) = found else { return Verdict::Refused(Refusal::UnknownAccount) };
        if !self.profile.accepts_login_signature(signature) {
            return Verdict::Refused(Refusal::AlgorithmNotAllowed);
        }
        if let Some(rsa) = key.key_data().rsa()
            && rsa.key_size() < RSA_MIN_BITS
        {
            return Verdict::Refused(Refusal::KeyTooShort);
        }
        let known = found.credentials.public_keys.iter().filter(|stored| is_key(stored, key));
        let mut refusal = Refusal::UnknownKey;
        for stored in known {
            match usable(stored, peer) {
                Err(why) => refusal = why,
                Ok(()) if !found.account.enabled => return Verdict::Refused(Refusal::AccountDisabled),
                Ok(()) => {
                    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
                    return Verdict::Good(Box::new(Login {
                        account: found.account,
                        credential: Credential::PublicKey { fingerprint },
                    }));
                }
            }
        }
        Verdict::Refused(refusal)
    }
}

/// Compares the key itself, not comments or fingerprints.
fn is_key(stored: &StoredKey, key: &PublicKey) -> bool {
    match PublicKey::from_openssh(&stored.key) {
        Ok(parsed) => parsed.key_data() == key.key_data(),
        Err(error) => {
            tracing::warn!(fingerprint = stored.fingerprint, %error, "a stored public key can't be read");
            false
        }
    }
}

fn usable(stored: &StoredKey, peer: IpAddr) -> Result<(), Refusal> {
    if stored.expires_at.is_some_and(|expiry| Timestamp::now() >= expiry) {
        return Err(Refusal::KeyExpired);
    }
    let from_here = |text: &String| match text.parse::<Network>() {
        Ok(network) => network.contains(peer),
        Err(()) => {
            // A restriction that we can't read restricts.
            tracing::warn!(
                fingerprint = stored.fingerprint,
                network = text,
                "not a network: write 192.0.2.0/24"
            );
            false
        }
    };
    if !stored.from.is_empty() && !stored.from.iter().any(from_here) {
        return Err(Refusal::KeyNotFromHere);
    }
    Ok(())
}
