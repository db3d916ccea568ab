//! What the account commands print.

use super::{Added, credentials_of, say, state_of};
use crate::{cli::Json, commands::open::Open, table::Table};
use dropgate_schemas::{
    account::{Account, AccountName, Credentials, OnDuplicate, Quota},
    upload::Grade,
};
use serde_json::{Value, json};

/// How the account logs in, without any verifier.
fn login_of(credentials: &Credentials) -> String {
    let password = credentials.password_hash.is_some().then(|| "password".to_owned());
    let keys = match credentials.public_keys.len() {
        0 => None,
        1 => Some("1 key".to_owned()),
        n => Some(format!("{n} keys")),
    };
    let ways: Vec<String> = password.into_iter().chain(keys).collect();
    if ways.is_empty() { "none".to_owned() } else { ways.join(", ") }
}

fn as_json(account: &Account, credentials: &Credentials) -> Value {
    let keys: Vec<Value> = credentials
        .public_keys
        .iter()
        .map(|key| {
            json!({
                "fingerprint": key.fingerprint, "comment": key.comment, "from": key.from,
                "expires_at": key.expires_at, "added_at": key.added_at,
            })
        })
        .collect();
    json!({
        "account": account.name, "partner": account.partner, "enabled": account.enabled,
        "password": credentials.password_hash.is_some(), "public_keys": keys,
        "temp_patterns": account.temp_patterns,
        "on_duplicate": account.on_duplicate, "minimum_evidence": account.minimum_grade,
        "quota": account.quota,
        "created_at": account.created_at, "updated_at": account.updated_at,
    })
}

/// All accounts.
pub(super) async fn list(open: &Open, json: Json) -> anyhow::Result<String> {
    let mut table = Table::new(["ACCOUNT", "PARTNER", "STATE", "LOGIN", "ADDED"]);
    let mut values = Vec::new();
    for account in open.accounts().await?.iter().filter(|account| !account.removed) {
        let credentials = credentials_of(open, &account.name).await?;
        values.push(as_json(account, &credentials));
        table.row([
            account.name.to_string(),
            account.partner.to_string(),
            state_of(account).to_owned(),
            login_of(&credentials),
            account.created_at.to_string(),
        ]);
    }
    Ok(match json.json {
        true => serde_json::to_string_pretty(&values)?,
        false if table.is_empty() => {
            "no accounts: `dropgate account add NAME --partner PARTNER` adds one".to_owned()
        }
        false => table.to_string().trim_end().to_owned(),
    })
}

/// One account.
pub(super) async fn show(open: &Open, name: &AccountName, json: Json) -> anyhow::Result<String> {
    let account = open.account(name).await?;
    let credentials = credentials_of(open, name).await?;
    if json.json {
        return Ok(serde_json::to_string_pretty(&as_json(&account, &credentials))?);
    }
    let mut lines = vec![
        format!("account        {}", account.name),
        format!("partner        {}", account.partner),
        format!("state          {}", state_of(&account)),
        format!("password       {}", if credentials.password_hash.is_some() { "set" } else { "none" }),
    ];
    for key in &credentials.public_keys {
        let comment = crate::logging::escape(&key.comment);
        let from = if key.from.is_empty() { String::new() } else { format!(" from {}", key.from.join(",")) };
        let until = key.expires_at.map(|at| format!(" until {at}")).unwrap_or_default();
        lines.push(format!("public key     {} {comment}{from}{until}", key.fingerprint));
    }
    if !account.temp_patterns.is_empty() {
        lines.push(format!("temp patterns  {}", account.temp_patterns.join(" ")));
    }
    if account.on_duplicate == OnDuplicate::Suppress {
        lines.push("duplicates     suppressed".to_owned());
    }
    if account.minimum_grade != Grade::default() {
        let grade = serde_json::to_value(account.minimum_grade)?;
        lines.push(format!("evidence       at least {}", grade.as_str().unwrap_or_default()));
    }
    let Quota { bytes_per_day, uploads_per_day, total_bytes } = account.quota;
    for (most, of) in
        [(bytes_per_day, "bytes a day"), (uploads_per_day, "files a day"), (total_bytes, "bytes in all")]
    {
        lines.extend(most.map(|most| format!("quota          {most} {of}")));
    }
    lines.push(format!("added          {}", account.created_at));
    lines.push(format!("changed        {}", account.updated_at));
    Ok(lines.join("\n"))
}

/// What was added, with the password if we made it.
pub(super) fn print_added(added: &Added, json: Json) -> anyhow::Result<()> {
    let name = &added.account.name;
    if json.json {
        let mut value = as_json(&added.account, &added.credentials);
        if let (Some(shown), Some(object)) = (&added.shown, value.as_object_mut()) {
            object.insert("new_password".to_owned(), shown.as_str().into());
        }
        return say(&serde_json::to_string_pretty(&value)?);
    }
    let login = login_of(&added.credentials);
    let mut lines =
        vec![format!("account {name} of partner {} added (login: {login})", added.account.partner)];
    if let Some(shown) = &added.shown {
        lines.push(format!("password: {shown}\nIt is shown this once."));
    }
    say(&lines.join("\n"))
}
