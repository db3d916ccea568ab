//! Where the broker is and how one logs in there. Secrets are resolved at every connection, so that a changed one is used
//! without a restart.

use super::{Failure, Kind};
use crate::{
    config::{AmqpEventsConfig, AmqpQueueConfig, Seconds},
    secrets::{SecretError, SecretStore},
};
use lapin::{
    Connection, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for a connection: name, TCP, TLS, login.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the first sign of life from a broker that did not greet us the last time.
const PROBE: Duration = Duration::from_secs(3);

/// The keys of both sections that say where and who.
pub(crate) struct Keys {
    uri: String,
    user: Option<String>,
    password: Option<String>,
    ca_file: Option<PathBuf>,
    heartbeat: Seconds,
}

macro_rules! keys_from {
    ($($config:ty),+) => {$(
        impl From<&$config> for Keys {
            fn from(config: &$config) -> Self {
                Self {
                    uri: config.uri.clone(),
                    user: config.user.clone(),
                    password: config.password.clone(),
                    ca_file: config.ca_file.clone(),
                    heartbeat: config.heartbeat_seconds,
                }
            }
        }
    )+};
}
keys_from!(AmqpQueueConfig, AmqpEventsConfig);

/// A broker.
pub(crate) struct Server {
    keys: Keys,
    secrets: Arc<dyn SecretStore>,
    /// What this process is called over there.
    who: String,
    /// It took our connection the last time and then said nothing.
    mute: AtomicBool,
}

impl Server {
    pub(crate) fn new(keys: Keys, secrets: Arc<dyn SecretStore>, who: &str) -> Self {
        Self { keys, secrets, who: who.to_owned(), mute: AtomicBool::new(false) }
    }

    /// Its address without user and password, as far as it is known without asking for a secret.
    pub(crate) fn address(&self) -> String {
        match parse(&self.keys.uri) {
            Ok(uri) => address(&uri),
            Err(_) => self.keys.uri.clone(),
        }
    }

    /// Opens one connection.
    pub(super) async fn connect(&self, purpose: &str) -> Result<Connection, Failure> {
        let late = |_| Failure::new(Kind::Away, format!("no answer within {} s", CONNECT.as_secs()));
        let uri = timeout(CONNECT, self.uri()).await.map_err(late)??;
        let tls = self.tls().await?;
        if self.mute.load(Relaxed) {
            // Each attempt that is never answered would leave a thread behind until the broker ends it.
            probe(&uri).await?;
            self.mute.store(false, Relaxed);
        }
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("{} {purpose}", self.who).into())
            .with_client_property("product".into(), "dropgate".into());
        let runtime = lapin::runtime::default_runtime().map_err(|e| Failure::from(&e))?;
        let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
        match timeout(CONNECT, connecting).await {
            Ok(connected) => connected.map_err(|e| Failure::connecting(&e)),
            Err(elapsed) => {
                self.mute.store(true, Relaxed);
                Err(late(elapsed))
            }
        }
    }

    async fn uri(&self) -> Result<AMQPUri, Failure> {
        let mut uri = if is_reference(&self.keys.uri) {
            let text = self.secret(&self.keys.uri).await?;
            let reference = &self.keys.uri;
            parse(&text).map_err(|why| {
                Failure::new(Kind::Settings, format!("the secret {reference} is no AMQP address: {why}"))
            })?
        } else {
            let uri = parse(&self.keys.uri).map_err(|why| {
                Failure::new(
                    Kind::Settings,
                    format!("`uri` is neither a reference nor an AMQP address: {why}"),
                )
            })?;
            if self.keys.uri.split_once("://").is_some_and(|(_, rest)| names_password(rest)) {
                let why = "`uri` names a password, and passwords don't belong in a config file: \
                           use `user` and `password = \"env:NAME\"`, or make `uri` a reference to a secret";
                return Err(Failure::new(Kind::Settings, why));
            }
            uri
        };
        if let Some(user) = &self.keys.user {
            let known = is_reference(user);
            uri.authority.userinfo.username = if known { self.secret(user).await? } else { user.clone() };
        }
        if let Some(reference) = &self.keys.password {
            uri.authority.userinfo.password = self.secret(reference).await?;
        }
        uri.query.heartbeat = u16::try_from(self.keys.heartbeat.duration().as_secs()).ok();
        Ok(uri)
    }

    async fn secret(&self, reference: &str) -> Result<String, Failure> {
        let secret = self.secrets.resolve(reference).await.map_err(|error| {
            let kind = match &error {
                SecretError::Unavailable { .. } => Kind::Away,
                SecretError::NotFound { .. } | SecretError::Malformed(_) => Kind::Settings,
            };
            Failure::new(kind, error.to_string())
        })?;
        let text = secret.expose_str().map(str::to_owned);
        text.ok_or_else(|| Failure::new(Kind::Settings, format!("the secret {reference} is no text")))
    }

    async fn tls(&self) -> Result<OwnedTLSConfig, Failure> {
        let Some(path) = &self.keys.ca_file else { return Ok(OwnedTLSConfig::default()) };
        let pem = tokio::fs::read_to_string(path).await.map_err(|e| {
            Failure::new(Kind::Settings, format!("`ca_file` {} can't be read: {e}", path.display()))
        })?;
        Ok(OwnedTLSConfig { identity: None, cert_chain: Some(pem) })
    }
}

fn is_reference(text: &str) -> bool {
    ["env:", "file:", "vault:"].iter().any(|scheme| text.starts_with(scheme))
}

fn names_password(rest: &str) -> bool {
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// Never repeats what it was given: that may be a secret.
fn parse(text: &str) -> Result<AMQPUri, String> {
    if !text.starts_with("amqp://") && !text.starts_with("amqps://") {
        return Err("it must begin with amqp:// or amqps://".to_owned());
    }
    let mut uri: AMQPUri = text.parse().map_err(|_| "it must look like amqp://HOST:PORT/VHOST".to_owned())?;
    // The parser takes names only.
    let authority =
        text.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    if let Some((_, rest)) = authority.split_once('[')
        && let Some((host, _)) = rest.split_once(']')
    {
        host.clone_into(&mut uri.authority.host);
    }
    if authority.is_empty() || uri.authority.host.is_empty() {
        return Err("it names no host".to_owned());
    }
    Ok(uri)
}

fn address(uri: &AMQPUri) -> String {
    let scheme = match uri.scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    };
    let vhost = if uri.vhost == "/" { "%2f" } else { &uri.vhost };
    format!("{scheme}://{}:{}/{vhost}", uri.authority.host, uri.authority.port)
}

/// Waits for any answer at all: a greeting, an alert, an end.
async fn probe(uri: &AMQPUri) -> Result<(), Failure> {
    let asking = async {
        let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        stream.read(&mut [0; 8]).await.map(drop)
    };
    match timeout(PROBE, asking).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Kind::Away, error.to_string())),
        Err(_) => Err(Failure::new(Kind::Away, "it takes connections and says nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_without_credentials() {
        for (text, expected) in [
            ("amqp://u:p@broker:5673/%2f", "amqp://broker:5673/%2f"),
            ("amqps://broker/prod", "amqps://broker:5671/prod"),
            ("amqp://broker", "amqp://broker:5672/%2f"),
            ("amqp://u:p@[::1]:5672/x", "amqp://::1:5672/x"),
        ] {
            assert_eq!(address(&parse(text).unwrap()), expected, "{text}");
        }
        for bad in ["http://x", "amqp://", "broker:5672", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_in_addresses_are_seen() {
        assert!(names_password("u:p@host/"));
        assert!(!names_password("u@host:5672/a:b@c"));
        assert!(!names_password("host:5672"));
    }
}
