//! `[backends.*]` of the config: what each thing is kept in. The embedded default of every section needs no entry.
//!
//! A section names its adapter by `kind`, left out for the embedded one; the other keys belong to that adapter. Relative
//! paths are below the data directory.

mod azure;

pub use azure::{AzureBlockSum, AzureIdentity, AzureKeys, AzureLogin, AzureMistake, AzurePlace};

use dropgate_schemas::account::PartnerName;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use std::{path::PathBuf, time::Duration};

/// `[backends]`: one section a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendsConfig {
    /// `[backends.blob]`: the bytes of uploads.
    pub blob: BlobConfig,
    /// `[backends.state]`: records, audit trail, outbox, event log.
    pub state: StateConfig,
    /// `[backends.queue]`: jobs for the workers.
    pub queue: QueueConfig,
    /// `[backends.events]`: where events go.
    pub events: EventsConfig,
    /// `[backends.credentials]`: what logins are checked against.
    pub credentials: CredentialsConfig,
    /// `[backends.secrets]`: how secret references are resolved.
    pub secrets: SecretsConfig,
}

/// A section whose adapter is named by `kind`, with the embedded one for a section without `kind`.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident = $default:literal { $($(#[$variant_doc:meta])* $kind:literal => $variant:ident($config:ty),)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(tag = "kind")]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $kind)] $variant($config),)+ }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (kind, keys) = kind_and_keys::<D>(deserializer, $default)?;
                match kind.as_str() {
                    $($kind => keys_of::<$config, D>(&kind, keys).map(Self::$variant),)+
                    other => Err(D::Error::unknown_variant(other, &[$($kind),+])),
                }
            }
        }
    };
}

section! {
    /// `[backends.blob]`.
    BlobConfig = "directory" {
        /// A local directory.
        "directory" => Directory(BlobDirectoryConfig),
        /// A container of Azure Blob.
        "azure" => Azure(BlobAzureConfig),
    }
}

section! {
    /// `[backends.state]`.
    StateConfig = "sqlite" {
        /// A SQLite database file.
        "sqlite" => Sqlite(SqliteConfig),
        /// A MongoDB database.
        "mongodb" => Mongodb(MongoConfig),
    }
}

section! {
    /// `[backends.queue]`.
    QueueConfig = "sqlite" {
        /// A table in the database of `[backends.state]`.
        "sqlite" => Sqlite(SqliteQueueConfig),
        /// RabbitMQ.
        "amqp" => Amqp(AmqpQueueConfig),
    }
}

section! {
    /// `[backends.events]`.
    EventsConfig = "ndjson" {
        /// A file with one event a line.
        "ndjson" => Ndjson(NdjsonConfig),
        /// A topic exchange of RabbitMQ.
        "amqp" => Amqp(AmqpEventsConfig),
    }
}

section! {
    /// `[backends.credentials]`.
    CredentialsConfig = "file" {
        /// A TOML file that all roles on this host share.
        "file" => File(CredentialFileConfig),
        /// Vault: a KV version 2 secret for each account.
        "vault" => Vault(VaultCredentialsConfig),
    }
}

section! {
    /// `[backends.secrets]`.
    SecretsConfig = "local" {
        /// `env:NAME` and `file:PATH`.
        "local" => Local(LocalSecretsConfig),
        /// These, and `vault:PATH#KEY`.
        "vault" => Vault(VaultSecretsConfig),
    }
}

macro_rules! keys {
    ($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$key_doc])* pub $key: $type,)+ }
        impl Default for $name {
            fn default() -> Self { Self { $($key: $default,)+ } }
        }
    };
}

keys! {
    /// Keys of `[backends.blob]` with `kind = "directory"`.
    BlobDirectoryConfig {
        /// The directory. Default: `blobs`.
        path: PathBuf = "blobs".into(),
        /// New uploads are refused while fewer bytes than this are free; uploads under way may use them. Default: 1 GiB
        /// or 5 % of the file system, whichever is less.
        #[serde(skip_serializing_if = "Option::is_none")]
        reserve_bytes: Option<u64> = None,
        /// Longest wait for one call, in seconds. Default: 30.
        deadline_seconds: Seconds = Seconds(30),
    }
}

keys! {
    /// Keys of `[backends.blob]` with `kind = "azure"`. One of `identity`, `sas` and `account_key` is needed.
    BlobAzureConfig {
        /// The storage account. Needed without `endpoint`, and with `account_key`.
        #[serde(skip_serializing_if = "Option::is_none")]
        account: Option<String> = None,
        /// The blob endpoint. Default: `https://ACCOUNT.blob.core.windows.net`.
        #[serde(skip_serializing_if = "Option::is_none")]
        endpoint: Option<String> = None,
        /// The container.
        container: String = String::new(),
        /// What names of blobs begin with, followed by a slash. Default: nothing.
        prefix: String = String::new(),
        /// Login by Entra: `managed`, `workload` or `developer_tools`.
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<AzureIdentity> = None,
        /// Client id of the identity, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<String> = None,
        /// Secret reference of a SAS. For a gateway the rights to create and write (`sp=cw`) are enough.
        #[serde(skip_serializing_if = "Option::is_none")]
        sas: Option<String> = None,
        /// Secret reference of the account key. Refused without `allow_account_key`.
        #[serde(skip_serializing_if = "Option::is_none")]
        account_key: Option<String> = None,
        /// Whether an account key may be used, with which everything in the account can be read and deleted. Default: false.
        allow_account_key: bool = false,
        /// The sum that goes with each block: `crc64`, or `md5` for a stand-in of Azure that is slow at that.
        /// Default: `crc64`.
        block_sum: AzureBlockSum = AzureBlockSum::Crc64,
        /// Whether the container is made if it is missing. Default: false.
        create_container: bool = false,
        /// Longest wait for one call, in seconds. Default: 30.
        deadline_seconds: Seconds = Seconds(30),
    }
}

impl BlobAzureConfig {
    /// The keys that a destination has too.
    #[must_use]
    pub fn keys(&self) -> AzureKeys {
        AzureKeys {
            account: self.account.clone(),
            endpoint: self.endpoint.clone(),
            container: self.container.clone(),
            identity: self.identity,
            client_id: self.client_id.clone(),
            sas: self.sas.clone(),
            account_key: self.account_key.clone(),
            block_sum: self.block_sum,
        }
    }
}

keys! {
    /// Keys of `[backends.state]` with `kind = "sqlite"`.
    SqliteConfig {
        /// The database file. Default: `dropgate.db`.
        path: PathBuf = "dropgate.db".into(),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

keys! {
    /// Keys of `[backends.state]` with `kind = "mongodb"`.
    MongoConfig {
        /// The connection string: a reference to a secret that holds it, or, without a password, the string itself. TLS, the
        /// replica set and the like are its options. No default.
        uri: String = String::new(),
        /// The database. Default: `dropgate`.
        database: String = "dropgate".into(),
        /// What the names of the collections begin with. Default: nothing.
        prefix: String = String::new(),
        /// Connections that are kept open. Default: 0.
        connections_min: u32 = 0,
        /// Most connections to each server; calls wait for a free one. Default: 32.
        connections_max: u32 = 32,
        /// Longest wait for a server that can be written to, in seconds. Default: 3.
        server_selection_seconds: Seconds = Seconds(3),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

keys! {
    /// Keys of `[backends.queue]` with `kind = "sqlite"`.
    SqliteQueueConfig {
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

keys! {
    /// Keys of `[backends.events]` with `kind = "ndjson"`.
    NdjsonConfig {
        /// The file. Default: `events.ndjson`.
        path: PathBuf = "events.ndjson".into(),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
        /// `[[backends.events.webhook]]`: who is told by HTTP besides.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        webhook: Vec<WebhookConfig> = Vec::new(),
    }
}

keys! {
    /// Keys of `[backends.queue]` with `kind = "amqp"`.
    AmqpQueueConfig {
        /// The broker: `amqp://HOST:PORT/VHOST` or `amqps://…` (`%2f` is the virtual host `/`), or a reference to a secret that
        /// holds such an address, which may then name user and password.
        uri: String = "amqp://127.0.0.1:5672/%2f".into(),
        /// The user, or a reference. Default: the one that `uri` names, else `guest`.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String> = None,
        /// Reference to the password.
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String> = None,
        /// Certificates in PEM that `amqps` trusts besides those of the host.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf> = None,
        /// What the names of exchanges and queues begin with: `PREFIX.jobs`, `PREFIX.deliveries`. Default: `dropgate`.
        prefix: String = "dropgate".into(),
        /// Jobs that one process has out at a time. Default: 1000.
        prefetch: u16 = 1000,
        /// A job that came back unasked so often, because whoever held it went away, goes to the dead letters; its record
        /// is found by the sweeper. Default: 20.
        delivery_limit: u16 = 20,
        /// Seconds after which a broker that says nothing is taken for gone (twice that, at most). Default: 10.
        heartbeat_seconds: Seconds = Seconds(10),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

keys! {
    /// Keys of `[backends.events]` with `kind = "amqp"`.
    AmqpEventsConfig {
        /// As in `[backends.queue]`.
        uri: String = "amqp://127.0.0.1:5672/%2f".into(),
        /// As in `[backends.queue]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String> = None,
        /// As in `[backends.queue]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String> = None,
        /// As in `[backends.queue]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf> = None,
        /// What the names begin with: exchange `PREFIX.events`, queue `PREFIX.events.archive`. Default: `dropgate`.
        prefix: String = "dropgate".into(),
        /// Events that the archive queue keeps; the oldest go first. 0: no archive queue. Default: 100000.
        archive_events: u32 = 100_000,
        /// Seconds that the archive queue keeps an event. Default: for ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        archive_seconds: Option<u32> = None,
        /// As in `[backends.queue]`.
        heartbeat_seconds: Seconds = Seconds(10),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
        /// `[[backends.events.webhook]]`: who is told by HTTP besides.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        webhook: Vec<WebhookConfig> = Vec::new(),
    }
}

keys! {
    /// Keys of `[backends.credentials]` with `kind = "file"`.
    CredentialFileConfig {
        /// The file. Default: `credentials.toml`.
        path: PathBuf = "credentials.toml".into(),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

keys! {
    /// Keys of `[backends.secrets]` with `kind = "local"`.
    LocalSecretsConfig {
        /// Longest wait for one secret, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

/// The keys that say where a Vault is and how to log in there, and those of one section.
macro_rules! vault_keys {
    ($(#[$doc:meta])* $name:ident { $($more:tt)* }) => {
        keys! {
            $(#[$doc])*
            $name {
                /// Its address: `https://vault.example.com:8200`.
                #[serde(skip_serializing_if = "Option::is_none")]
                address: Option<String> = None,
                /// The namespace. Default: none.
                #[serde(skip_serializing_if = "Option::is_none")]
                namespace: Option<String> = None,
                /// A file with the CA certificates (PEM) that are trusted besides the system's. Default: none.
                #[serde(skip_serializing_if = "Option::is_none")]
                ca_file: Option<PathBuf> = None,
                /// Reference of a token. Default: none, then `role_id` and `secret_id` are needed.
                #[serde(skip_serializing_if = "Option::is_none")]
                token: Option<String> = None,
                /// Reference of the role id of an AppRole.
                #[serde(skip_serializing_if = "Option::is_none")]
                role_id: Option<String> = None,
                /// Reference of the secret id of an AppRole.
                #[serde(skip_serializing_if = "Option::is_none")]
                secret_id: Option<String> = None,
                /// Where the AppRole login is mounted. Default: `approle`.
                approle_mount: String = "approle".to_owned(),
                /// The KV version 2 mount. Default: `secret`.
                mount: String = "secret".to_owned(),
                $($more)*
            }
        }
        impl $name {
            /// Where it is and how to log in.
            #[cfg(feature = "vault")]
            pub(crate) fn server(&self) -> crate::vault::Server<'_> {
                crate::vault::Server {
                    address: self.address.as_deref().unwrap_or_default(),
                    namespace: self.namespace.as_deref(),
                    ca_file: self.ca_file.as_deref(),
                    token: self.token.as_deref(),
                    role_id: self.role_id.as_deref(),
                    secret_id: self.secret_id.as_deref(),
                    approle_mount: &self.approle_mount,
                    deadline: self.deadline_seconds.duration(),
                }
            }
        }
    };
}

vault_keys! {
    /// Keys of `[backends.secrets]` with `kind = "vault"`. References in it are `env:NAME` or `file:PATH`.
    VaultSecretsConfig {
        /// How long a secret that was read before is still given out while Vault is down, in seconds. Default: 900.
        cache_seconds: Seconds = Seconds(900),
        /// Longest wait for one secret, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

vault_keys! {
    /// Keys of `[backends.credentials]` with `kind = "vault"`. Without `address`, the server and the login of
    /// `[backends.secrets]` are used.
    VaultCredentialsConfig {
        /// The path below which each account has a secret of its name. Default: `dropgate/accounts`.
        path: String = "dropgate/accounts".to_owned(),
        /// How long verifiers that were read before are still used while Vault is down, in seconds. Default: 900.
        cache_seconds: Seconds = Seconds(900),
        /// Longest wait for one call, in seconds. Default: 10.
        deadline_seconds: Seconds = Seconds(10),
    }
}

/// One `[[backends.events.webhook]]`: an address that is told of events by HTTP POST, signed as Standard Webhooks has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Under this name is kept how far it has come: whoever gets another name begins anew.
    pub name: String,
    /// Where to. `http://` to this host only, unless `allow_http`.
    pub url: String,
    /// References to the secrets (`whsec_…`) that each request is signed with, the newest first: several while one takes the
    /// place of another.
    pub secrets: Vec<String>,
    /// Types it wants, as patterns with `*`: `upload.*`, `delivery.succeeded`. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Partners whose events it wants. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partners: Vec<PartnerName>,
    /// Whether a new one gets everything that is in the log, and not only what happens from now on. Default: false.
    #[serde(default)]
    pub whole_log: bool,
    /// Whether events may go unencrypted over a network. Default: false.
    #[serde(default)]
    pub allow_http: bool,
    /// Longest wait for an answer, in seconds. Default: 10.
    #[serde(default = "ten")]
    pub timeout_seconds: Seconds,
    /// An event that is so old and was refused again is passed over, in seconds. Default: 86400.
    #[serde(default = "a_day")]
    pub give_up_seconds: Seconds,
}

const fn ten() -> Seconds {
    Seconds(10)
}

const fn a_day() -> Seconds {
    Seconds(86_400)
}

impl EventsConfig {
    /// Who is told by HTTP.
    #[must_use]
    pub fn webhooks(&self) -> &[WebhookConfig] {
        match self {
            Self::Ndjson(keys) => &keys.webhook,
            Self::Amqp(keys) => &keys.webhook,
        }
    }
}

/// Whole seconds, at least 1 and at most a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Seconds(u64);

impl Seconds {
    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            n @ 1..=86_400 => Ok(Self(n.unsigned_abs())),
            n => Err(D::Error::custom(format!("{n} is not a deadline: use 1 to 86400 seconds"))),
        }
    }
}

macro_rules! defaults {
    ($($section:ident::$variant:ident,)+) => {$(
        impl Default for $section {
            fn default() -> Self { Self::$variant(Default::default()) }
        }
    )+};
}

defaults! {
    BlobConfig::Directory,
    StateConfig::Sqlite,
    QueueConfig::Sqlite,
    EventsConfig::Ndjson,
    CredentialsConfig::File,
    SecretsConfig::Local,
}

fn kind_and_keys<'de, D: Deserializer<'de>>(
    deserializer: D,
    default: &str,
) -> Result<(String, toml::Table), D::Error> {
    let mut keys = toml::Table::deserialize(deserializer)?;
    match keys.remove("kind") {
        None => Ok((default.to_owned(), keys)),
        Some(toml::Value::String(kind)) => Ok((kind, keys)),
        Some(other) => {
            Err(D::Error::custom(format!("kind must be a string such as {default:?}, not {other}")))
        }
    }
}

fn keys_of<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    kind: &str,
    keys: toml::Table,
) -> Result<T, D::Error> {
    T::deserialize(keys).map_err(|e| {
        let said = e.to_string();
        let said = said.trim().lines().collect::<Vec<_>>().join(" ");
        D::Error::custom(format!("kind {kind:?}: {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BackendsConfig, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn no_entry_means_the_embedded_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, BackendsConfig::default());
        let BlobConfig::Directory(blob) = &config.blob else { panic!("{config:?}") };
        assert_eq!(blob.path, PathBuf::from("blobs"));
        assert_eq!(blob.reserve_bytes, None);
        assert_eq!(blob.deadline_seconds.duration(), Duration::from_secs(30));
    }

    #[test]
    fn a_section_without_a_kind_is_the_embedded_one() {
        let config = parse("[blob]\nreserve_bytes = 5\n[state]\nkind = 'sqlite'\npath = '/db'").unwrap();
        let BlobConfig::Directory(blob) = &config.blob else { panic!("{config:?}") };
        assert_eq!(blob.reserve_bytes, Some(5));
        let StateConfig::Sqlite(state) = &config.state else { panic!("{config:?}") };
        assert_eq!(state.path, PathBuf::from("/db"));
    }

    #[test]
    fn mongodb_is_a_kind_of_state_store() {
        let config = parse("[state]\nkind = 'mongodb'\nuri = 'env:URI'\nconnections_max = 8").unwrap();
        let StateConfig::Mongodb(state) = &config.state else { panic!("{config:?}") };
        let expected =
            MongoConfig { uri: "env:URI".to_owned(), connections_max: 8, ..MongoConfig::default() };
        assert_eq!(state, &expected);
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn the_defaults_print_and_read_back() {
        let printed = toml::to_string(&BackendsConfig::default()).unwrap();
        assert!(printed.contains("kind = \"directory\""), "{printed}");
        assert_eq!(parse(&printed).unwrap(), BackendsConfig::default());
    }

    #[test]
    fn vault_has_the_same_keys_in_both_sections() {
        let keys = "kind = 'vault'\naddress = 'https://v:8200'\nrole_id = 'env:R'\nsecret_id = 'file:s'\nmount = 'kv'";
        let config = parse(&format!("[secrets]\n{keys}\n[credentials]\n{keys}\npath = 'a/b'")).unwrap();
        let SecretsConfig::Vault(secrets) = &config.secrets else { panic!() };
        assert_eq!(secrets.secret_id.as_deref(), Some("file:s"));
        let CredentialsConfig::Vault(credentials) = &config.credentials else { panic!() };
        assert_eq!((credentials.path.as_str(), credentials.mount.as_str()), ("a/b", "kv"));
        assert_eq!(credentials.cache_seconds.duration(), Duration::from_secs(900));
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
        let error = parse("[secrets]\nkind = 'vault'\npath = 'x'").unwrap_err();
        assert!(error.contains("unknown field `path`"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("[blob]\nkind = 'floppy'", "unknown variant `floppy`, expected `directory` or `azure`"),
            ("[blob]\nreserv_bytes = 1", "unknown field `reserv_bytes`"),
            ("[blob]\nkind = 1", "kind must be a string such as \"directory\""),
            ("[blob]\npath = 1", "invalid type"),
            ("[state]\ndeadline_seconds = 0", "0 is not a deadline: use 1 to 86400 seconds"),
            ("[blobs]", "unknown field `blobs`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains("line "), "{text}: {error}");
        }
    }
}
