//! A place on a real server of its own, as rclone and Dropgate reach it.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::clients::installed;
use rand::RngExt as _;
use serde::Deserialize;
use std::{path::Path, process::Stdio};
use tokio::process::{Child, Command};

/// A container of Azurite, or a bucket of MinIO.
pub(crate) struct Remote {
    /// What makes it Dropgate's blob store, or its only destination: below `dropgate/` in it.
    pub(crate) config: String,
    /// Its name.
    name: String,
    /// What makes it rclone's remote `there:`.
    variables: Vec<(String, String)>,
}

/// What `rclone size --json` prints.
#[derive(Deserialize)]
struct Size {
    bytes: u64,
}

/// A container of Azurite with a name of its own. Blocks go with MD5, as rclone's do: CRC-64, which Azure itself computes in any
/// case, Azurite computes in JavaScript, at 60 MB/s.
pub(crate) fn azurite() -> Result<Remote> {
    let name = name();
    let (endpoint, account) = (given("DROPGATE_TEST_AZURE_ENDPOINT")?, given("DROPGATE_TEST_AZURE_ACCOUNT")?);
    let config = format!(
        "[backends.blob]\nkind = \"azure\"\nendpoint = \"{endpoint}\"\naccount = \"{account}\"\ncontainer = \"{name}\"\n\
         prefix = \"dropgate\"\naccount_key = \"env:DROPGATE_TEST_AZURE_KEY\"\nallow_account_key = true\n\
         block_sum = \"md5\"\n"
    );
    let variables = [
        ("TYPE", "azureblob".to_owned()),
        ("ENDPOINT", endpoint),
        ("ACCOUNT", account),
        ("KEY", given("DROPGATE_TEST_AZURE_KEY")?),
    ];
    Ok(Remote { config, name, variables: remote(variables) })
}

/// A bucket of MinIO with a name of its own.
pub(crate) fn minio() -> Result<Remote> {
    let name = name();
    let (endpoint, region) = (given("DROPGATE_TEST_S3_ENDPOINT")?, given("DROPGATE_TEST_S3_REGION")?);
    let config = format!(
        "[[destination]]\nkind = \"s3\"\nname = \"minio\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n\
         path_style = true\nbucket = \"{name}\"\nprefix = \"dropgate\"\n\
         access_key_id = \"env:DROPGATE_TEST_S3_ACCESS_KEY\"\nsecret_access_key = \"env:DROPGATE_TEST_S3_SECRET_KEY\"\n\
         [[route]]\ndestinations = [\"minio\"]\n"
    );
    let variables = [
        ("TYPE", "s3".to_owned()),
        ("PROVIDER", "Minio".to_owned()),
        ("ENDPOINT", endpoint),
        ("REGION", region),
        ("ACCESS_KEY_ID", given("DROPGATE_TEST_S3_ACCESS_KEY")?),
        ("SECRET_ACCESS_KEY", given("DROPGATE_TEST_S3_SECRET_KEY")?),
    ];
    Ok(Remote { config, name, variables: remote(variables) })
}

impl Remote {
    /// Makes it.
    pub(crate) async fn make(&self) -> Result<()> {
        self.run(&["mkdir", &self.path("")]).await.map(drop)
    }

    /// Removes it and all that is in it.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.run(&["purge", &self.path("")]).await.map(drop)
    }

    /// Makes sure that so many bytes are below a directory of it.
    pub(crate) async fn holds(&self, directory: &str, bytes: u64) -> Result<()> {
        let said = self.run(&["size", "--json", &self.path(directory)]).await?;
        let size: Size = serde_json::from_slice(&said)?;
        ensure!(size.bytes == bytes, "{} bytes instead of {bytes} are below {directory}", size.bytes);
        Ok(())
    }

    /// Starts copying a local directory to a directory of it, with rclone's own defaults.
    pub(crate) fn copy(&self, source: &Path, directory: &str) -> Result<Child> {
        let mut command = self.rclone()?;
        command.arg("copy").arg(source).arg(self.path(directory));
        command.spawn().context("rclone")
    }

    fn path(&self, directory: &str) -> String {
        format!("there:{}/{directory}", self.name)
    }

    async fn run(&self, args: &[&str]) -> Result<Vec<u8>> {
        let ended = self.rclone()?.args(args).output().await?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "rclone {}: {said}", args.join(" "));
        Ok(ended.stdout)
    }

    fn rclone(&self) -> Result<Command> {
        let mut command = Command::new(installed("python/bin/rclone")?);
        command.args(["--config", "/dev/null"]).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }
}

fn remote<const N: usize>(settings: [(&str, String); N]) -> Vec<(String, String)> {
    settings.into_iter().map(|(key, value)| (format!("RCLONE_CONFIG_THERE_{key}"), value)).collect()
}

fn name() -> String {
    format!("dropgate-{:08x}", rand::rng().random::<u32>())
}

fn given(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: run this under `scripts/services run --`"))
}
