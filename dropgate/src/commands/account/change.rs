//! `dropgate account change`: keys in and out, temp patterns, policy.

use super::{about, apply as apply_account, check_patterns, credentials_of, read_keys, store};
use crate::{cli::Policy, commands::open::Open, exit::Usage};
use anyhow::bail;
use dropgate_schemas::{
    account::{AccountName, PublicKey},
    audit::Action,
    time::Timestamp,
};
use std::path::PathBuf;

/// What is to be changed, checked as far as that goes without the account.
pub(super) struct Wanted {
    add: Vec<PublicKey>,
    remove: Vec<String>,
    temp_patterns: Option<Vec<String>>,
    policy: Policy,
}

impl Wanted {
    /// Reads key files and looks at patterns.
    ///
    /// # Errors
    /// If there is nothing to change, or something in it is wrong.
    pub(super) fn read(
        add: &[PathBuf],
        remove: Vec<String>,
        patterns: Vec<String>,
        policy: Policy,
    ) -> anyhow::Result<Self> {
        let temp_patterns = (!patterns.is_empty())
            .then(|| patterns.into_iter().filter(|pattern| !pattern.is_empty()).collect::<Vec<_>>());
        if add.is_empty() && remove.is_empty() && temp_patterns.is_none() && policy.is_empty() {
            bail!(Usage("account change: say what to change; --help lists the options".to_owned()));
        }
        check_patterns(temp_patterns.as_deref().unwrap_or_default())?;
        Ok(Self { add: read_keys(add)?, remove, temp_patterns, policy })
    }
}

/// Makes the change and says what was done.
///
/// # Errors
/// If there is no such account or key, or a store refuses.
pub(super) async fn apply(open: &Open, name: &AccountName, wanted: Wanted) -> anyhow::Result<String> {
    let mut account = open.account(name).await?;
    let mut credentials = credentials_of(open, name).await?;
    let mut done = Vec::new();
    for fingerprint in &wanted.remove {
        let before = credentials.public_keys.len();
        credentials.public_keys.retain(|key| key.fingerprint != *fingerprint);
        if credentials.public_keys.len() == before {
            bail!("account {name} has no key {fingerprint}: `dropgate account show {name}` lists its keys");
        }
        done.push(format!("key {fingerprint} removed"));
    }
    for key in wanted.add {
        if credentials.public_keys.iter().any(|known| known.fingerprint == key.fingerprint) {
            done.push(format!("key {} was there already", key.fingerprint));
        } else {
            done.push(format!("key {} added", key.fingerprint));
            credentials.public_keys.push(key);
        }
    }
    let with_keys = !done.is_empty();
    if !wanted.remove.is_empty() {
        account.revocation_epoch += 1;
    }
    if let Some(patterns) = wanted.temp_patterns {
        done.push(format!(
            "temp patterns: {}",
            if patterns.is_empty() { "none".to_owned() } else { patterns.join(" ") }
        ));
        account.temp_patterns = patterns;
    }
    if !wanted.policy.is_empty() {
        wanted.policy.set(&mut account);
        let policy = serde_json::json!({
            "on_duplicate": account.on_duplicate, "minimum_evidence": account.minimum_grade, "quota": account.quota,
        });
        done.push(format!("policy: {policy}"));
    }
    let what = done.join(", ");
    if with_keys {
        store(open, account, credentials, &what).await?;
    } else {
        account.updated_at = Timestamp::now();
        let mut audit = about(&account, Action::AccountChange);
        audit.reason = Some(what.clone());
        apply_account(open, account, audit).await?;
    }
    let sessions = if wanted.remove.is_empty() { "" } else { "; live sessions end" };
    Ok(format!("account {name}: {what}{sessions}"))
}
