//! Directories that vanish with the test.

use super::binary;
use anyhow::Result;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a scratch directory lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// In memory, where the machine has such a place: quick, for tests whose subject is not durability.
    #[default]
    Memory,
    /// On the disk of the checkout: for kills and syncs.
    Disk,
}

/// A directory that is removed when dropped, unless `DROPGATE_TEST_KEEP` is set.
pub struct Scratch {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new one.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(medium: Medium) -> Result<Self> {
        let shm = Path::new("/dev/shm");
        let parent = match medium {
            Medium::Memory if shm.is_dir() => shm.to_owned(),
            Medium::Memory => std::env::temp_dir(),
            Medium::Disk => {
                let parent = binary::profile_dir()?.join("scratch");
                std::fs::create_dir_all(&parent)?;
                parent
            }
        };
        let dir = tempfile::Builder::new().prefix("dropgate-test-").tempdir_in(parent)?;
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("DROPGATE_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept {}", dir.keep().display());
        }
    }
}
