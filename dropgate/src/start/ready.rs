//! `ready.json`: says that the process is ready, and on which addresses, to whatever started it.

use super::Roles;
use anyhow::Context as _;
use serde::Serialize;
use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Ready {
    /// Address of the SFTP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sftp: Option<SocketAddr>,
    /// Addresses of further SFTP listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) more_sftp: Vec<SocketAddr>,
    /// Address of the ops listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ops: Option<SocketAddr>,
    /// Address of the health listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<SocketAddr>,
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    ready: &'a Ready,
    pid: u32,
}

/// Where a process of these roles says that it is ready.
pub(crate) fn file(data_dir: &Path, roles: Roles) -> PathBuf {
    data_dir.join(match roles {
        Roles::All => "ready.json".to_owned(),
        Roles::One(role) => format!("ready-{role}.json"),
    })
}

/// Removes the file, if it is there.
///
/// # Errors
/// If it can't be removed.
pub(crate) fn remove(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be removed", file.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Ready {
    /// Writes the file as a whole: whoever sees it sees all of it.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let written = || -> std::io::Result<()> {
            let directory = file.parent().unwrap_or(Path::new("."));
            let mut temporary = tempfile::Builder::new().prefix(".ready-").tempfile_in(directory)?;
            let text = serde_json::to_string(&File { ready: self, pid: std::process::id() })?;
            writeln!(temporary, "{text}")?;
            temporary.persist(file).map_err(|e| e.error)?;
            Ok(())
        };
        written().with_context(|| format!("{} can't be written", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_backends::Role;

    #[test]
    fn the_file_says_addresses_and_process_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), Roles::All);
        assert_eq!(path, dir.path().join("ready.json"));
        assert_eq!(file(dir.path(), Roles::One(Role::Worker)), dir.path().join("ready-worker.json"));
        std::fs::write(&path, r#"{"pid":1}"#).unwrap();
        let ready = Ready {
            sftp: Some("127.0.0.1:40123".parse().unwrap()),
            more_sftp: vec![],
            ops: Some("[::1]:40124".parse().unwrap()),
            health: None,
        };
        ready.write(&path).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let pid = std::process::id();
        assert_eq!(value, serde_json::json!({"sftp": "127.0.0.1:40123", "ops": "[::1]:40124", "pid": pid}));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
        let error = ready.write(Path::new("/nonexistent/ready.json")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ready.json"), "{error}");
    }
}
