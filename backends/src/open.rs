//! [`Backends::open`]: the only door to the adapters.

use crate::{
    blob::{self, BlobStore},
    config::{
        BackendsConfig, BlobConfig, CredentialsConfig, EventsConfig, MongoConfig, QueueConfig, SecretsConfig,
        StateConfig, WebhookConfig,
    },
    credentials::{self, CredentialStore},
    deadline::Deadline,
    events::{self, EventPublisher, Subscriber},
    instance::Role,
    queue::JobQueue,
    secrets::{self, SecretStore},
    state::{StateStore, sqlite},
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// All ports, opened. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    /// Bytes of uploads.
    pub blob: Arc<dyn BlobStore>,
    /// Records.
    pub state: Arc<dyn StateStore>,
    /// Jobs.
    pub queue: Arc<dyn JobQueue>,
    /// Events.
    pub events: Arc<dyn EventPublisher>,
    /// Who is told of events besides. None but in a process that relays.
    pub subscribers: Arc<[Arc<dyn Subscriber>]>,
    /// Verifiers.
    pub credentials: Arc<dyn CredentialStore>,
    /// Secrets.
    pub secrets: Arc<dyn SecretStore>,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

/// Why a backend could not be opened: what, named by which key of the config, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory can't be used.
    #[error("{path} ({key}): {what}; {remedy}", path = .path.display())]
    Unusable {
        /// The key of the config that names it.
        key: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A file was read and is not what it should be. Nothing in it was changed.
    #[error("{path} ({key}) is corrupt: {what}; {remedy}", path = .path.display())]
    Corrupt {
        /// The key of the config that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A server can't be used. Nothing on it was changed.
    #[error("{address} ({key}): {what}; {remedy}")]
    Remote {
        /// The section or key of the config that names it.
        key: &'static str,
        /// Its address, without credentials.
        address: String,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
}

impl OpenError {
    /// From what the operating system said about `path`.
    pub(crate) fn io(key: &'static str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "give the user that runs dropgate the right to write there, or set the key to another place"
            }
            io::ErrorKind::NotFound => "create the directory it lies in, or set the key to another place",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that file system",
            io::ErrorKind::ReadOnlyFilesystem => {
                "mount that file system for writing, or set the key to another place"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
                "move away what is in the way, or set the key to another place"
            }
            _ => "check the file system",
        };
        Self::Unusable { key, path: path.to_owned(), what: error.to_string(), remedy: remedy.to_owned() }
    }
}

impl Backends {
    /// Opens every backend as configured. Embedded ones live below `data_dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`OpenError`] names the file, the key and the remedy. Nothing that was there before is changed.
    pub async fn open(config: &BackendsConfig, data_dir: &Path) -> Result<Self, OpenError> {
        Self::open_for(&[], config, data_dir).await
    }

    /// [`Self::open`] for a process that runs `roles`: what servers show of whom they are connected to says so, and the name of
    /// this host. What only one role needs is opened, and its secrets are read, for that role only.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn open_for(
        roles: &[Role],
        config: &BackendsConfig,
        data_dir: &Path,
    ) -> Result<Self, OpenError> {
        let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let what = if names.is_empty() { "command".to_owned() } else { names.join("+") };
        let who = &format!("dropgate {what} on {}", crate::instance::host());
        let data_dir = prepare(data_dir).await?;
        #[cfg(feature = "mongodb")]
        if matches!(config.state, StateConfig::Mongodb(_)) {
            // Before anything is asked of a server, let alone made there.
            forget_nothing(&data_dir).await?;
        }
        let opened = open_secrets(&config.secrets, &data_dir).await?;
        let credentials = open_credentials(&config.credentials, &opened, &data_dir).await?;
        let secrets = opened.store;
        let blob = open_blob(&config.blob, &data_dir, &secrets).await?;
        let events = open_events(&config.events, &secrets, who, &data_dir).await?;
        let webhooks = if roles.contains(&Role::Worker) { config.events.webhooks() } else { &[] };
        let subscribers = open_webhooks(webhooks, &secrets).await?;
        let (state, embedded_queue) = open_state(&config.state, &secrets, &data_dir).await?;
        let queue = open_queue(&config.queue, embedded_queue, &secrets, who).await?;
        Ok(Self { blob, state, queue, events, subscribers, credentials, secrets })
    }

    /// Opens the secret store alone, for what needs nothing else.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn secrets(
        config: &BackendsConfig,
        data_dir: &Path,
    ) -> Result<Arc<dyn SecretStore>, OpenError> {
        let data_dir = prepare(data_dir).await?;
        open_secrets(&config.secrets, &data_dir).await.map(|opened| opened.store)
    }

    /// Finishes what was begun and lets go of everything. Call it last, when no role runs any more.
    pub async fn close(&self) {
        self.events.close().await;
        self.queue.close().await;
        self.state.close().await;
    }
}

/// The secret store, and what others may share with it.
struct OpenedSecrets {
    store: Arc<dyn SecretStore>,
    #[cfg(feature = "vault")]
    vault: Option<Arc<crate::vault::Vault>>,
}

async fn open_secrets(config: &SecretsConfig, data_dir: &Path) -> Result<OpenedSecrets, OpenError> {
    match config {
        SecretsConfig::Local(keys) => {
            let store: Arc<dyn SecretStore> =
                Arc::new(secrets::local::LocalSecrets::new(data_dir.to_owned()));
            Ok(OpenedSecrets {
                store: Arc::new(Deadline::new(store, keys.deadline_seconds.duration())),
                #[cfg(feature = "vault")]
                vault: None,
            })
        }
        #[cfg(feature = "vault")]
        SecretsConfig::Vault(keys) => {
            const KEY: &str = "[backends.secrets]";
            let local = || secrets::local::LocalSecrets::new(data_dir.to_owned());
            let vault = crate::vault::Vault::connect(KEY, keys.server(), Arc::new(local()), data_dir).await?;
            let kv = crate::vault::Kv::open(KEY, vault.clone(), &keys.mount).await?;
            let (remember, deadline) = (keys.cache_seconds.duration(), keys.deadline_seconds.duration());
            let store: Arc<dyn SecretStore> =
                Arc::new(secrets::vault::VaultSecrets::new(local(), kv, remember, deadline));
            Ok(OpenedSecrets { store: Arc::new(Deadline::new(store, deadline)), vault: Some(vault) })
        }
        #[cfg(not(feature = "vault"))]
        SecretsConfig::Vault(keys) => Err(no_vault("[backends.secrets]", keys.address.as_deref())),
    }
}

#[cfg_attr(not(feature = "vault"), expect(unused_variables, reason = "Vault alone uses the secret store"))]
async fn open_credentials(
    config: &CredentialsConfig,
    secrets: &OpenedSecrets,
    data_dir: &Path,
) -> Result<Arc<dyn CredentialStore>, OpenError> {
    match config {
        CredentialsConfig::File(keys) => {
            let store: Arc<dyn CredentialStore> =
                Arc::new(credentials::file::CredentialFile::open(data_dir.join(&keys.path)).await?);
            Ok(Arc::new(Deadline::new(store, keys.deadline_seconds.duration())))
        }
        #[cfg(feature = "vault")]
        CredentialsConfig::Vault(keys) => {
            const KEY: &str = "[backends.credentials]";
            let vault = match (&keys.address, &secrets.vault) {
                (None, Some(shared)) => shared.clone(),
                (Some(_), _) | (None, None) => {
                    crate::vault::Vault::connect(KEY, keys.server(), secrets.store.clone(), data_dir).await?
                }
            };
            let kv = crate::vault::Kv::open(KEY, vault, &keys.mount).await?;
            let (remember, deadline) = (keys.cache_seconds.duration(), keys.deadline_seconds.duration());
            let store: Arc<dyn CredentialStore> = Arc::new(
                credentials::vault::VaultCredentials::open(kv, &keys.path, remember, deadline).await?,
            );
            Ok(Arc::new(Deadline::new(store, deadline)))
        }
        #[cfg(not(feature = "vault"))]
        CredentialsConfig::Vault(keys) => Err(no_vault("[backends.credentials]", keys.address.as_deref())),
    }
}

#[cfg(not(feature = "vault"))]
fn no_vault(key: &'static str, address: Option<&str>) -> OpenError {
    OpenError::Remote {
        key,
        address: address.unwrap_or("vault").to_owned(),
        what: "this build has no Vault".to_owned(),
        remedy: "use one with the feature `vault`, or another kind".to_owned(),
    }
}

async fn open_blob(
    config: &BlobConfig,
    data_dir: &Path,
    secrets: &Arc<dyn SecretStore>,
) -> Result<Arc<dyn BlobStore>, OpenError> {
    #[cfg(not(feature = "azure"))]
    let _ = secrets;
    Ok(match config {
        #[cfg(feature = "azure")]
        BlobConfig::Azure(keys) => {
            let store: Arc<dyn BlobStore> =
                Arc::new(blob::azure::BlobAzure::open(keys, secrets.clone()).await?);
            Arc::new(Deadline::new(store, keys.deadline_seconds.duration()))
        }
        #[cfg(not(feature = "azure"))]
        BlobConfig::Azure(keys) => {
            return Err(OpenError::Remote {
                key: "[backends.blob]",
                address: keys.endpoint.clone().or_else(|| keys.account.clone()).unwrap_or_default(),
                what: "this build has no Azure Blob".to_owned(),
                remedy: "build with the feature azure, or use another kind".to_owned(),
            });
        }
        BlobConfig::Directory(keys) => {
            let path = data_dir.join(&keys.path);
            let store: Arc<dyn BlobStore> =
                Arc::new(blob::directory::BlobDirectory::open(path, keys.reserve_bytes).await?);
            Arc::new(Deadline::new(store, keys.deadline_seconds.duration()))
        }
    })
}

async fn open_events(
    config: &EventsConfig,
    secrets: &Arc<dyn SecretStore>,
    who: &str,
    data_dir: &Path,
) -> Result<Arc<dyn EventPublisher>, OpenError> {
    let (publisher, deadline): (Arc<dyn EventPublisher>, _) = match config {
        EventsConfig::Ndjson(keys) => (
            Arc::new(events::ndjson::NdjsonFile::open(data_dir.join(&keys.path)).await?),
            keys.deadline_seconds,
        ),
        #[cfg(feature = "amqp")]
        EventsConfig::Amqp(keys) => (
            Arc::new(events::amqp::AmqpEvents::open(keys, secrets.clone(), who).await?),
            keys.deadline_seconds,
        ),
        #[cfg(not(feature = "amqp"))]
        EventsConfig::Amqp(_) => return Err(no_amqp("[backends.events]", (secrets, who))),
    };
    Ok(Arc::new(Deadline::new(publisher, deadline.duration())))
}

#[cfg(feature = "webhooks")]
async fn open_webhooks(
    configs: &[WebhookConfig],
    secrets: &Arc<dyn SecretStore>,
) -> Result<Arc<[Arc<dyn Subscriber>]>, OpenError> {
    let mut opened: Vec<Arc<dyn Subscriber>> = Vec::with_capacity(configs.len());
    for config in configs {
        let webhook = events::webhook::Webhook::open(config, secrets.clone()).await?;
        if opened.iter().any(|other| other.name() == webhook.name()) {
            return Err(events::webhook::twice(config));
        }
        opened.push(Arc::new(webhook));
    }
    Ok(opened.into())
}

#[cfg(not(feature = "webhooks"))]
async fn open_webhooks(
    configs: &[WebhookConfig],
    _secrets: &Arc<dyn SecretStore>,
) -> Result<Arc<[Arc<dyn Subscriber>]>, OpenError> {
    match configs.first() {
        None => Ok(Arc::new([])),
        Some(config) => Err(OpenError::Remote {
            key: "[[backends.events.webhook]]",
            address: config.name.clone(),
            what: "this build has no webhooks".to_owned(),
            remedy: "use one with the feature `webhooks`, or remove it".to_owned(),
        }),
    }
}

async fn open_state(
    config: &StateConfig,
    secrets: &Arc<dyn SecretStore>,
    data_dir: &Path,
) -> Result<(Arc<dyn StateStore>, Option<Arc<dyn JobQueue>>), OpenError> {
    let (state, queue, deadline) = match config {
        StateConfig::Sqlite(keys) => {
            let (state, queue) = open_sqlite(data_dir.join(&keys.path)).await?;
            (state, Some(queue), keys.deadline_seconds)
        }
        StateConfig::Mongodb(keys) => (open_mongodb(keys, secrets).await?, None, keys.deadline_seconds),
    };
    Ok((Arc::new(Deadline::new(state, deadline.duration())), queue))
}

#[cfg(feature = "mongodb")]
async fn open_mongodb(
    keys: &MongoConfig,
    secrets: &Arc<dyn SecretStore>,
) -> Result<Arc<dyn StateStore>, OpenError> {
    crate::state::mongodb::open_configured(keys, secrets.as_ref()).await
}

#[cfg(not(feature = "mongodb"))]
async fn open_mongodb(_: &MongoConfig, _: &Arc<dyn SecretStore>) -> Result<Arc<dyn StateStore>, OpenError> {
    Err(OpenError::Remote {
        key: "[backends.state]",
        address: "kind \"mongodb\"".to_owned(),
        what: "this build has no MongoDB".to_owned(),
        remedy: "use one with the feature `mongodb`, or another kind".to_owned(),
    })
}

/// `embedded` is the one that the state store brings along, if it does.
async fn open_queue(
    config: &QueueConfig,
    embedded: Option<Arc<dyn JobQueue>>,
    secrets: &Arc<dyn SecretStore>,
    who: &str,
) -> Result<Arc<dyn JobQueue>, OpenError> {
    let (queue, deadline): (Arc<dyn JobQueue>, _) = match config {
        QueueConfig::Sqlite(keys) => {
            let queue = embedded.ok_or_else(|| OpenError::Remote {
                key: "[backends.queue]",
                address: "kind \"sqlite\"".to_owned(),
                what: "this queue is a table beside the records, which are not in SQLite".to_owned(),
                remedy: "set kind = \"amqp\" and the address of a broker".to_owned(),
            })?;
            (queue, keys.deadline_seconds)
        }
        #[cfg(feature = "amqp")]
        QueueConfig::Amqp(keys) => (
            Arc::new(crate::queue::amqp::AmqpQueue::open(keys, secrets.clone(), who).await?),
            keys.deadline_seconds,
        ),
        #[cfg(not(feature = "amqp"))]
        QueueConfig::Amqp(_) => return Err(no_amqp("[backends.queue]", (secrets, who))),
    };
    Ok(Arc::new(Deadline::new(queue, deadline.duration())))
}

#[cfg(not(feature = "amqp"))]
fn no_amqp<T>(key: &'static str, _unused: T) -> OpenError {
    OpenError::Remote {
        key,
        address: "kind \"amqp\"".to_owned(),
        what: "this build has no RabbitMQ".to_owned(),
        remedy: "use one with the feature `amqp`, or another kind".to_owned(),
    }
}

/// Refuses to keep records elsewhere while the embedded database of the data directory still has something to do.
#[cfg(feature = "mongodb")]
async fn forget_nothing(data_dir: &Path) -> Result<(), OpenError> {
    let path = data_dir.join(crate::config::SqliteConfig::default().path);
    let file = path.clone();
    let found = tokio::task::spawn_blocking(move || sqlite::left(&file)).await;
    let found = found.map_err(|e| OpenError::io("--data-dir", &path, &io::Error::other(e)))?;
    match found {
        Ok(None) => Ok(()),
        Ok(Some(sqlite::Left { undelivered, unpublished })) => Err(OpenError::Unusable {
            key: "--data-dir",
            path,
            what: format!(
                "this embedded database holds {undelivered} accepted uploads that are not delivered and {unpublished} \
                 events that are not published, and [backends.state] keeps records elsewhere"
            ),
            remedy: "run `dropgate run` with the embedded config on this data directory until `dropgate status` shows \
                     nothing in flight, or use another data directory"
                .to_owned(),
        }),
        Err(sqlite::OpenFailure { what, .. }) => Err(OpenError::Unusable {
            key: "--data-dir",
            path,
            what: format!("it can't be seen whether this embedded database still holds undelivered uploads: {what}"),
            remedy: "use another data directory, or move the file away if nobody needs what is in it".to_owned(),
        }),
    }
}

/// Opens the database that holds records and jobs.
async fn open_sqlite(path: PathBuf) -> Result<sqlite::Ports, OpenError> {
    const KEY: &str = "[backends.state] path";
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || sqlite::open(&file)).await;
    let opened = opened.map_err(|e| OpenError::io(KEY, &path, &io::Error::other(e)))?;
    opened.map_err(|sqlite::OpenFailure { corrupt, what, remedy }| {
        if corrupt {
            OpenError::Corrupt { key: KEY, path, what, remedy }
        } else {
            OpenError::Unusable { key: KEY, path, what, remedy }
        }
    })
}

/// Makes the data directory, for this user only, and finds its true path.
async fn prepare(data_dir: &Path) -> Result<PathBuf, OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = data_dir.to_owned();
    let made = tokio::task::spawn_blocking(move || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        dir.canonicalize()
    });
    let made = made.await.map_err(io::Error::other).flatten();
    made.map_err(|e| OpenError::io("--data-dir", data_dir, &e))
}

#[cfg(test)]
mod tests;
