//! Who this process is: one installation of one role on one data directory, the same over restarts.

mod liveness;

pub use liveness::{CLAIM_TTL, Liveness, OWNER_TTL};

use crate::state::{StateError, StateStore};
use dropgate_schemas::id::InstanceId;
use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often an instance says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes uploads in.
    Gateway,
    /// Delivers them.
    Worker,
    /// Shows them.
    Ops,
}

impl Role {
    /// The name as it is stored and printed: `gateway`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Ops => "ops",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why this process can't be that role here.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process is.
    #[error(
        "{path} is locked: another {role} (process {pid}) runs on this data directory; \
         stop it first, or give this one another --data-dir"
    )]
    Taken {
        /// Which role.
        role: Role,
        /// The lock file.
        path: PathBuf,
        /// The other's process id, as far as it told.
        pid: String,
    },
    /// The lock file can't be used.
    #[error("{path} can't be used: {source}; check that the data directory exists and belongs to this user")]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What this host calls itself.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The identity of this process in one role, held for as long as the value lives.
#[derive(Debug)]
pub struct Identity {
    id: InstanceId,
    role: Role,
    node: String,
    host: String,
    returned: bool,
    // The lock goes with the file.
    _lock: File,
}

impl Identity {
    /// Takes the role on a data directory: locks `<role>.lock` there and reads the instance id from it, or mints one.
    ///
    /// # Errors
    /// [`IdentityError::Taken`] if another process has it.
    pub fn claim(data_dir: &Path, role: Role) -> Result<Self, IdentityError> {
        let path = data_dir.join(format!("{role}.lock"));
        let unusable = |source| IdentityError::Unusable { path: path.clone(), source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        let held = match file.try_lock() {
            Ok(()) => true,
            Err(std::fs::TryLockError::WouldBlock) => false,
            Err(std::fs::TryLockError::Error(e)) => return Err(unusable(e)),
        };
        let mut text = String::new();
        (&file).take(1024).read_to_string(&mut text).map_err(unusable)?;
        let mut lines = text.lines();
        let id = lines.next().and_then(|line| line.parse::<InstanceId>().ok());
        if !held {
            let pid = lines.next().map_or("unknown", str::trim).to_owned();
            return Err(IdentityError::Taken { role, path, pid });
        }
        let returned = id.is_some();
        let id = id.unwrap_or_else(InstanceId::new);
        let host = host();
        // The id keeps its place and its bytes, so a crash in here can't lose it once it is on disk.
        file.rewind().map_err(unusable)?;
        write!(file, "{id}\n{:<10}\n", std::process::id()).map_err(unusable)?;
        if !returned {
            file.sync_all().map_err(unusable)?;
        }
        let node = format!("{host}:{}", std::process::id());
        Ok(Self { id, role, node, host, returned, _lock: file })
    }

    /// The id, the same at the next start.
    #[must_use]
    pub const fn id(&self) -> InstanceId {
        self.id
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Host name and process id, for people.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Host name and role, as audit entries name who wrote them.
    #[must_use]
    pub fn audit_node(&self) -> String {
        format!("{}/{}", self.host, self.role)
    }

    /// Whether this instance existed before: then what its former self had claimed may be freed at once, for that self
    /// is dead.
    #[must_use]
    pub const fn returned(&self) -> bool {
        self.returned
    }
}

/// Says every [`HEARTBEAT`] that the instance lives, and takes note in `peers` of who else does, until `shutdown`. Each call
/// has the store's own deadline; a beat that fails is logged and the next one comes in time.
pub async fn heartbeat(
    state: Arc<dyn StateStore>,
    identity: Arc<Identity>,
    peers: Arc<Liveness>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let beat = async {
            state.heartbeat(identity.id, identity.role.as_str(), &identity.node).await?;
            peers.observe(&state.instances().await?);
            Ok::<_, StateError>(())
        };
        if let Some(Err(error)) = shutdown.run_until_cancelled(beat).await {
            tracing::warn!(%error, role = %identity.role, "heartbeat failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_id_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::claim(dir.path(), Role::Gateway).unwrap();
        assert!(!first.returned());
        let id = first.id();
        let other = Identity::claim(dir.path(), Role::Worker).unwrap();
        assert_ne!(other.id(), id);
        drop(first);
        let again = Identity::claim(dir.path(), Role::Gateway).unwrap();
        assert_eq!(again.id(), id);
        assert!(again.returned());
        assert!(again.node().ends_with(&format!(":{}", std::process::id())));
        assert!(again.audit_node().ends_with("/gateway"));
    }

    #[test]
    fn a_second_process_of_the_role_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::claim(dir.path(), Role::Worker).unwrap();
        let error = Identity::claim(dir.path(), Role::Worker).unwrap_err().to_string();
        assert!(error.contains("worker.lock"), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--data-dir"), "{error}");
        drop(first);
        Identity::claim(dir.path(), Role::Worker).unwrap();
    }

    #[test]
    fn a_torn_lock_file_costs_the_id_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ops.lock"), "0197").unwrap();
        let identity = Identity::claim(dir.path(), Role::Ops).unwrap();
        assert!(!identity.returned());
        let id = identity.id();
        drop(identity);
        assert_eq!(Identity::claim(dir.path(), Role::Ops).unwrap().id(), id);
    }

    #[test]
    fn a_missing_data_directory_is_named() {
        let error = Identity::claim(Path::new("/nonexistent/data"), Role::Gateway).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/data/gateway.lock"), "{error}");
    }
}
