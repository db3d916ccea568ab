//! Uploads that go on at another gateway than the one they began at. Their bytes are uncommitted blocks in Azure Blob, which
//! nobody can read back: what was staged, and the state of the digest at that point, come from the record.

use crate::REST;
use anyhow::Result;
use dropgate_integration_tests::{checker::Ledger, cluster::Cluster, harness::wire::Wire, resuming::Uploads};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_goes_on_at_another_gateway() -> Result<()> {
    let mut cluster = Cluster::start(2, 1).await?;
    let ledger = Ledger::in_memory();
    for killed in [false, true] {
        let account = if killed { "birch" } else { "alder" };
        let (one, two) = (cluster.gateways[0].sftp()?, cluster.gateways[1].sftp()?);
        let wire = Wire::to(one, u64::MAX).await?;
        let uploads = Uploads::begin(cluster.first()?, account, wire.address, &ledger).await?;
        if killed {
            cluster.gateways[0].kill()?;
        }
        drop(wire);
        // Nobody tells the second gateway that the first one is dead: it has to see that by itself.
        uploads.resume(two, &ledger).await?;
    }
    cluster.gateways[0].launch().await?;
    cluster.verify(&ledger, REST).await?;
    cluster.finish().await
}
