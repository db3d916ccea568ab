//! A child process: its signals, its end, its memory and processor time as `/proc` tells them.

use super::until::until;
use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    process::{Child, ExitStatus},
    time::Duration,
};

/// A child that does not outlive its owner.
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Takes charge of a child.
    #[must_use]
    pub fn new(child: Child) -> Self {
        Self { child, ended: None }
    }
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system can't tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }
    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }
    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// If the system can't.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.child.kill()?;
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }
    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// If it does not end within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        until(limit, "the process to end after SIGTERM", || {
            let ended = self.ended();
            async { ended }
        })
        .await
    }
    /// What it uses.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(e) = self.kill() {
            eprintln!("process {} could not be ended: {e:#}", self.child.id());
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident bytes now.
    pub resident: u64,
    /// Most bytes that were ever resident.
    pub peak: u64,
    /// User and system seconds, those of children that have ended and been waited for included.
    pub cpu: f64,
    /// Open files and sockets.
    pub descriptors: usize,
}

/// What process `pid` has used.
///
/// # Errors
/// If there is no such process.
pub fn usage(pid: u32) -> Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(4).filter_map(|t| t.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    #[expect(clippy::cast_precision_loss, reason = "ticks of a test run fit a float")]
    let cpu = ticks as f64 / per_second as f64;
    Ok(Usage { resident: field("VmRSS:")?, peak: field("VmHWM:")?, cpu, descriptors })
}

/// Makes the peak of `pid` start over from what is resident now.
///
/// # Errors
/// If there is no such process.
pub fn reset_peak(pid: u32) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}
