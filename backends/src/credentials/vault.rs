//! Verifiers in Vault: one KV version 2 secret for each account.
//!
//! Every look at an account asks Vault, so a change is seen by every process at once. Only while Vault can't answer are
//! verifiers used that it confirmed a short while ago.

use super::{CredentialError, CredentialStore};
use crate::{
    cache::Cache,
    open::OpenError,
    vault::{Kv, VaultError, is_path},
};
use async_trait::async_trait;
use dropgate_schemas::account::{AccountName, Credentials, PublicKey};
use serde_json::{Map, Value};
use std::time::Duration;
use tracing::warn;

const KEY: &str = "[backends.credentials]";
/// The verifiers of so many accounts are remembered for the time that Vault is down.
const REMEMBERED: usize = 10_000;
/// Never the name of an account, and below the path of all of them: who may read it may read theirs.
const PROBE: &str = "_readiness";

/// See the module.
pub(crate) struct VaultCredentials {
    kv: Kv,
    path: String,
    cache: Cache<AccountName, Credentials>,
    /// Leaves time for a remembered answer before the deadline of a whole call.
    limit: Duration,
}

impl VaultCredentials {
    /// Opens the store, and looks whether this login may read accounts.
    pub(crate) async fn open(
        kv: Kv,
        path: &str,
        remember: Duration,
        deadline: Duration,
    ) -> Result<Self, OpenError> {
        let path = path.trim_matches('/').to_owned();
        if !is_path(&path) {
            let what = format!("path {path:?} is not a path of a secret");
            let remedy = "use letters, digits, _, -, . and /, for example dropgate/accounts".to_owned();
            return Err(kv.wrong(KEY, VaultError::Refused { what, remedy }));
        }
        let store = Self { kv, path, cache: Cache::new(remember, REMEMBERED), limit: deadline.mul_f64(0.9) };
        match store.within(store.kv.read(&store.at(PROBE))).await {
            Ok(_) => Ok(store),
            Err(VaultError::Unavailable(why)) => {
                warn!(why, "{KEY}: logins will fail until Vault answers");
                Ok(store)
            }
            Err(error) => Err(store.kv.wrong(KEY, error)),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
        tokio::time::timeout(self.limit, call)
            .await
            .unwrap_or_else(|_| Err(VaultError::Unavailable("Vault did not answer in time".to_owned())))
    }

    async fn change(
        &self,
        account: &AccountName,
        call: impl Future<Output = Result<(), VaultError>>,
    ) -> Result<(), CredentialError> {
        // Also before: its outcome may stay unknown.
        self.cache.forget(account);
        let done = self.within(call).await;
        self.cache.forget(account);
        done.map_err(failed)
    }
}

#[async_trait]
impl CredentialStore for VaultCredentials {
    async fn lookup(&self, account: &AccountName) -> Result<Option<Credentials>, CredentialError> {
        let (began, path) = (self.cache.begin(), self.at(account.as_str()));
        match self.within(self.kv.read(&path)).await {
            Ok(found) => {
                let found = found
                    .map(|found| parse(account, found.fields))
                    .transpose()
                    .map_err(|what| CredentialError::Corrupt(format!("{}/{path}: {what}", self.kv.mount())));
                self.cache.confirm(began, account, found.as_ref().ok().and_then(Option::as_ref));
                found
            }
            Err(VaultError::Unavailable(why)) => match self.cache.get(account) {
                Some(remembered) => Ok(Some(remembered)),
                None => Err(CredentialError::Unavailable(why)),
            },
            Err(error) => Err(failed(error)),
        }
    }

    async fn put(&self, credentials: Credentials) -> Result<(), CredentialError> {
        let account = credentials.account.clone();
        let fields = fields(credentials)?;
        let path = self.at(account.as_str());
        self.change(&account, self.kv.write(&path, &fields)).await
    }

    async fn remove(&self, account: &AccountName) -> Result<(), CredentialError> {
        let path = self.at(account.as_str());
        self.change(account, self.kv.remove(&path)).await
    }

    async fn check(&self) -> Result<(), CredentialError> {
        self.within(self.kv.read(&self.at(PROBE))).await.map(drop).map_err(failed)
    }
}

fn failed(error: VaultError) -> CredentialError {
    match error {
        VaultError::Unavailable(why) => CredentialError::Unavailable(why),
        VaultError::Conflict => CredentialError::Unavailable(error.to_string()),
        VaultError::Refused { .. } => CredentialError::Rejected(error.to_string()),
    }
}

/// As it is stored: without the account, whose name is the path.
fn fields(credentials: Credentials) -> Result<Map<String, Value>, CredentialError> {
    let Credentials { account: _, password_hash, public_keys } = credentials;
    let keys = serde_json::to_value(public_keys)
        .map_err(|e| CredentialError::Rejected(format!("the public keys can't be written: {e}")))?;
    let mut fields = Map::new();
    if let Some(hash) = password_hash {
        fields.insert("password_hash".to_owned(), Value::String(hash));
    }
    fields.insert("public_keys".to_owned(), keys);
    Ok(fields)
}

/// An error names the field, and repeats nothing of what may be a hash.
fn parse(account: &AccountName, fields: Map<String, Value>) -> Result<Credentials, String> {
    let mut credentials =
        Credentials { account: account.clone(), password_hash: None, public_keys: Vec::new() };
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("password_hash", Value::String(hash)) => credentials.password_hash = Some(hash),
            ("password_hash", _) => return Err("password_hash is not a text".to_owned()),
            ("public_keys", keys) => {
                credentials.public_keys = serde_json::from_value::<Vec<PublicKey>>(keys)
                    .map_err(|e| format!("public_keys is not a list of public keys: {e}"))?;
            }
            (other, _) => {
                return Err(format!("unknown field {other:?}, expected password_hash or public_keys"));
            }
        }
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_verifiers_is_named_and_not_repeated() {
        let account: AccountName = "demo".parse().unwrap();
        for (stored, expected) in [
            (json!({"pasword_hash": "canary"}), "unknown field \"pasword_hash\""),
            (json!({"password_hash": ["canary"]}), "password_hash is not a text"),
            (
                json!({"public_keys": [{"kay": 1}]}),
                "public_keys is not a list of public keys: unknown field `kay`",
            ),
        ] {
            let Value::Object(stored) = stored else { unreachable!() };
            let error = parse(&account, stored).unwrap_err();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
        let Value::Object(empty) = json!({}) else { unreachable!() };
        assert_eq!(parse(&account, empty).unwrap().password_hash, None);
    }
}
