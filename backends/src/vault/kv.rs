//! Secrets of one KV version 2 mount.

use super::{Vault, VaultError, failure::Answer, is_path};
use crate::open::OpenError;
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::sync::OnceCell;
use vaultrs::{
    api::{
        self,
        kv2::requests::{ReadSecretRequest, SetSecretRequestOptions},
    },
    client::VaultClient,
    error::ClientError,
    kv2,
};

/// How often a write is tried against others that write the same secret.
const ROUNDS: u32 = 8;

/// One mount.
#[derive(Clone)]
pub(crate) struct Kv {
    vault: Arc<Vault>,
    mount: Arc<str>,
    /// Set once the mount was seen to be what it should be.
    seen: Arc<OnceCell<()>>,
}

/// What is at a path.
#[derive(Clone, PartialEq)]
pub(crate) struct Found {
    /// Its fields. May hold secrets: not to be printed.
    pub(crate) fields: Map<String, Value>,
    version: u64,
}

pub(super) enum Request<'a> {
    Read { mount: &'a str, path: &'a str },
    Write { mount: &'a str, path: &'a str, fields: &'a Map<String, Value>, version: u64 },
    Remove { mount: &'a str, path: &'a str },
}

pub(super) enum Reply {
    Found(Found),
    Absent { version: u64 },
    Done,
}

impl Kv {
    /// A mount of `vault`. `key` names the section of the config.
    pub(crate) async fn open(key: &'static str, vault: Arc<Vault>, mount: &str) -> Result<Self, OpenError> {
        let kv = Self { vault, mount: mount.into(), seen: Arc::default() };
        if !is_path(mount) {
            let remedy = "use the path of a KV version 2 engine, such as secret".to_owned();
            return Err(
                kv.wrong(key, VaultError::Refused { what: format!("mount {mount:?} is not a path"), remedy })
            );
        }
        match kv.look().await {
            Ok(()) | Err(VaultError::Unavailable(_)) => Ok(kv),
            Err(error) => Err(kv.wrong(key, error)),
        }
    }

    /// As an error of opening.
    pub(crate) fn wrong(&self, key: &'static str, error: VaultError) -> OpenError {
        let (what, remedy) = match error {
            VaultError::Refused { what, remedy } => (what, remedy),
            other => (other.to_string(), "try again".to_owned()),
        };
        OpenError::Remote { key, address: self.vault.address().to_owned(), what, remedy }
    }

    /// The mount's name.
    pub(crate) fn mount(&self) -> &str {
        &self.mount
    }

    /// What is at `path`.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Found>, VaultError> {
        self.look().await?;
        match self.vault.send(Request::Read { mount: &self.mount, path }).await? {
            Reply::Found(found) => Ok(Some(found)),
            Reply::Absent { .. } | Reply::Done => Ok(None),
        }
    }

    /// Replaces what is at `path`. It is written on top of what was seen there, so that a request that comes late never
    /// undoes a later one, and one with an unknown outcome is not made twice.
    pub(crate) async fn write(&self, path: &str, fields: &Map<String, Value>) -> Result<(), VaultError> {
        self.look().await?;
        let mount = &*self.mount;
        for _ in 0..ROUNDS {
            let version = match self.vault.send(Request::Read { mount, path }).await? {
                Reply::Found(found) if found.fields == *fields => return Ok(()),
                Reply::Found(found) => found.version,
                Reply::Absent { version } => version,
                Reply::Done => 0,
            };
            match self.vault.send(Request::Write { mount, path, fields, version }).await {
                Err(VaultError::Conflict) => {}
                done => return done.map(drop),
            }
        }
        Err(VaultError::Conflict)
    }

    /// Removes what is at `path`, with all its versions.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), VaultError> {
        self.look().await?;
        self.vault.send(Request::Remove { mount: &self.mount, path }).await.map(drop)
    }

    /// Looks once whether the mount is a KV version 2 engine: a request to one of version 1 would look like one for a
    /// secret that is not there. Every token that may do anything below a mount may ask this. vaultrs has no call for it.
    async fn look(&self) -> Result<(), VaultError> {
        self.seen.get_or_try_init(|| self.ask()).await.copied()
    }

    async fn ask(&self) -> Result<(), VaultError> {
        let (mount, address) = (&*self.mount, self.vault.address());
        let session = self.vault.session().await?;
        let settings = &session.client.settings;
        let late = |e: &dyn std::error::Error| {
            VaultError::Unavailable(format!(
                "the Vault at {address} can't be reached: check that it runs, and address ({})",
                super::failure::chain(e)
            ))
        };
        let base = settings.address.as_str().trim_end_matches('/');
        let mut request = session.client.http.http.get(format!("{base}/v1/sys/internal/ui/mounts/{mount}"));
        request = request.header("X-Vault-Token", &settings.token).header("X-Vault-Request", "true");
        if let Some(namespace) = &settings.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let response = request.send().await.map_err(|e| late(&e))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|e| late(&e))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != 200 {
            let said = body.get("errors").map(Value::to_string).unwrap_or_default();
            return match Answer::status(status, &said, address) {
                Answer::Unreachable { what, .. } => Err(VaultError::Unavailable(what)),
                // The mount is not there, or this token may do nothing in it: requests for its secrets will tell.
                Answer::Forbidden
                | Answer::Absent { .. }
                | Answer::NoMount
                | Answer::Conflict
                | Answer::Other(_) => Ok(()),
            };
        }
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match (text("/data/type"), text("/data/options/version")) {
            ("kv", "2") => Ok(()),
            ("kv" | "generic", _) => Err(VaultError::Refused {
                what: format!("the mount {mount} is a KV engine of version 1"),
                remedy: format!("run `vault kv enable-versioning {mount}`, or set mount to one of version 2"),
            }),
            ("", _) => Err(VaultError::Refused {
                what: format!("{address} answers, but not as a Vault does"),
                remedy: "check address".to_owned(),
            }),
            (other, _) => Err(VaultError::Refused {
                what: format!("the mount {mount} is a {other} engine, not a KV engine"),
                remedy: "set mount to a KV engine of version 2".to_owned(),
            }),
        }
    }
}

impl Request<'_> {
    pub(super) async fn send(&self, client: &VaultClient) -> Result<Reply, ClientError> {
        match *self {
            Self::Read { mount, path } => {
                let request = ReadSecretRequest::builder().mount(mount).path(path).build();
                let Ok(request) = request else { return Err(ClientError::InvalidUpdateParameter) };
                let read = api::exec_with_result(client, request).await?;
                Ok(match read.data {
                    Value::Object(fields) => Reply::Found(Found { fields, version: read.metadata.version }),
                    _ => Reply::Absent { version: read.metadata.version },
                })
            }
            Self::Write { mount, path, fields, version } => {
                let cas = u32::try_from(version).unwrap_or(u32::MAX);
                let options = SetSecretRequestOptions { cas };
                kv2::set_with_options(client, mount, path, fields, options).await.map(|_| Reply::Done)
            }
            Self::Remove { mount, path } => {
                kv2::delete_metadata(client, mount, path).await.map(|()| Reply::Done)
            }
        }
    }

    /// Verb, kind of path and capabilities, as a policy names them.
    fn needs(&self) -> (&'static str, String, &'static str) {
        match self {
            Self::Read { mount, path } => ("read", format!("{mount}/data/{path}"), "[\"read\"]"),
            Self::Write { mount, path, .. } => {
                ("write", format!("{mount}/data/{path}"), "[\"create\", \"read\", \"update\"]")
            }
            Self::Remove { mount, path } => ("remove", format!("{mount}/metadata/{path}"), "[\"delete\"]"),
        }
    }

    pub(super) fn forbidden(&self) -> VaultError {
        let (verb, path, capabilities) = self.needs();
        let all = path.rsplit_once('/').map_or(path.as_str(), |(parent, _)| parent);
        VaultError::Refused {
            what: format!("this login may not {verb} {path}, or there is no such mount"),
            remedy: format!("give its policy path \"{all}/*\" {{ capabilities = {capabilities} }}"),
        }
    }

    pub(super) fn no_mount(&self) -> VaultError {
        let (Self::Read { mount, .. } | Self::Write { mount, .. } | Self::Remove { mount, .. }) = self;
        VaultError::Refused {
            what: format!("no engine is mounted at {mount}"),
            remedy: format!(
                "run `vault secrets enable -path={mount} -version=2 kv`, or set mount to another one"
            ),
        }
    }

    pub(super) fn other(&self, said: String) -> VaultError {
        let (verb, path, _) = self.needs();
        VaultError::Refused {
            what: format!("Vault would not {verb} {path}: {said}"),
            remedy: "its log may tell more".to_owned(),
        }
    }
}
