//! From the keys of the config to an open store: the address with its password is a secret, the names are checked before
//! anything is connected to.

use super::{failure::OpenFailure, open, open::Settings};
use crate::{config::MongoConfig, open::OpenError, secrets::SecretStore, state::StateStore};
use std::sync::Arc;

/// The section that a failure is about.
const KEY: &str = "[backends.state]";

/// Opens the store that the config names.
///
/// # Errors
/// [`OpenError::Remote`] names the server without credentials, what is wrong and what to do.
pub(crate) async fn open_configured(
    keys: &MongoConfig,
    secrets: &dyn SecretStore,
) -> Result<Arc<dyn StateStore>, OpenError> {
    let remote = |key, address: &str, failure: OpenFailure| {
        let OpenFailure { what, remedy } = failure;
        OpenError::Remote { key, address: address.to_owned(), what, remedy }
    };
    let uri = match uri(&keys.uri, secrets).await {
        Ok(uri) => uri,
        Err(failure) => return Err(remote("[backends.state] uri", "MongoDB", failure)),
    };
    let address = address(&uri, &keys.database);
    check_names(keys).map_err(|(key, failure)| remote(key, &address, failure))?;
    let settings = Settings {
        database: keys.database.clone(),
        prefix: keys.prefix.clone(),
        deadline: keys.deadline_seconds.duration(),
        selection: keys.server_selection_seconds.duration(),
        connections_min: keys.connections_min,
        connections_max: keys.connections_max,
        uri,
    };
    open(&settings).await.map_err(|failure| {
        let what = without_credentials(&settings.uri, &failure.what);
        remote(KEY, &address, OpenFailure { what, ..failure })
    })
}

/// The connection string: the key itself if it holds no password, else the secret that the key refers to.
async fn uri(key: &str, secrets: &dyn SecretStore) -> Result<String, OpenFailure> {
    let example = "mongodb://HOST:27017/?replicaSet=NAME";
    if key.is_empty() {
        return Err(OpenFailure::new(
            "there is no address",
            format!("set uri to a secret reference (env:NAME, file:PATH) whose value is like {example}"),
        ));
    }
    if is_uri(key) {
        if userinfo(key).is_some_and(|user| user.contains(':')) {
            return Err(OpenFailure::new(
                "the address holds a password",
                "put the whole address into a file or a variable, and set uri to file:PATH or env:NAME",
            ));
        }
        return Ok(key.to_owned());
    }
    let secret = secrets.resolve(key).await.map_err(|e| {
        OpenFailure::new(e.to_string(), format!("the reference must lead to an address like {example}"))
    })?;
    match secret.expose_str() {
        Some(uri) if is_uri(uri) => Ok(uri.to_owned()),
        _ => Err(OpenFailure::new(
            format!("what {key} leads to is not the address of a MongoDB server"),
            format!("it must be like {example}"),
        )),
    }
}

fn is_uri(text: &str) -> bool {
    text.starts_with("mongodb://") || text.starts_with("mongodb+srv://")
}

/// What stands before the `@`, if anything does.
fn userinfo(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    Some(rest.rsplit_once('@')?.0)
}

/// The hosts of a connection string, without credentials. One that is spelled so badly that it is not clear where they end
/// is not shown at all.
fn address(uri: &str, database: &str) -> String {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split('?').next().unwrap_or_default();
    let hosts = match authority.rsplit_once('@') {
        Some((_, hosts)) => hosts,
        None if rest.contains('@') => "(not shown)",
        None => authority,
    };
    let hosts = hosts.split('/').next().unwrap_or_default();
    format!("mongodb://{hosts}/{database}")
}

/// What the driver said of an address, in case it repeats parts of it.
fn without_credentials(uri: &str, said: &str) -> String {
    let Some(userinfo) = userinfo(uri) else { return said.to_owned() };
    let password = userinfo.split_once(':').map_or("", |(_, password)| password);
    let mut said = said.replace(userinfo, "(not shown)");
    if !password.is_empty() {
        said = said.replace(password, "(not shown)");
    }
    said
}

/// Names that MongoDB takes everywhere and that need no quoting in `mongosh`.
fn check_names(keys: &MongoConfig) -> Result<(), (&'static str, OpenFailure)> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let database = &keys.database;
    if database.is_empty() || database.len() > 38 || !plain(database) {
        let what = format!("{database:?} can't be the name of a database");
        return Err((
            "[backends.state] database",
            OpenFailure::new(what, "use up to 38 of A-Z, a-z, 0-9, _ and -"),
        ));
    }
    if ["admin", "local", "config"].contains(&database.as_str()) {
        let what = format!("{database:?} is a database of MongoDB itself");
        return Err((
            "[backends.state] database",
            OpenFailure::new(what, "choose another name, such as dropgate"),
        ));
    }
    if keys.prefix.len() > 38 || !plain(&keys.prefix) {
        let what = format!("{:?} can't be the beginning of a collection's name", keys.prefix);
        return Err((
            "[backends.state] prefix",
            OpenFailure::new(what, "use up to 38 of A-Z, a-z, 0-9, _ and -"),
        ));
    }
    if keys.connections_max == 0 || keys.connections_min > keys.connections_max {
        let what = format!(
            "there can't be between {} and {} connections",
            keys.connections_min, keys.connections_max
        );
        let remedy = "connections_max must be 1 or more and not less than connections_min";
        return Err(("[backends.state] connections_max", OpenFailure::new(what, remedy)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::local::LocalSecrets;

    #[test]
    fn an_address_has_no_credentials() {
        for (uri, expected) in [
            (
                "mongodb://user:p%40ss@a.example:27017,b.example/admin?x=y",
                "mongodb://a.example:27017,b.example/dg",
            ),
            ("mongodb+srv://user:se/cret@cluster.example", "mongodb://cluster.example/dg"),
            ("mongodb://user:se?cret@cluster.example", "mongodb://(not shown)/dg"),
            ("mongodb://127.0.0.1:1/?directConnection=true", "mongodb://127.0.0.1:1/dg"),
        ] {
            assert_eq!(address(uri, "dg"), expected);
        }
    }

    #[test]
    fn what_the_driver_says_is_shown_without_the_password() {
        let uri = "mongodb://user:canary-7k@a.example/?x";
        assert_eq!(
            without_credentials(uri, "bad 'user:canary-7k' or canary-7k"),
            "bad '(not shown)' or (not shown)"
        );
    }

    /// The error for these keys, which must not hold the password.
    async fn refused(keys: MongoConfig) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("good", "mongodb://user:canary-7k@127.0.0.1:1/?directConnection=true\n"), ("bad", "canary-7k")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let secrets = LocalSecrets::new(dir.path().to_owned());
        let Err(error) = open_configured(&keys, &secrets).await else { panic!("{keys:?} was taken") };
        let error = error.to_string();
        assert!(!error.contains("canary-7k"), "{error}");
        error
    }

    #[tokio::test]
    async fn mistakes_are_named_with_key_and_remedy_and_without_the_password() {
        let server_selection_seconds = serde_json::from_value(1.into()).unwrap();
        let with = |uri: &str| MongoConfig {
            uri: uri.to_owned(),
            server_selection_seconds,
            ..MongoConfig::default()
        };
        let good = || with("file:good");
        for (keys, expected) in [
            (with(""), ["[backends.state] uri", "there is no address", "secret reference"]),
            (with("file:missing"), ["[backends.state] uri", "file:missing", "must lead to an address"]),
            (with("file:bad"), ["[backends.state] uri", "file:bad", "it must be like mongodb://"]),
            (
                with("mongodb://user:canary-7k@127.0.0.1:1/"),
                ["[backends.state] uri", "holds a password", "file:PATH"],
            ),
            (
                with("mongodb://127.0.0.1:1/?nonsense=%"),
                ["[backends.state]", "mongodb://127.0.0.1:1/dropgate", "; "],
            ),
            (good(), ["[backends.state]", "mongodb://127.0.0.1:1/dropgate", "start the server"]),
            (
                MongoConfig { database: "a/b".to_owned(), ..good() },
                ["[backends.state] database", "\"a/b\"", "use up to 38"],
            ),
            (
                MongoConfig { database: "admin".to_owned(), ..good() },
                ["[backends.state] database", "MongoDB itself", "choose another"],
            ),
            (
                MongoConfig { prefix: "$x".to_owned(), ..good() },
                ["[backends.state] prefix", "$x", "use up to 38"],
            ),
            (
                MongoConfig { connections_max: 0, ..good() },
                ["[backends.state] connections_max", "between 0 and 0", "must be 1 or more"],
            ),
        ] {
            let error = refused(keys).await;
            for part in expected {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}
