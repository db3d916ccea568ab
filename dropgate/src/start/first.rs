//! What the first start of `run` makes, so that a newcomer can log in.

use crate::{
    cli::Policy,
    commands::{
        account::{New, Password, add},
        open::Open,
        token,
    },
    config::Config,
};
use anyhow::Context as _;
use dropgate_backends::Backends;
use dropgate_schemas::{
    account::{AccountName, NameError, PartnerName, TokenName},
    token::Scope,
};

/// Account, partner and holder of the token of the first start.
const DEMO: &str = "demo";

/// An account that a newcomer may log in with.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) account: AccountName,
    pub(crate) partner: PartnerName,
    /// Only if it was made just now.
    pub(crate) password: Option<String>,
    /// A token for the HTTP API, only if it was made just now.
    pub(crate) token: Option<String>,
}

/// Makes the demo account and a token if there is no account at all yet. Otherwise names one of those that may log in.
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
        let token = first_token(backends).await?;
        return Ok(Some(Login { account: name, partner, password: shown, token }));
    }
    let mut usable = known.iter().filter(|account| account.enabled && !account.removed);
    let demo = usable.clone().find(|account| account.name.as_str() == DEMO);
    Ok(demo.or_else(|| usable.next()).map(|account| Login {
        account: account.name.clone(),
        partner: account.partner.clone(),
        password: None,
        token: None,
    }))
}

/// A token for everything, if there is none at all yet.
async fn first_token(backends: &Backends) -> anyhow::Result<Option<String>> {
    let state = backends.state.as_ref();
    if !state.list_tokens(None, 1).await.context("the list of tokens")?.is_empty() {
        return Ok(None);
    }
    let name: TokenName = DEMO.parse().map_err(|e: NameError| anyhow::anyhow!(e))?;
    let scopes = Scope::ALL.iter().copied().collect();
    let (_, text) = token::make(state, token::New { name, scopes, partner: None, expires_at: None }).await?;
    Ok(Some(text))
}
