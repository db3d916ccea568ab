//! A clock that all processes of the host share and that nobody sets: what leases of jobs are measured by.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the host was started, the time it slept included.
pub(crate) fn boot_millis() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
}

/// Which start of the host it is: readings of [`boot_millis`] from another one mean nothing. Empty where the host does
/// not tell.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
