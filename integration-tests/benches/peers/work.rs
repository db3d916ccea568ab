//! What is uploaded, in which way, to whom.

use crate::server::Peer;
use dropgate_integration_tests::harness::Medium;

/// One workload.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Its title.
    pub(crate) name: String,
    /// Where the servers keep their files.
    pub(crate) medium: Medium,
    /// Whether the client asks for fsync where the server does not sync by itself (`put -f`).
    pub(crate) durable: bool,
    /// Server on one core, client on another.
    pub(crate) pinned: bool,
    /// Sessions at the same time.
    pub(crate) sessions: usize,
    /// Files of each session.
    pub(crate) files: usize,
    /// Bytes of each file.
    pub(crate) length: u64,
    /// Who takes part.
    pub(crate) peers: Vec<Peer>,
}

impl Workload {
    /// All bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.sessions * self.files) as u64 * self.length
    }
    /// All files.
    pub(crate) fn count(&self) -> usize {
        self.sessions * self.files
    }
    /// Whether megabytes matter, or files.
    pub(crate) fn is_bulk(&self) -> bool {
        self.length >= 1 << 20
    }
}

/// One large file.
pub(crate) fn bulk() -> Workload {
    Workload {
        name: "1 GiB, memory".to_owned(),
        medium: Medium::Memory,
        durable: false,
        pinned: false,
        sessions: 1,
        files: 1,
        length: 1 << 30,
        peers: vec![
            Peer::Dropgate { deliver: false },
            Peer::InternalSftp,
            Peer::SftpServer,
            Peer::Dropgate { deliver: true },
        ],
    }
}

/// Every workload of the comparison with OpenSSH, in the order of the report.
pub(crate) fn all() -> Vec<Workload> {
    let both = vec![Peer::Dropgate { deliver: false }, Peer::InternalSftp, Peer::SftpServer];
    let bulk = bulk();
    let small = Workload {
        name: "2,000 x 4 KiB, memory".to_owned(),
        sessions: 1,
        files: 2000,
        length: 4096,
        peers: both.clone(),
        ..bulk.clone()
    };
    let disk = |work: &Workload, name: &str| Workload {
        name: name.to_owned(),
        medium: Medium::Disk,
        durable: true,
        peers: both.clone(),
        ..work.clone()
    };
    vec![
        bulk.clone(),
        Workload {
            name: "1 GiB, memory, server on one core".to_owned(),
            pinned: true,
            peers: both.clone(),
            ..bulk.clone()
        },
        Workload {
            name: "4 x 256 MiB at once, memory".to_owned(),
            sessions: 4,
            length: 256 << 20,
            peers: both.clone(),
            ..bulk.clone()
        },
        disk(&bulk, "1 GiB, disk, durable"),
        small.clone(),
        disk(&small, "2,000 x 4 KiB, disk, durable"),
        Workload { sessions: 16, files: 125, ..disk(&small, "16 x 125 x 4 KiB at once, disk, durable") },
    ]
}
