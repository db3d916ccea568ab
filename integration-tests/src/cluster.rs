//! Several gateways and workers, each with a data directory of its own, and only the shared servers between them: MongoDB,
//! RabbitMQ, Azure Blob, Vault, and S3 as the destination. The servers are named by `DROPGATE_TEST_*` variables, which
//! `scripts/services run` sets.

mod detour;
mod foreign;
mod tls;

pub use detour::Detour;
pub use tls::Tls;

use crate::{
    chaos::{ACCOUNTS, Shared},
    checker::{Evidence, Ledger, check},
    harness::{Gate, Roles, Setup, sshd::HostKeys},
};
use anyhow::{Context as _, Result, ensure};
use foreign::Foreign;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// A running cluster.
pub struct Cluster {
    /// The gateways.
    pub gateways: Vec<Gate>,
    /// The workers.
    pub workers: Vec<Gate>,
    /// The ops role, where [`Self::start_ops`] started it.
    ops: Option<Gate>,
    /// The servers, seen through clients from other makers.
    foreign: Foreign,
    addresses: Vec<watch::Sender<Option<SocketAddr>>>,
    /// The archive of events went with the broker's other queues.
    wiped: bool,
}

impl Cluster {
    /// Makes container, bucket, virtual host and accounts, and starts all members.
    ///
    /// # Errors
    /// If a server can't be reached, or a member does not start.
    pub async fn start(gateways: usize, workers: usize) -> Result<Self> {
        Self::start_by(None, gateways, workers).await
    }

    /// [`Self::start`] with a detour on the way to one of the servers.
    ///
    /// # Errors
    /// As there.
    pub async fn start_by(detour: Option<&Detour>, gateways: usize, workers: usize) -> Result<Self> {
        let foreign = Foreign::prepare(HostKeys::shared()?).await?;
        let config = config(&foreign)?;
        let setup = Setup::default().config(detour.map_or(config.clone(), |detour| detour.applied(&config)));
        Self::of(foreign, &setup, gateways, workers).await
    }

    /// [`Self::start`] with every server behind TLS.
    ///
    /// # Errors
    /// As there.
    pub async fn start_over(tls: &Tls, gateways: usize, workers: usize) -> Result<Self> {
        let foreign = Foreign::prepare(HostKeys::shared()?).await?;
        let sas = foreign.sas().await?;
        let setup = Setup { env: tls.env(sas), ..Setup::default() }.config(tls.applied(&config(&foreign)?));
        Self::of(foreign, &setup, gateways, workers).await
    }

    async fn of(foreign: Foreign, setup: &Setup, gateways: usize, workers: usize) -> Result<Self> {
        let mut cluster =
            Self { gateways: vec![], workers: vec![], ops: None, foreign, addresses: vec![], wiped: false };
        for number in 0..gateways {
            // They share the accounts.
            let accounts: &[&str] = if number == 0 { &ACCOUNTS } else { &[] };
            let setup = Setup { roles: Roles::Gateway, ..setup.clone() }.accounts(accounts);
            cluster.gateways.push(Gate::start(setup).await.with_context(|| format!("gateway {number}"))?);
        }
        for number in 0..workers {
            let setup = Setup { roles: Roles::Worker, ..setup.clone() }.accounts(&[]);
            cluster.workers.push(Gate::start(setup).await.with_context(|| format!("worker {number}"))?);
        }
        for gateway in &cluster.gateways {
            cluster.addresses.push(watch::Sender::new(Some(gateway.sftp()?)));
        }
        Ok(cluster)
    }

    /// The gateway that made the accounts and knows their keys.
    ///
    /// # Errors
    /// If there is no gateway.
    pub fn first(&self) -> Result<&Gate> {
        self.gateways.first().context("a cluster without a gateway")
    }

    /// Starts the ops role, and returns its address.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_ops(&mut self) -> Result<SocketAddr> {
        let setup =
            Setup { roles: Roles::Ops, ..Setup::default() }.config(config(&self.foreign)?).accounts(&[]);
        self.ops.insert(Gate::start(setup).await.context("ops")?).ops()
    }

    /// Address of the broker, with user and password.
    ///
    /// # Errors
    /// If the environment does not name it.
    pub fn broker(&self) -> Result<String> {
        let uri = variable("DROPGATE_TEST_AMQP_URI")?;
        let server = uri.strip_prefix("amqp://").and_then(|rest| rest.split('/').next());
        Ok(format!("amqp://{}/{}", server.context("no address of a broker")?, self.foreign.name()))
    }

    /// Clients that upload without rest over all gateways.
    ///
    /// # Errors
    /// If there is no gateway.
    pub fn load(&self, uploaders: usize, seed: u64) -> Result<Load> {
        let first = self.first()?;
        let servers = self.addresses.iter().map(watch::Sender::subscribe).collect();
        let shared = Shared::new(Ledger::create(&first.path("ledger.ndjson"))?, servers);
        let running = shared.upload(uploaders, seed, |account| first.login(account));
        Ok(Load { shared, running })
    }

    /// `kill -9` of a gateway, and its next start.
    ///
    /// # Errors
    /// If it does not come up again.
    pub async fn kill_gateway(&mut self, number: usize) -> Result<()> {
        self.restart(number, Gate::kill).await
    }

    /// SIGTERM to a gateway, and its next start.
    ///
    /// # Errors
    /// If it does not end with exit code 0, or does not come up again.
    pub async fn roll_gateway(&mut self, number: usize) -> Result<()> {
        let gateway = self.gateways.get_mut(number).context("no such gateway")?;
        for (role, end) in gateway.terminate().await? {
            ensure!(end.code() == Some(0), "{role} ended with {end}");
        }
        self.restart(number, |_| Ok(())).await
    }

    async fn restart(&mut self, number: usize, end: impl FnOnce(&mut Gate) -> Result<()>) -> Result<()> {
        let gateway = self.gateways.get_mut(number).context("no such gateway")?;
        let address = self.addresses.get(number).context("no such gateway")?;
        address.send_replace(None);
        end(gateway)?;
        gateway.launch().await?;
        address.send_replace(Some(gateway.sftp()?));
        Ok(())
    }

    /// `kill -9` of a worker, and its next start.
    ///
    /// # Errors
    /// If it does not come up again.
    pub async fn kill_worker(&mut self, number: usize) -> Result<()> {
        let worker = self.workers.get_mut(number).context("no such worker")?;
        worker.kill()?;
        worker.launch().await
    }

    /// SIGTERM to a worker, and its next start.
    ///
    /// # Errors
    /// If it does not end with exit code 0, or does not come up again.
    pub async fn roll_worker(&mut self, number: usize) -> Result<()> {
        let worker = self.workers.get_mut(number).context("no such worker")?;
        for (role, end) in worker.terminate().await? {
            ensure!(end.code() == Some(0), "{role} ended with {end}");
        }
        worker.launch().await
    }

    /// Removes every queue and message of the cluster.
    ///
    /// # Errors
    /// If the broker refuses it.
    pub async fn wipe_broker(&mut self) -> Result<()> {
        self.wiped = true;
        self.foreign.wipe_broker().await
    }

    /// Waits until nothing is under way, looks at everything through foreign clients, and checks it against the ledger.
    ///
    /// # Errors
    /// If something is found, or the cluster does not come to rest within `limit`.
    pub async fn verify(&self, ledger: &Ledger, limit: Duration) -> Result<Evidence> {
        self.foreign.at_rest(limit, self.wiped).await?;
        let mut evidence = self.foreign.evidence().await?;
        if self.wiped {
            evidence.published = evidence.logged.iter().map(|(_, event)| event.clone()).collect();
        }
        let first = self.first()?;
        evidence.told = first.uploads().await?;
        for account in ACCOUNTS {
            // Each through another gateway.
            let through =
                self.gateways.get(evidence.listings.len() % self.gateways.len()).context("no gateway")?;
            let listing = Evidence::listing(through.sftp()?, &first.login(account)).await?;
            evidence.listings.insert(account.to_owned(), listing);
        }
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

    /// Takes everything down in good order and removes what was made on the servers.
    ///
    /// # Errors
    /// If a member was not well to the end.
    pub async fn finish(self) -> Result<()> {
        for member in self.gateways.into_iter().chain(self.workers).chain(self.ops) {
            member.finish().await?;
        }
        self.foreign.remove().await
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    running: JoinSet<Result<()>>,
}

impl Load {
    /// How many uploads were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged()
    }

    /// What the clients write down; a test may add uploads of its own.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.shared.ledger()
    }

    /// Lets the clients finish, and gives out their ledger.
    ///
    /// # Errors
    /// If a client failed.
    pub async fn stop(self) -> Result<Arc<Shared>> {
        self.shared.stop(self.running).await?;
        Ok(self.shared)
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: run this under `scripts/services run --`"))
}

/// The config that all members have.
fn config(foreign: &Foreign) -> Result<String> {
    let name = foreign.name();
    let broker = variable("DROPGATE_TEST_AMQP_URI")?;
    let broker = broker.rsplit('@').next().and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let (azure, s3) = (variable("DROPGATE_TEST_AZURE_ENDPOINT")?, variable("DROPGATE_TEST_S3_ENDPOINT")?);
    let vault = variable("DROPGATE_TEST_VAULT_ADDR")?;
    Ok(format!(
        r#"
[ops]
health_listen = "127.0.0.1:0"
[gateway]
host_keys = ["vault:{name}/hostkeys#ed25519", "vault:{name}/hostkeys#rsa"]
[gateway.listener.limits]
new_burst_per_source = 1000
new_per_second_per_source = 1000
[backends.secrets]
kind = "vault"
address = "{vault}"
token = "env:DROPGATE_TEST_VAULT_TOKEN"
[backends.credentials]
kind = "vault"
path = "{name}/accounts"
[backends.state]
kind = "mongodb"
uri = "env:DROPGATE_TEST_MONGODB_URI"
database = "{name}"
[backends.queue]
kind = "amqp"
uri = "amqp://{broker}/{name}"
user = "env:DROPGATE_TEST_RABBITMQ_USER"
password = "env:DROPGATE_TEST_RABBITMQ_PASSWORD"
[backends.events]
kind = "amqp"
uri = "amqp://{broker}/{name}"
user = "env:DROPGATE_TEST_RABBITMQ_USER"
password = "env:DROPGATE_TEST_RABBITMQ_PASSWORD"
[backends.blob]
kind = "azure"
endpoint = "{azure}"
account = "devstoreaccount1"
container = "{name}"
account_key = "env:DROPGATE_TEST_AZURE_KEY"
allow_account_key = true
[[destination]]
kind = "s3"
name = "lake"
bucket = "{name}"
endpoint = "{s3}"
path_style = true
access_key_id = "env:DROPGATE_TEST_S3_ACCESS_KEY"
secret_access_key = "env:DROPGATE_TEST_S3_SECRET_KEY"
[[route]]
destinations = ["lake"]
key = "{{partner}}/{{account}}/{{dir}}/{{name}}"
"#
    ))
}
