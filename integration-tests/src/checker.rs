//! The invariant checker: compares what clients were promised with what the system did, after every fault test.
//!
//! Clients keep a [`Ledger`] of their own: a line before each upload, the answer after it. [`Evidence`] is everything
//! that can be seen from outside once the system has come to rest: records by command and straight from the database,
//! the destination's directory, events as logged and as published, the audit trail, what partners see in listings.
//! [`check`] holds the two together and returns every [`Finding`]; none is what a test wants.

mod evidence;
mod ledger;
mod rules;

pub use evidence::{Evidence, Listing, Stored, Version};
pub use ledger::{Ledger, Line};
pub use rules::{Finding, Rule, check};

use crate::harness::Gate;
use anyhow::{Result, ensure};

/// Waits until the gate is at rest, gathers the evidence and checks it.
///
/// # Errors
/// If something is found, or the gate does not come to rest.
pub async fn verify(gate: &Gate, ledger: &Ledger) -> Result<Evidence> {
    let evidence = Evidence::gather_at_rest(gate).await?;
    let findings = check(&ledger.lines(), &evidence);
    let shown: Vec<String> = findings.iter().take(20).map(ToString::to_string).collect();
    ensure!(
        findings.is_empty(),
        "the invariant checker found {} violations over {} ledger lines:\n{}",
        findings.len(),
        ledger.lines().len(),
        shown.join("\n")
    );
    Ok(evidence)
}
