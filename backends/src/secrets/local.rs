//! Secrets of this host: environment variables and files.

use super::{Secret, SecretError, SecretStore};
use async_trait::async_trait;
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// A file that is larger is not a secret.
const LARGEST: u64 = 1 << 20;

/// `env:NAME` and `file:PATH`; a relative path is below the data directory.
#[derive(Debug)]
pub(crate) struct LocalSecrets {
    base: PathBuf,
}

impl LocalSecrets {
    pub(crate) const fn new(base: PathBuf) -> Self {
        Self { base }
    }
}

#[async_trait]
impl SecretStore for LocalSecrets {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        match reference.split_once(':') {
            Some(("env", name)) if is_variable(name) => variable(reference, name),
            Some(("file", path)) if !path.is_empty() => {
                let (path, reference) = (self.base.join(path), reference.to_owned());
                let named = reference.clone();
                tokio::task::spawn_blocking(move || read(&path, reference)).await.unwrap_or_else(|e| {
                    Err(SecretError::Unavailable { reference: named, why: e.to_string() })
                })
            }
            Some(("vault", _)) => Err(SecretError::malformed(
                reference,
                "use env:NAME or file:PATH; for vault:PATH#KEY, set kind = \"vault\" in [backends.secrets]",
            )),
            Some(_) | None => Err(SecretError::malformed(reference, "use env:NAME or file:PATH")),
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn variable(reference: &str, name: &str) -> Result<Secret, SecretError> {
    use std::os::unix::ffi::OsStringExt as _;
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => Ok(Secret::new(value.into_vec())),
        found => Err(SecretError::NotFound {
            reference: reference.to_owned(),
            remedy: format!(
                "the environment variable {name} is {}: set it for the dropgate process",
                if found.is_some() { "empty" } else { "not set" }
            ),
        }),
    }
}

fn read(path: &Path, reference: String) -> Result<Secret, SecretError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() as u64 > LARGEST => Err(SecretError::NotFound {
            reference,
            remedy: format!(
                "{} has more than {LARGEST} bytes: name the file with the secret",
                path.display()
            ),
        }),
        Ok(0) => Err(SecretError::NotFound {
            reference,
            remedy: format!("{} is empty: write the secret into it", path.display()),
        }),
        Ok(_) => Ok(Secret::new(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(SecretError::NotFound {
            reference,
            remedy: format!("create {}, readable by the user that runs dropgate only", path.display()),
        }),
        Err(e) => Err(SecretError::Unavailable { reference, why: format!("{}: {e}", path.display()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::conformance;

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("canary"), "canary-7f3k2q\n").unwrap();
        let store = LocalSecrets::new(dir.path().to_owned());
        let absolute = format!("file:{}", dir.path().join("canary").display());
        for reference in ["file:canary", &absolute] {
            conformance::suite(&store, reference, "canary-7f3k2q", "file:missing").await;
        }
    }

    #[tokio::test]
    async fn the_environment_is_read() {
        let store = LocalSecrets::new(PathBuf::new());
        let secret = store.resolve("env:CARGO_PKG_NAME").await.unwrap();
        assert_eq!(secret.expose_str(), Some("dropgate-backends"));
        let error = store.resolve("env:DROPGATE_SURELY_NOT_SET").await.unwrap_err().to_string();
        assert!(error.contains("DROPGATE_SURELY_NOT_SET is not set"), "{error}");
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        let store = LocalSecrets::new(dir.path().to_owned());
        for (reference, expected) in [
            ("file:missing", "create "),
            ("file:empty", "is empty"),
            ("file:.", "directory"),
            ("hunter2", "use env:NAME or file:PATH"),
            ("hunter2:", "use env:NAME or file:PATH"),
            ("env:A B", "use env:NAME or file:PATH"),
            ("vault:a#b", "set kind = \"vault\" in [backends.secrets]"),
        ] {
            let error = store.resolve(reference).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{reference}: {error}");
        }
    }

    #[tokio::test]
    async fn a_secret_in_the_place_of_a_reference_is_not_repeated() {
        let store = LocalSecrets::new(PathBuf::new());
        for reference in
            ["correct horse battery staple", "correct horse:battery staple", "vault:horse#staple"]
        {
            let error = store.resolve(reference).await.unwrap_err().to_string();
            assert!(!error.contains("horse") && !error.contains("staple"), "{error}");
        }
    }
}
