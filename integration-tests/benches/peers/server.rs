//! The servers that are compared.

use crate::work::Workload;
use anyhow::{Context as _, Result};
use dropgate_integration_tests::harness::{
    Gate, Setup,
    openssh::OpenSsh,
    process::{Usage, usage},
    sshd::{Sshd, Subsystem},
};
use std::time::Duration;

/// Many sessions come from one address here, and all at once.
pub(crate) const MANY_SESSIONS: &str = "[log]\nfilter = \"warn\"\n[gateway.listener.limits]\n\
    unauthenticated_per_source = 100\nnew_per_second_per_source = 1000\nnew_burst_per_source = 1000\n\
    sessions_per_account = 200\nsessions_per_source = 200\n";
/// Nothing is delivered.
pub(crate) const NO_ROUTE: &str = "[[destination]]\nkind = \"directory\"\nname = \"none\"\npath = \"none\"\n\
    [[route]]\naccount = \"nobody\"\ndestinations = [\"none\"]\n";

/// Who takes part in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Dropgate: SHA-256, content type, record, audit and outbox included. `deliver`: the copy to a local directory as well.
    Dropgate {
        /// Whether there is a route.
        deliver: bool,
    },
    /// OpenSSH with `internal-sftp`.
    InternalSftp,
    /// OpenSSH with `sftp-server`.
    SftpServer,
}

impl Peer {
    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dropgate { deliver: false } => "Dropgate",
            Self::Dropgate { deliver: true } => "Dropgate, delivery included",
            Self::InternalSftp => "OpenSSH internal-sftp",
            Self::SftpServer => "OpenSSH sftp-server",
        }
    }
}

/// A running one.
pub(crate) enum Server {
    /// Dropgate.
    Dropgate(Box<Gate>),
    /// OpenSSH, and where uploads go.
    OpenSsh(Sshd, String),
}

impl Server {
    /// Starts one for a workload.
    pub(crate) async fn start(peer: Peer, work: &Workload) -> Result<Self> {
        let wrapper: Vec<String> =
            if work.pinned { ["taskset", "-c", "0"].map(str::to_owned).to_vec() } else { Vec::new() };
        match peer {
            Peer::Dropgate { deliver } => {
                let config = format!("{MANY_SESSIONS}{}", if deliver { "" } else { NO_ROUTE });
                let setup =
                    Setup { medium: work.medium, wrapper, ..Setup::default().learned().config(config) };
                Ok(Self::Dropgate(Box::new(Gate::start(setup).await?)))
            }
            Peer::InternalSftp | Peer::SftpServer => {
                let subsystem = match peer {
                    Peer::InternalSftp => Subsystem::Internal(String::new()),
                    _ => Subsystem::SftpServer,
                };
                let sshd = Sshd::start_on(work.medium, &wrapper, &subsystem, "").await?;
                let root = sshd.directory("incoming")?.display().to_string();
                Ok(Self::OpenSsh(sshd, root))
            }
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<OpenSsh> {
        match self {
            Self::Dropgate(gate) => OpenSsh::new(gate, "acme"),
            Self::OpenSsh(sshd, _) => OpenSsh::at_sshd(sshd),
        }
    }

    /// Where uploads go.
    pub(crate) fn target(&self) -> &str {
        match self {
            Self::Dropgate(_) => "/upload",
            Self::OpenSsh(_, root) => root,
        }
    }

    /// Whether CLOSE alone is durable.
    pub(crate) fn syncs_by_itself(&self) -> bool {
        matches!(self, Self::Dropgate(_))
    }

    /// The main process.
    pub(crate) fn pid(&self) -> Result<u32> {
        match self {
            Self::Dropgate(gate) => Ok(gate.process("run")?.id()),
            Self::OpenSsh(sshd, _) => Ok(sshd.process().id()),
        }
    }

    /// Processor time of it and of all its children that have ended.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage(self.pid()?)
    }

    /// Waits until what follows an upload is done: deliveries, or the end of the session's processes.
    pub(crate) async fn settle(&self) -> Result<()> {
        match self {
            Self::Dropgate(gate) => gate.settled().await.map(|_| ()),
            Self::OpenSsh(sshd, _) => {
                let pid = sshd.process().id();
                dropgate_integration_tests::harness::until::until_true(
                    Duration::from_secs(20),
                    "the session's processes to end",
                    || async { Ok(children(pid)?.is_empty()) },
                )
                .await
            }
        }
    }

    /// Ends it and removes what it keeps.
    pub(crate) async fn finish(self) -> Result<()> {
        match self {
            Self::Dropgate(gate) => gate.finish().await,
            Self::OpenSsh(..) => Ok(()),
        }
    }
}

/// Process ids of the living children of `pid`, all generations.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let path = format!("/proc/{parent}/task/{parent}/children");
        // One that has just ended has none.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for child in text.split_whitespace() {
            let child = child.parse().with_context(|| path.clone())?;
            found.push(child);
            open.push(child);
        }
    }
    Ok(found)
}
