//! Compares Dropgate with OpenSSH's own servers, and with `rclone copy` to the servers of a cluster: the same client or
//! server, the same files, the same machine, the same run.
//!
//! Rounds alternate between the servers and the first of each is thrown away; figures are medians. Before each run as much
//! memory is touched and freed as the run takes: on a virtual machine, pages that the host took back cost several times the
//! upload itself, and without it whoever comes first pays for all.
//!
//! `DROPGATE_BENCH_ROUNDS` (default 5) and `DROPGATE_BENCH_ONLY` (part of a workload's name) make it longer or shorter.

mod copies;
mod machine;
mod measure;
mod rclone;
mod report;
mod server;
mod work;

use anyhow::Result;
use report::Report;

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` and the like only want to know that it starts.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return Ok(());
    }
    let rounds = std::env::var("DROPGATE_BENCH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    let only = std::env::var("DROPGATE_BENCH_ONLY").unwrap_or_default();
    let mut report = Report::new(rounds)?;
    for workload in work::all() {
        if workload.name.contains(&only) {
            eprintln!("{} …", workload.name);
            report.add(measure::run(&workload, rounds).await?);
        }
    }
    for copying in copies::all() {
        if copying.work.name.contains(&only) {
            eprintln!("{} …", copying.work.name);
            report.add_copies(copies::run(&copying, rounds).await?);
        }
    }
    if "idle sessions".contains(&only) {
        eprintln!("idle sessions …");
        report.idle = Some(measure::idle_session_bytes().await?);
    }
    report.print();
    if only.is_empty() { report.write() } else { Ok(()) }
}
