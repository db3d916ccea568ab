//! An SFTP server: everything is written under a temporary name in the target directory, compared there, and renamed.

mod client;
mod connect;
pub(crate) mod hostkey;
mod pool;
mod transfer;
mod wire;

use super::{
    DeliverError, Destination, Proof, Recovered, Source, Staged, Target,
    part::{part_name, split, uri_path},
};
use crate::config::{Problem, SftpConfig};
use async_trait::async_trait;
use client::ClientError;
use connect::Connection;
use dropgate_backends::SecretStore;
use dropgate_schemas::delivery::Finalizing;
use hostkey::Pins;
use pool::Pool;
use std::{future::Future, ops::Range, sync::Arc};

/// The adapter.
pub(crate) struct Sftp {
    pool: Pool,
}

impl Sftp {
    pub(crate) fn new(config: &SftpConfig, secrets: Arc<dyn SecretStore>) -> Result<Self, Problem> {
        let pins = Pins::parse(&config.host_keys).map_err(|what| {
            Problem::new(
                format!("destination {}.host_keys", config.name),
                what,
                "list SHA256 fingerprints or keys",
            )
        })?;
        Ok(Self { pool: Pool::new(config.clone(), pins, secrets) })
    }

    /// Does `work` with a connection and keeps that for the next one if it still works.
    async fn with<T, F>(&self, work: impl FnOnce(Arc<Connection>) -> F + Send) -> Result<T, DeliverError>
    where
        F: Future<Output = Result<T, DeliverError>> + Send,
    {
        let connection = Arc::new(self.pool.take().await?);
        let result = work(Arc::clone(&connection)).await;
        if let Some(connection) = Arc::into_inner(connection) {
            self.pool.put(connection);
        }
        result
    }

    /// What a failed request means for a delivery.
    fn error(&self, did: &str, path: &str, error: &ClientError) -> DeliverError {
        let host = &self.pool.config().host;
        let what = format!("{host}: can't {did} {path}: {error}");
        match error.code() {
            Some(wire::PERMISSION_DENIED | wire::OP_UNSUPPORTED | 12) => DeliverError::Denied(what),
            Some(wire::NO_SUCH_FILE) if did == "create" => {
                DeliverError::Denied(format!("{what}: make the directory, or set make_directories = true"))
            }
            Some(11) => DeliverError::Collision(what),
            Some(_) | None => DeliverError::Unavailable(what),
        }
    }

    fn proof(&self, connection: &Connection, target: &Target, staged: &Staged) -> Proof {
        let (host, port) = (&self.pool.config().host, self.pool.config().port);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let path = join(&connection.root, &target.key);
        let slash = if path.starts_with('/') { "" } else { "/" };
        Proof {
            uri: format!("sftp://{host}:{port}{slash}{}", uri_path(&path)),
            container: None,
            version_tag: None,
            verified_by: staged.verified_by,
        }
    }

    /// Directory and full path of a name next to the target's key.
    fn place(connection: &Connection, target: &Target, name: &str) -> (String, String) {
        let dir = join(&connection.root, split(&target.key).0);
        let path = join(&dir, name);
        (dir, path)
    }

    async fn rename(
        &self,
        connection: &Connection,
        from: &str,
        to: &str,
        replace: bool,
    ) -> Result<(), DeliverError> {
        let client = &connection.client;
        let failed = |error: &ClientError| self.error("rename to", to, error);
        if replace {
            if client.offers("posix-rename@openssh.com") {
                match client.posix_rename(from, to).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.code() == Some(wire::OP_UNSUPPORTED) => {}
                    Err(error) => return Err(failed(&error)),
                }
            }
            // Version 3 does not rename over a file. Should we die in between, the temporary name is still there.
            client.remove(to).await.map_err(|e| self.error("replace", to, &e))?;
        } else if let Ok(Some(_)) = client.lstat(to).await {
            // Asked first, since some servers do rename over a file.
            return Err(self.taken(to));
        }
        match client.rename(from, to).await {
            Ok(()) => Ok(()),
            Err(error @ ClientError::Status(_)) if !replace => match client.lstat(to).await {
                // Somebody was faster, unless our file is there and its temporary name is not: then it did happen.
                Ok(Some(_)) if matches!(client.lstat(from).await, Ok(Some(_))) => Err(self.taken(to)),
                Ok(_) | Err(_) => Err(failed(&error)),
            },
            Err(error) => Err(failed(&error)),
        }
    }

    fn taken(&self, path: &str) -> DeliverError {
        let host = &self.pool.config().host;
        DeliverError::Collision(format!(
            "{host} has {path} already, and it is not ours: move it away, or set on_collision of the route"
        ))
    }
}

#[async_trait]
impl Destination for Sftp {
    async fn stage(&self, target: &Target, source: &mut Source) -> Result<Staged, DeliverError> {
        self.with(async |connection| self.transfer(&connection, target, source).await).await
    }

    async fn finish(&self, target: &Target, staged: &Staged) -> Result<(), DeliverError> {
        self.with(async |connection| {
            let (_, from) = Self::place(&connection, target, &staged.name);
            let to = join(&connection.root, &target.key);
            self.rename(&connection, &from, &to, target.replace.something()).await
        })
        .await
    }

    async fn verify(&self, target: &Target, staged: &Staged) -> Result<Option<Proof>, DeliverError> {
        self.with(async |connection| {
            let path = join(&connection.root, &target.key);
            // The bytes were compared before the rename. Whoever takes the file away at once may do so, and a drop box
            // need not let us look.
            let right = match connection.client.lstat(&path).await {
                Ok(found) => found.and_then(|found| found.size).is_none_or(|size| size == target.size),
                Err(ClientError::Status(_)) => true,
                Err(error @ ClientError::Lost(_)) => return Err(self.error("look at", &path, &error)),
            };
            Ok(right.then(|| self.proof(&connection, target, staged)))
        })
        .await
    }

    async fn recover(&self, target: &Target, finalizing: &Finalizing) -> Result<Recovered, DeliverError> {
        self.with(async |connection| {
            let name = split(&target.key).1;
            let part = finalizing.staged_as.clone();
            let part = part.unwrap_or_else(|| part_name(name, target.delivery, finalizing.epoch));
            let (_, staged) = Self::place(&connection, target, &part);
            let look = async |path: &str| {
                connection.client.lstat(path).await.map_err(|e| self.error("look at", path, &e))
            };
            if look(&staged).await?.is_some() {
                return Ok(match self.compare(&connection, &staged, target).await? {
                    Ok(verified_by) => Recovered::Staged(Staged { name: part, verified_by, kept: None }),
                    Err(_) => Recovered::Again,
                });
            }
            let path = join(&connection.root, &target.key);
            if look(&path).await?.is_none() {
                return Ok(Recovered::Gone(format!("{} no longer has the file", self.pool.config().host)));
            }
            Ok(match self.compare(&connection, &path, target).await? {
                Ok(verified_by) => {
                    let staged = Staged { name: part, verified_by, kept: None };
                    Recovered::Done(self.proof(&connection, target, &staged))
                }
                Err(found) => Recovered::Gone(found),
            })
        })
        .await
    }

    async fn discard(&self, target: &Target, epochs: Range<u64>) -> Result<(), DeliverError> {
        let name = split(&target.key).1;
        self.with(async |connection| {
            let paths = epochs
                .map(|epoch| Self::place(&connection, target, &part_name(name, target.delivery, epoch)).1);
            let removals = paths.map(async |path| match connection.client.remove(&path).await {
                // A directory that isn't there has nothing to remove.
                Ok(()) => Ok(()),
                Err(error) if error.code().is_some_and(|code| code == 4) => Ok(()),
                Err(error) => Err(self.error("remove", &path, &error)),
            });
            futures::future::try_join_all(removals).await.map(|_| ())
        })
        .await
    }
}

/// A path below another; `dir` may be empty or end in a slash.
fn join(dir: &str, name: &str) -> String {
    match (dir, name) {
        ("", name) => name.to_owned(),
        (dir, "") => dir.to_owned(),
        (dir, name) => format!("{}/{name}", dir.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests;
