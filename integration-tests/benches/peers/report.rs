//! Tables for people: on the terminal and in `BENCH.md`.

use crate::{
    copies::Compared,
    machine,
    measure::{Measured, Sample, median},
    server::Peer,
};
use anyhow::Result;
use dropgate_integration_tests::harness::binary::workspace;
use std::fmt::Write as _;

/// What is asked for, where it can be read from two medians.
const TARGETS: [(&str, &str); 5] = [
    (
        "1 GiB, memory, server on one core",
        "processor time at most 0.80 of internal-sftp; at least 1.25 times as fast",
    ),
    ("4 x 256 MiB at once, memory", "at least 1.8 times internal-sftp's MiB/s"),
    ("1 GiB, disk, durable", "at most 10 % above `dd conv=fsync`"),
    ("2,000 x 4 KiB, disk, durable", "at least the files/s of `put -f`"),
    ("16 x 125 x 4 KiB at once, disk, durable", "at least 1.5 times the files/s of `put -f`"),
];

/// Everything that was measured.
pub(crate) struct Report {
    facts: Vec<(String, String)>,
    rounds: usize,
    measured: Vec<Measured>,
    compared: Vec<Compared>,
    /// Resident bytes of one idle session.
    pub(crate) idle: Option<u64>,
}

impl Report {
    pub(crate) fn new(rounds: usize) -> Result<Self> {
        Ok(Self {
            facts: machine::describe()?,
            rounds,
            measured: Vec::new(),
            compared: Vec::new(),
            idle: None,
        })
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        eprintln!("{}", table(&measured));
        self.measured.push(measured);
    }

    pub(crate) fn add_copies(&mut self, compared: Compared) {
        eprintln!("{}", copies_table(&compared));
        self.compared.push(compared);
    }

    pub(crate) fn print(&self) {
        println!("{}", self.text());
    }

    pub(crate) fn write(&self) -> Result<()> {
        let path = workspace()?.join("BENCH.md");
        std::fs::write(&path, self.text())?;
        println!("written to {}", path.display());
        Ok(())
    }

    fn text(&self) -> String {
        let mut out = String::from(
            "# Dropgate, OpenSSH and rclone, compared in one run\n\nWritten by `make bench`.\n\n",
        );
        for (name, value) in &self.facts {
            let _ = writeln!(out, "- {name}: {value}");
        }
        let _ = write!(
            out,
            "\nThe client is OpenSSH `sftp` over loopback with aes128-gcm@openssh.com. Medians of {} rounds that alternate \
             between the servers; the first round is thrown away. Before each run as much memory is touched and freed as it \
             takes. \"CPU\" is the server's user and system time; \"peak\" what all its processes had resident together \
             (OpenSSH's share pages, so its sum is a little high). Dropgate hashes (SHA-256), finds the content type and \
             writes record, audit entry and outbox within these figures; OpenSSH does nothing of the kind. In durable rows \
             the client asks OpenSSH for fsync (`put -f`), which syncs the content only; Dropgate's CLOSE is durable by \
             itself, record included. \"Ratio\" is against internal-sftp: above 1 is faster, for CPU below 1 is less.\n",
            self.rounds
        );
        for measured in &self.measured {
            let _ = write!(out, "\n{}", table(measured));
        }
        if let Some(bytes) = self.idle {
            let _ = write!(
                out,
                "\nAn idle, logged-in session keeps {} KiB resident (target: at most 100).\n",
                bytes >> 10
            );
        }
        if !self.compared.is_empty() {
            out.push_str(
                "\nBelow, the same files go to the same server with Dropgate and with `rclone copy` in its own defaults, which \
                 copies four files at a time. An upload is timed from the start of the OpenSSH clients to the last OK of a \
                 CLOSE; that is one hop more than rclone's. A delivery is timed from the start of a worker that finds the \
                 files in the blob store, a directory in memory, to the last event that tells of one; rclone reads from \
                 memory too.\n",
            );
        }
        for compared in &self.compared {
            let _ = write!(out, "\n{}", copies_table(compared));
        }
        out
    }
}

fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&samples.iter().map(figure).collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn table(measured: &Measured) -> String {
    let work = &measured.work;
    let gib = work.bytes() as f64 / f64::from(1 << 30);
    let mut out = format!("## {}\n\n", work.name);
    let speed_unit = if work.is_bulk() { "MiB/s" } else { "files/s" };
    let cpu_unit = if work.is_bulk() { "CPU s/GiB" } else { "CPU ms/file" };
    let _ = writeln!(out, "| Server | seconds | {speed_unit} | ratio | {cpu_unit} | ratio | peak MiB |");
    let _ = writeln!(out, "|---|---|---|---|---|---|---|");
    let reference = measured.samples.get(&Peer::InternalSftp).map(|s| (of(s, |s| s.wall), of(s, |s| s.cpu)));
    for (peer, samples) in &measured.samples {
        let (wall, cpu) = (of(samples, |s| s.wall), of(samples, |s| s.cpu));
        let (speed, cost) = if work.is_bulk() {
            (gib * 1024.0 / wall, cpu / gib)
        } else {
            (work.count() as f64 / wall, cpu * 1000.0 / work.count() as f64)
        };
        let (faster, cheaper) = reference.map_or((f64::NAN, f64::NAN), |(w, c)| (w / wall, cpu / c));
        let peak = of(samples, |s| s.peak as f64) / f64::from(1 << 20);
        let _ = writeln!(
            out,
            "| {} | {wall:.2} | {speed:.0} | {faster:.2} | {cost:.2} | {cheaper:.2} | {peak:.0} |",
            peer.name()
        );
    }
    if let Some(dd) = measured.dd {
        let _ = writeln!(out, "| `dd conv=fsync` | {dd:.2} | {:.0} | | | | |", gib * 1024.0 / dd);
    }
    if let Some((_, target)) = TARGETS.iter().find(|(name, _)| *name == work.name) {
        let _ = writeln!(out, "\nTarget: {target}.");
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn copies_table(compared: &Compared) -> String {
    let work = &compared.copying.work;
    let gib = work.bytes() as f64 / f64::from(1 << 30);
    let mut out = format!("## {}\n\n", work.name);
    let _ = writeln!(out, "| Who | seconds | MB/s | ratio | CPU s/GiB | peak MiB |");
    let _ = writeln!(out, "|---|---|---|---|---|---|");
    let reference = of(&compared.rclone, |s| s.wall);
    for (name, samples) in [("Dropgate", &compared.ours), ("`rclone copy`", &compared.rclone)] {
        let (wall, cpu) = (of(samples, |s| s.wall), of(samples, |s| s.cpu) / gib);
        let speed = work.bytes() as f64 / 1e6 / wall;
        let peak = of(samples, |s| s.peak as f64) / f64::from(1 << 20);
        let ratio = reference / wall;
        let _ = writeln!(out, "| {name} | {wall:.2} | {speed:.0} | {ratio:.2} | {cpu:.2} | {peak:.0} |");
    }
    let _ = writeln!(out, "\nTarget: at least 0.8 of rclone's MB/s, and the same peak for every size.");
    out
}
