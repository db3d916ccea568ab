//! The effective settings as TOML, with nothing in it that must stay secret.

use serde::Serialize;
use toml::Value;

/// What stands where a secret was.
const REDACTED: &str = "(redacted)";

/// Keys whose values are secrets or references to such. A reference may be shown.
pub(crate) fn is_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path);
    let key = key.split('[').next().unwrap_or(key);
    [
        "password",
        "passphrase",
        "secret",
        "private_key",
        "token",
        "credential",
        "access_key",
        "access_key_id",
        "role_id",
        "secret_id",
        "connection_string",
    ]
    .iter()
    .any(|word| key == *word || key.ends_with(&format!("_{word}")))
}

/// Whether a text refers to a secret instead of being one.
fn is_reference(text: &str) -> bool {
    ["env:", "file:", "vault:"].iter().any(|scheme| text.starts_with(scheme))
}

/// The settings as a TOML document.
///
/// # Errors
/// If they can't be expressed in TOML.
pub(crate) fn print<T: Serialize>(settings: &T) -> Result<String, toml::ser::Error> {
    let mut value = Value::try_from(settings)?;
    redact(&mut value, "");
    toml::to_string_pretty(&value)
}

/// The settings as JSON.
///
/// # Errors
/// If they can't be expressed in TOML.
pub(crate) fn print_json<T: Serialize>(settings: &T) -> Result<serde_json::Value, toml::ser::Error> {
    let mut value = Value::try_from(settings)?;
    redact(&mut value, "");
    Ok(serde_json::to_value(value).unwrap_or_default())
}

fn redact(value: &mut Value, key: &str) {
    match value {
        Value::Table(table) => table.iter_mut().for_each(|(key, inner)| redact(inner, key)),
        Value::Array(elements) => elements.iter_mut().for_each(|element| redact(element, key)),
        Value::String(text) if is_secret(key) => {
            if !is_reference(text) {
                REDACTED.clone_into(text);
            }
        }
        Value::String(text) => *text = without_password(text),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// A URI with a password in it loses that.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split('/').next().unwrap_or(rest);
    let Some((user_info, host)) = authority.rsplit_once('@') else { return text.to_owned() };
    let Some((user, _)) = user_info.split_once(':') else { return text.to_owned() };
    let tail = rest.get(authority.len()..).unwrap_or_default();
    format!("{scheme}://{user}:{REDACTED}@{host}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_show_and_secrets_do_not() {
        let settings: toml::Table = toml::from_str(
            "[[destination]]\nname = 'out'\npassword = 'hunter2'\nprivate_key = 'file:/etc/key'\n\
             [backends.queue]\nuri = 'amqp://dropgate:hunter2@mq.example:5671/prod'\nsecret_access_key = 'env:KEY'\n",
        )
        .unwrap();
        let printed = print(&settings).unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        for shown in
            ["file:/etc/key", "env:KEY", "amqp://dropgate:(redacted)@mq.example:5671/prod", "\"out\""]
        {
            assert!(printed.contains(shown), "{shown}: {printed}");
        }
        assert!(!print_json(&settings).unwrap().to_string().contains("hunter2"));
    }
}
