//! Which accounts still log in with algorithms that stand on SHA-1: whom to talk to before a `legacy` listener goes.

use crate::{cli::Json, commands::open::Open, table::Table};
use anyhow::Context as _;
use dropgate_backends::AuditQuery;
use dropgate_gateway::gateway::WEAK_ALGORITHMS;
use dropgate_schemas::{
    account::Account,
    audit::{Action, AuditEntry},
    time::Timestamp,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Logins from before then say little about what a partner uses now.
const PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);
/// So many of an account's latest logins are looked at.
const LOGINS: usize = 1000;

/// What was found of one account.
struct Weak {
    logins: usize,
    algorithms: BTreeSet<String>,
    last: AuditEntry,
}

/// The accounts, with what they used.
pub(super) async fn list(open: &Open, since: Option<Timestamp>, json: Json) -> anyhow::Result<String> {
    let since = since.unwrap_or_else(|| Timestamp::now().minus(PERIOD));
    let mut table = Table::new(["ACCOUNT", "PARTNER", "WEAK ALGORITHMS", "LOGINS", "LAST", "CLIENT"]);
    let mut values = Vec::new();
    for account in open.accounts().await?.iter().filter(|account| !account.removed) {
        let Some(found) = of_account(open, account, since).await? else { continue };
        let client = found.last.detail.get("client").cloned().unwrap_or_default();
        let algorithms: Vec<String> = found.algorithms.into_iter().collect();
        values.push(as_json(account, &algorithms, found.logins, &found.last, &client));
        table.row([
            account.name.to_string(),
            account.partner.to_string(),
            algorithms.join(" "),
            found.logins.to_string(),
            found.last.at.to_string(),
            client,
        ]);
    }
    Ok(match json.json {
        true => serde_json::to_string_pretty(&values)?,
        false if table.is_empty() => format!("no account has used a weak algorithm since {since}"),
        false => table.to_string().trim_end().to_owned(),
    })
}

async fn of_account(open: &Open, account: &Account, since: Timestamp) -> anyhow::Result<Option<Weak>> {
    let query = AuditQuery {
        account: Some(account.name.clone()),
        action: Some(Action::SessionLogin.name()),
        result: Some("ok".to_owned()),
        since: Some(since),
        newest_first: true,
        limit: LOGINS,
        ..AuditQuery::default()
    };
    let stored = open.state().audit(query).await.with_context(|| format!("logins of {}", account.name))?;
    let mut found: Option<Weak> = None;
    for stored in stored {
        let entry = stored.entry()?;
        let Some(algorithms) = entry.detail.get(WEAK_ALGORITHMS) else { continue };
        let algorithms: Vec<String> = algorithms.split(' ').map(str::to_owned).collect();
        let weak = found.get_or_insert(Weak { logins: 0, algorithms: BTreeSet::new(), last: entry });
        weak.logins += 1;
        weak.algorithms.extend(algorithms);
    }
    Ok(found)
}

fn as_json(
    account: &Account,
    algorithms: &[String],
    logins: usize,
    last: &AuditEntry,
    client: &str,
) -> Value {
    json!({
        "account": account.name, "partner": account.partner, "weak_algorithms": algorithms, "logins": logins,
        "last_at": last.at, "last_source": last.source, "client": client,
    })
}
