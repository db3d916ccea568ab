//! Verifiers in one TOML file that all processes of this host share.
//!
//! The file is replaced as a whole under a lock file, so a reader finds the old content or the new. Each look at an account
//! asks the file system whether the file was replaced since; only then is it read again. It may be edited by hand.

use super::{CredentialError, CredentialStore};
use crate::{durable, open::OpenError};
use async_trait::async_trait;
use dropgate_schemas::account::{AccountName, Credentials, PublicKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

const KEY: &str = "[backends.credentials] path";
const HEADER: &str = "# Verifiers of accounts: hashes and public keys. Written by dropgate; edit it with `dropgate account`.\n\n";
/// Longest wait for another process that is changing the file.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct CredentialFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    cached: Mutex<Option<Arc<Cached>>>,
}

#[derive(Debug)]
struct Cached {
    stamp: Stamp,
    document: Document,
}

/// What tells one content of the file from another without reading it. A replaced file is another inode; the rest is for
/// those who edit in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    accounts: BTreeMap<AccountName, Verifiers>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verifiers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    public_keys: Vec<PublicKey>,
}

impl CredentialFile {
    /// Opens the store. A missing file is one without accounts.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, OpenError> {
        let store = Self { shared: Arc::new(Shared { path, cached: Mutex::new(None) }) };
        match store.run(Shared::read).await {
            Ok(_) => Ok(store),
            Err(CredentialError::Corrupt(what)) => Err(OpenError::Corrupt {
                key: KEY,
                path: store.shared.path.clone(),
                what,
                remedy: "correct that line, or put back a copy of the file".to_owned(),
            }),
            Err(CredentialError::Unavailable(what) | CredentialError::Rejected(what)) => {
                Err(OpenError::Unusable {
                    key: KEY,
                    path: store.shared.path.clone(),
                    what,
                    remedy: "give the user that runs dropgate the right to read and write it".to_owned(),
                })
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, CredentialError> + Send + 'static,
    ) -> Result<T, CredentialError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared));
        done.await.unwrap_or_else(|e| Err(CredentialError::Unavailable(e.to_string())))
    }
}

#[async_trait]
impl CredentialStore for CredentialFile {
    async fn lookup(&self, account: &AccountName) -> Result<Option<Credentials>, CredentialError> {
        let account = account.clone();
        self.run(move |shared| {
            let cached = shared.read()?;
            Ok(cached.document.accounts.get(&account).map(|v| Credentials {
                account: account.clone(),
                password_hash: v.password_hash.clone(),
                public_keys: v.public_keys.clone(),
            }))
        })
        .await
    }

    async fn put(&self, credentials: Credentials) -> Result<(), CredentialError> {
        self.run(move |shared| {
            shared.change(|document| {
                let Credentials { account, password_hash, public_keys } = credentials;
                document.accounts.insert(account, Verifiers { password_hash, public_keys });
            })
        })
        .await
    }

    async fn remove(&self, account: &AccountName) -> Result<(), CredentialError> {
        let account = account.clone();
        self.run(move |shared| shared.change(|document| drop(document.accounts.remove(&account)))).await
    }

    async fn check(&self) -> Result<(), CredentialError> {
        self.run(|shared| shared.read().map(drop)).await
    }
}

impl Shared {
    /// The content as it is now.
    fn read(&self) -> Result<Arc<Cached>, CredentialError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(&self.path, &e)),
        };
        let stamp = match &file {
            None => Stamp { device: 0, inode: 0, length: 0, modified: (0, 0), changed: (0, 0) },
            Some(file) => stamp(file).map_err(|e| failed(&self.path, &e))?,
        };
        let mut slot = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = slot.as_ref().filter(|cached| cached.stamp == stamp) {
            return Ok(cached.clone());
        }
        let mut text = String::new();
        if let Some(file) = &mut file {
            file.read_to_string(&mut text).map_err(|e| failed(&self.path, &e))?;
        }
        let cached = Arc::new(Cached { stamp, document: parse(&self.path, &text)? });
        *slot = Some(cached.clone());
        Ok(cached)
    }

    fn change(&self, change: impl FnOnce(&mut Document)) -> Result<(), CredentialError> {
        let lock_path = self.path.with_added_extension("lock");
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|e| failed(&lock_path, &e))?;
        wait_for(&lock, &lock_path)?;
        let mut document = self.read()?.document.clone();
        change(&mut document);
        let text = toml::to_string(&document)
            .map_err(|e| CredentialError::Rejected(format!("the entry can't be written as TOML: {e}")))?;
        durable::replace(&self.path, format!("{HEADER}{text}").as_bytes())
            .map_err(|e| failed(&self.path, &e))?;
        drop(lock);
        Ok(())
    }
}

fn wait_for(lock: &File, path: &Path) -> Result<(), CredentialError> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(CredentialError::Unavailable(format!(
                    "{}: another process has held the lock for {} s",
                    path.display(),
                    LOCK_WAIT.as_secs()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(failed(path, &e)),
        }
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let of = file.metadata()?;
    Ok(Stamp {
        device: of.dev(),
        inode: of.ino(),
        length: of.len(),
        modified: (of.mtime(), of.mtime_nsec()),
        changed: (of.ctime(), of.ctime_nsec()),
    })
}

fn failed(path: &Path, error: &io::Error) -> CredentialError {
    let said = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::IsADirectory => {
            CredentialError::Rejected(said)
        }
        io::ErrorKind::InvalidData => CredentialError::Corrupt(format!("{said}: it is not a text file")),
        _ => CredentialError::Unavailable(said),
    }
}

/// Reads the document; an error names file, line and key, and repeats nothing of what may be a hash.
fn parse(path: &Path, text: &str) -> Result<Document, CredentialError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let key = line.split('=').next().unwrap_or_default().trim();
        CredentialError::Corrupt(format!(
            "{}, line {number}, near {:?}: {}",
            path.display(),
            key.chars().take(60).collect::<String>(),
            error.message()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::conformance;
    use std::os::unix::fs::PermissionsExt as _;

    async fn open(dir: &Path) -> CredentialFile {
        CredentialFile::open(dir.join("credentials.toml")).await.unwrap()
    }

    fn demo() -> AccountName {
        "demo".parse().unwrap()
    }

    fn credentials(password_hash: &str) -> Credentials {
        Credentials {
            account: demo(),
            password_hash: Some(password_hash.to_owned()),
            public_keys: Vec::new(),
        }
    }

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::suite(&open(dir.path()).await, &open(dir.path()).await).await;
    }

    #[tokio::test]
    async fn the_file_is_private_and_can_be_read_by_people() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.put(credentials("hash")).await.unwrap();
        let path = dir.path().join("credentials.toml");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Verifiers of accounts"), "{text}");
        assert!(text.contains("[accounts.demo]\npassword_hash = \"hash\""), "{text}");
    }

    #[tokio::test]
    async fn an_edit_by_hand_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.put(credentials("first")).await.unwrap();
        let path = dir.path().join("credentials.toml");
        let edited = std::fs::read_to_string(&path).unwrap().replace("first", "later");
        std::fs::write(&path, edited).unwrap();
        let found = store.lookup(&demo()).await.unwrap().unwrap();
        assert_eq!(found.password_hash.as_deref(), Some("later"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(store.lookup(&demo()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_not_changed_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.put(credentials("hash")).await.unwrap();
        let first = store.shared.read().unwrap();
        assert!(Arc::ptr_eq(&first, &store.shared.read().unwrap()));
    }

    #[tokio::test]
    async fn a_corrupt_file_is_named_with_line_and_key_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.put(credentials("very-secret-hash")).await.unwrap();
        let path = dir.path().join("credentials.toml");
        for (broken, expected) in [
            (
                "[accounts.demo]\npasword_hash = 'very-secret-hash'\n",
                "line 2, near \"pasword_hash\": unknown field",
            ),
            ("\n\n[accounts.Demo]\n", "\"Demo\" is not a name"),
            ("[accounts.demo\n", "line 1"),
            ("[accounts.demo]\npassword_hash = 'very-secret-hash\n", "line 2, near \"password_hash\""),
        ] {
            std::fs::write(&path, broken).unwrap();
            let error = store.lookup(&demo()).await.unwrap_err();
            assert!(matches!(error, CredentialError::Corrupt(_)), "{error}");
            let said = error.to_string();
            assert!(said.contains("credentials.toml") && said.contains(expected), "{said}");
            assert!(!said.contains("very-secret-hash"), "{said}");
            assert!(store.put(credentials("new")).await.is_err(), "nothing is built on a corrupt file");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
            let refused = CredentialFile::open(path.clone()).await.unwrap_err().to_string();
            assert!(
                refused.contains("[backends.credentials] path") && refused.contains(expected),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn who_can_not_get_the_lock_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let lock = File::create(dir.path().join("credentials.toml.lock")).unwrap();
        lock.lock().unwrap();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.put(credentials("hash")).await }
        });
        // Readers don't wait.
        assert_eq!(store.lookup(&demo()).await.unwrap(), None);
        lock.unlock().unwrap();
        waiting.await.unwrap().unwrap();
        assert!(store.lookup(&demo()).await.unwrap().is_some());
    }
}
