//! What the first start of `run` makes, so that a newcomer can log in.

use crate::{
    cli::Policy,
    commands::{
        account::{New, Password, add},
        open::Open,
    },
    config::Config,
};
use anyhow::Context as _;
use dropgate_backends::Backends;
use dropgate_schemas::account::{AccountName, NameError, PartnerName};

/// Account and partner of the first start.
const DEMO: &str = "demo";

/// An account that a newcomer may log in with.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) account: AccountName,
    pub(crate) partner: PartnerName,
    /// Only if it was made just now.
    pub(crate) password: Option<String>,
}

/// Makes the demo account if there is no account at all yet. Otherwise names one of those that may log in.
///
/// # Errors
/// If the stores refuse.
pub(crate) async fn account(config: &Config, backends: &Backends) -> anyhow::Result<Option<Login>> {
    let known = backends.state.list_accounts(None, 1000).await.context("the list of accounts")?;
    if known.is_empty() {
        let name: AccountName = DEMO.parse().map_err(|e: NameError| anyhow::anyhow!(e))?;
        let partner: PartnerName = DEMO.parse().map_err(|e: NameError| anyhow::anyhow!(e))?;
        let password = Password::random();
        let shown = password.shown().map(str::to_owned);
        let open = Open { config: config.clone(), backends: backends.clone() };
        let new = New {
            name: name.clone(),
            partner: partner.clone(),
            password: Some(password),
            public_keys: Vec::new(),
            temp_patterns: Vec::new(),
            policy: Policy::default(),
        };
        add(&open, new).await?;
        return Ok(Some(Login { account: name, partner, password: shown }));
    }
    let mut usable = known.iter().filter(|account| account.enabled && !account.removed);
    let demo = usable.clone().find(|account| account.name.as_str() == DEMO);
    Ok(demo.or_else(|| usable.next()).map(|account| Login {
        account: account.name.clone(),
        partner: account.partner.clone(),
        password: None,
    }))
}
