//! A directory of the worker's host.
//!
//! Every step walks from the root by directory handles, never through a symbolic link, so no key leaves the root whatever
//! others put there.

mod tree;

use super::{
    DeliverError, Destination, Proof, Recovered, Source, Staged, Target,
    part::{part_name, split, uri_path},
};
use crate::config::DirectoryConfig;
use async_trait::async_trait;
use bytes::Bytes;
use dropgate_schemas::delivery::{Finalizing, VerifiedBy};
use rustix::io::Errno;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tree::{Rename, Tree};

/// Pieces between the reader of the blob and the writer of the file.
const PIECES: usize = 8;
/// The slowest disk on which reading a file back is waited for, in bytes a second.
const SLOWEST: u64 = 5 << 20;

/// The adapter.
pub(crate) struct Directory {
    tree: Arc<Tree>,
    deadline: Duration,
}

enum Step {
    Piece(Bytes),
    End,
}

impl Directory {
    pub(crate) fn new(config: &DirectoryConfig, data_dir: &Path) -> Self {
        let root: PathBuf = data_dir.join(&config.path);
        let tree = Tree {
            root,
            create: config.create,
            file_mode: config.file_mode.0,
            directory_mode: config.directory_mode.0,
        };
        Self { tree: Arc::new(tree), deadline: config.deadline_seconds.duration() }
    }

    /// Runs `work` where it may block, but waits no longer than the deadline.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> Result<T, DeliverError> + Send + 'static,
    ) -> Result<T, DeliverError> {
        self.reading(0, work).await
    }

    /// As [`Self::blocking`], with time for reading `size` bytes.
    async fn reading<T: Send + 'static>(
        &self,
        size: u64,
        work: impl FnOnce(&Tree) -> Result<T, DeliverError> + Send + 'static,
    ) -> Result<T, DeliverError> {
        let tree = Arc::clone(&self.tree);
        let task = tokio::task::spawn_blocking(move || work(&tree));
        self.join(self.deadline + Duration::from_secs(size / SLOWEST), task).await
    }

    async fn join<T>(
        &self,
        deadline: Duration,
        task: JoinHandle<Result<T, DeliverError>>,
    ) -> Result<T, DeliverError> {
        match tokio::time::timeout(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(DeliverError::Unavailable(panicked.to_string())),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> DeliverError {
        let (root, waited) = (self.tree.root.display(), self.deadline.as_secs());
        DeliverError::Unavailable(format!("{root} did not answer within {waited} s"))
    }

    fn proof(&self, target: &Target, verified_by: VerifiedBy) -> Proof {
        let path = self.tree.root.join(&target.key);
        Proof {
            uri: format!("file://{}", uri_path(&path.to_string_lossy())),
            container: None,
            version_tag: None,
            verified_by,
        }
    }
}

#[async_trait]
impl Destination for Directory {
    async fn stage(&self, target: &Target, source: &mut Source) -> Result<Staged, DeliverError> {
        let (dir, name) = split(&target.key);
        let (dir, part) = (dir.to_owned(), part_name(name, target.delivery, target.epoch));
        let (pieces, mut taken) = mpsc::channel(PIECES);
        let tree = Arc::clone(&self.tree);
        let writer = tokio::task::spawn_blocking({
            let (dir, part) = (dir.clone(), part.clone());
            move || {
                let mut file = tree.create(&dir, &part)?;
                loop {
                    match taken.blocking_recv() {
                        Some(Step::Piece(piece)) => {
                            if let Err(error) = file.write(&piece) {
                                file.remove();
                                return Err(error);
                            }
                        }
                        Some(Step::End) => return file.sync(),
                        // The reader gave up.
                        None => {
                            file.remove();
                            return Ok(());
                        }
                    }
                }
            }
        });
        let fed = async {
            loop {
                let step = source.next().await?.map_or(Step::End, Step::Piece);
                let last = matches!(step, Step::End);
                let sent = tokio::time::timeout(self.deadline, pieces.send(step)).await;
                match sent.map_err(|_| self.late())? {
                    Ok(()) if last => return Ok(()),
                    Ok(()) => {}
                    // The writer ended: it knows why.
                    Err(_) => return Ok(()),
                }
            }
        };
        let fed: Result<(), DeliverError> = fed.await;
        drop(pieces);
        let wrote = self.join(self.deadline, writer).await;
        fed.and(wrote)?;
        source.written().await;
        let (size, sha256) = (target.size, target.sha256);
        let staged = part.clone();
        self.reading(size, move |tree| {
            let found = tree.digest(&dir, &part)?;
            if found == Some((size, sha256)) {
                return Ok(());
            }
            tree.remove(&dir, &part)?;
            Err(DeliverError::Digest(mismatch(tree, found, size, sha256)))
        })
        .await?;
        Ok(Staged { name: staged, verified_by: VerifiedBy::Sha256Readback, kept: None })
    }

    async fn finish(&self, target: &Target, staged: &Staged) -> Result<(), DeliverError> {
        let (dir, name) = split(&target.key);
        let (dir, name, part) = (dir.to_owned(), name.to_owned(), staged.name.clone());
        let how = if target.replace.something() { Rename::Replace } else { Rename::IfFree };
        let key = target.key.clone();
        self.blocking(move |tree| match tree.rename(&dir, &part, &name, how) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(DeliverError::Collision(format!(
                "{} is there already and is not ours: move it away, or set on_collision of the route",
                tree.root.join(&key).display()
            ))),
            Err(error) => Err(tree.error("rename to", &key, error)),
        })
        .await
    }

    async fn verify(&self, target: &Target, staged: &Staged) -> Result<Option<Proof>, DeliverError> {
        let (dir, name) = split(&target.key);
        let (dir, name, size) = (dir.to_owned(), name.to_owned(), target.size);
        // The bytes were compared before the rename. Whoever takes the file away at once may do so.
        let right =
            self.blocking(move |tree| Ok(tree.size(&dir, &name)?.is_none_or(|found| found == size))).await?;
        Ok(right.then(|| self.proof(target, staged.verified_by)))
    }

    async fn recover(&self, target: &Target, finalizing: &Finalizing) -> Result<Recovered, DeliverError> {
        let (dir, name) = split(&target.key);
        let part = finalizing.staged_as.clone();
        let part = part.unwrap_or_else(|| part_name(name, target.delivery, finalizing.epoch));
        let (dir, name, (size, sha256)) = (dir.to_owned(), name.to_owned(), (target.size, target.sha256));
        let staged = part.clone();
        let found = self
            .reading(size, move |tree| match tree.digest(&dir, &part)? {
                Some(found) => Ok(Err(found == (size, sha256))),
                None => tree.digest(&dir, &name).map(Ok),
            })
            .await?;
        Ok(match found {
            Err(true) => Recovered::Staged(Staged {
                name: staged,
                verified_by: VerifiedBy::Sha256Readback,
                kept: None,
            }),
            Err(false) => Recovered::Again,
            Ok(found) if found == Some((size, sha256)) => {
                Recovered::Done(self.proof(target, VerifiedBy::Sha256Readback))
            }
            Ok(found) => Recovered::Gone(mismatch(&self.tree, found, size, sha256)),
        })
    }

    async fn discard(&self, target: &Target, epochs: Range<u64>) -> Result<(), DeliverError> {
        let (dir, name) = split(&target.key);
        let parts: Vec<String> = epochs.map(|epoch| part_name(name, target.delivery, epoch)).collect();
        let dir = dir.to_owned();
        self.blocking(move |tree| parts.iter().try_for_each(|part| tree.remove(&dir, part))).await
    }
}

fn mismatch(
    tree: &Tree,
    found: Option<(u64, dropgate_schemas::digest::Sha256)>,
    size: u64,
    sha256: dropgate_schemas::digest::Sha256,
) -> String {
    let root = tree.root.display();
    match found {
        None => format!("{root} no longer has the file"),
        Some((there, digest)) => {
            format!("{root} has {there} bytes with SHA-256 {digest} instead of {size} with {sha256}")
        }
    }
}
