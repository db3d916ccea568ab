//! Tests of a cluster on real servers. Run them with `scripts/services run -- cargo test ... --test cluster`.

#[cfg(test)]
mod consumers;
#[cfg(test)]
mod degradation;
#[cfg(test)]
mod resume;

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    cluster::Cluster,
    harness::{payload, until::until_true},
    raw::{Attrs, Connection, Transport, frame},
};
use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

/// After the last upload, and after a fault is over, everything must be done within this.
const REST: Duration = Duration::from_secs(120);

/// How many uploads the big test makes; `make test-full` makes 2,000. Nearly all of its time goes into the server that stands
/// in for MongoDB, which does one thing at a time.
fn uploads() -> Result<usize> {
    match std::env::var("DROPGATE_CLUSTER_UPLOADS") {
        Ok(text) => text.parse().with_context(|| format!("DROPGATE_CLUSTER_UPLOADS={text} is no number")),
        Err(_) => Ok(500),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_and_three_workers_lose_nothing_and_double_nothing() -> Result<()> {
    let mut cluster = Cluster::start(2, 3).await?;
    let begun = Instant::now();
    let load = cluster.load(6, 7)?;
    let wanted = uploads()?;
    // For each stretch between two faults, the longest of which is a third of all.
    let patience = Duration::from_secs(120) + Duration::from_millis(500) * u32::try_from(wanted)?;
    for (share, fault) in
        [(10, "kill worker"), (25, "kill gateway"), (45, "roll"), (75, "kill gateway"), (85, "kill worker")]
    {
        let so_many = wanted * share / 100;
        until_true(patience, &format!("{so_many} of {wanted} uploads"), || async {
            Ok(load.acknowledged() >= so_many)
        })
        .await?;
        println!("{} uploads acknowledged after {:.0?}: {fault}", load.acknowledged(), begun.elapsed());
        match fault {
            "kill worker" => cluster.kill_worker(usize::from(share > 50)).await?,
            "kill gateway" => cluster.kill_gateway(usize::from(share > 50)).await?,
            _ => {
                for number in 0..cluster.gateways.len() {
                    let begun = Instant::now();
                    cluster.roll_gateway(number).await?;
                    println!("gateway {number}: stopped and started again in {:.1?}", begun.elapsed());
                }
                for number in 0..cluster.workers.len() {
                    let begun = Instant::now();
                    cluster.roll_worker(number).await?;
                    println!("worker {number}: stopped and started again in {:.1?}", begun.elapsed());
                }
            }
        }
    }
    until_true(patience, &format!("{wanted} uploads"), || async { Ok(load.acknowledged() >= wanted) })
        .await?;
    println!("{} uploads acknowledged after {:.0?}: the load ends", load.acknowledged(), begun.elapsed());
    let done = load.stop().await?;
    let evidence = cluster.verify(done.ledger(), patience).await?;
    println!(
        "after {:.0?} all is done and checked: {} versions, {} objects, {} events",
        begun.elapsed(),
        evidence.versions.len(),
        evidence.delivered.len(),
        evidence.logged.len()
    );
    ensure!(evidence.delivered.len() > 10, "hardly anything was delivered");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_forgets_everything_costs_no_upload() -> Result<()> {
    let mut cluster = Cluster::start(1, 1).await?;
    let load = cluster.load(4, 11)?;
    for so_many in [20, 60] {
        until_true(Duration::from_secs(120), &format!("{so_many} uploads"), || async {
            Ok(load.acknowledged() >= so_many)
        })
        .await?;
        cluster.wipe_broker().await?;
    }
    let done = load.stop().await?;
    cluster.verify(done.ledger(), REST).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_sees_what_the_other_took_and_shows_the_same_host_keys() -> Result<()> {
    let cluster = Cluster::start(2, 1).await?;
    let mut keys = BTreeSet::new();
    for gateway in &cluster.gateways {
        let address = gateway.sftp()?;
        let scan = Command::new("ssh-keyscan")
            .args(["-T", "10", "-p", &address.port().to_string(), &address.ip().to_string()])
            .output()
            .context("running ssh-keyscan (Debian package openssh-client)")?;
        let text = String::from_utf8(scan.stdout)?;
        let mut found: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
            .collect();
        found.sort();
        ensure!(found.len() == 2, "{text}");
        keys.insert(found);
    }
    ensure!(keys.len() == 1, "two gateways, two identities: {keys:?}");

    let login = cluster.first()?.login("alder");
    let (one, two) = (&cluster.gateways[0], &cluster.gateways[1]);
    let open = async |address| {
        let connection = Connection::open(address, &login, &Transport::default()).await?;
        let mut raw = connection.sftp().await?;
        raw.init(3).await?;
        anyhow::Ok((connection, raw))
    };
    let (_one, mut writer) = open(one.sftp()?).await?;
    let (_two, mut reader) = open(two.sftp()?).await?;
    for (number, length) in [100, 100_000, 5 << 20].into_iter().enumerate() {
        let data = payload::bytes(number as u64, length);
        let path = format!("/upload/seen-{number}");
        writer.stream(&path, frame::WRITE | frame::CREAT | frame::TRUNC, Attrs::none(), &data).await?;
        // The other gateway shows it at once, wherever it is by now.
        let mut shown = Vec::new();
        for area in ["/upload", "/sent"] {
            for entry in reader.list(area).await? {
                if entry.text() == format!("seen-{number}") {
                    shown.push((area, entry.attrs.size));
                }
            }
        }
        ensure!(
            shown.len() == 1 && shown[0].1 == Some(length as u64),
            "the other gateway shows {path} as {shown:?}"
        );
    }
    cluster.finish().await
}
