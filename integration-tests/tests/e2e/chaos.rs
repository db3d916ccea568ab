//! `kill -9` in a loop under load, then the invariant checker.

use anyhow::{Result, ensure};
use dropgate_integration_tests::chaos::{Plan, run};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_fifty_kills() -> Result<()> {
    kill_and_check(&Plan::from_environment()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_one_role_of_three_is_killed() -> Result<()> {
    let mut plan = Plan::from_environment()?;
    plan.setup = plan.setup.three_roles();
    plan.kills = plan.kills.min(30);
    kill_and_check(&plan).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make test-full"]
async fn nothing_acknowledged_is_lost_over_a_thousand_kills() -> Result<()> {
    for round in 0..10 {
        let plan = Plan::from_environment()?;
        let limit = Duration::from_secs(1200);
        kill_and_check(&Plan { kills: 100, seed: plan.seed + round, limit, ..plan }).await?;
    }
    Ok(())
}

async fn kill_and_check(plan: &Plan) -> Result<()> {
    let report = run(plan).await?;
    println!(
        "chaos: {} kills ({} during a start) in {:.0} s; {} uploads begun, {} acknowledged, {} versions; refusals: {:?}",
        report.kills,
        report.early_kills,
        report.took.as_secs_f64(),
        report.begun,
        report.acknowledged,
        report.evidence.versions.len(),
        report.refusals
    );
    ensure!(report.kills >= plan.kills, "{} kills", report.kills);
    ensure!(
        report.acknowledged >= 2 * plan.kills,
        "only {} acknowledged uploads: that proves little",
        report.acknowledged
    );
    ensure!(report.begun > report.acknowledged, "no upload was cut off: that proves little");
    Ok(())
}
