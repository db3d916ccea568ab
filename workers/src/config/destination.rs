use super::Seconds;
use dropgate_backends::config::{AzureBlockSum, AzureIdentity, AzureKeys};
use dropgate_schemas::{account::DestinationName, delivery::DestinationKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// One `[[destination]]`; `kind` decides which other keys it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DestinationConfig {
    /// `kind = "directory"`: a directory of the worker's host.
    Directory(DirectoryConfig),
    /// `kind = "sftp"`: an SFTP server.
    Sftp(SftpConfig),
    /// `kind = "s3"`: a bucket of an S3 store.
    S3(S3Config),
    /// `kind = "azure"`: a container of Azure Blob.
    Azure(AzureConfig),
}

impl DestinationConfig {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &DestinationName {
        match self {
            Self::Directory(d) => &d.name,
            Self::Sftp(d) => &d.name,
            Self::S3(d) => &d.name,
            Self::Azure(d) => &d.name,
        }
    }
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> DestinationKind {
        match self {
            Self::Directory(_) => DestinationKind::Directory,
            Self::Sftp(_) => DestinationKind::Sftp,
            Self::S3(_) => DestinationKind::S3,
            Self::Azure(_) => DestinationKind::AzureBlob,
        }
    }
    /// Deliveries to it at a time, where it says so itself.
    #[must_use]
    pub const fn parallel(&self) -> Option<usize> {
        match self {
            Self::Directory(d) => d.parallel,
            Self::Sftp(d) => d.parallel,
            Self::S3(d) => d.parallel,
            Self::Azure(d) => d.parallel,
        }
    }
}

/// A `[[destination]]` with `kind = "directory"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// Name by which routes choose it.
    pub name: DestinationName,
    /// Where keys begin. Relative paths are below the data directory.
    pub path: PathBuf,
    /// Whether it is made if it is missing. Default: false, so that nothing is written to the disk below a mount point
    /// that is not mounted.
    #[serde(default)]
    pub create: bool,
    /// Mode of delivered files, octal. Default: `"0640"`.
    #[serde(default = "file_mode")]
    pub file_mode: Mode,
    /// Mode of directories made for them, octal. Default: `"0750"`.
    #[serde(default = "directory_mode")]
    pub directory_mode: Mode,
    /// Deliveries at a time. Default: `workers.parallel_per_destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Longest wait for one step (writing is many). Default: 60.
    #[serde(default = "sixty")]
    pub deadline_seconds: Seconds,
}

/// A `[[destination]]` with `kind = "sftp"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftpConfig {
    /// Name by which routes choose it.
    pub name: DestinationName,
    /// Host name or address.
    pub host: String,
    /// Port. Default: 22.
    #[serde(default = "port")]
    pub port: u16,
    /// Who logs in there.
    pub username: String,
    /// Secret reference of the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Secret reference of the private key (OpenSSH or PEM form). Tried before the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Secret reference of the passphrase of the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// The server's host keys, any of which it must show: `SHA256:…` fingerprints, known_hosts lines or public keys.
    pub host_keys: Vec<String>,
    /// Whether SHA-1 is taken too: `ssh-rsa` host keys, `diffie-hellman-group14-sha1`, `hmac-sha1`. Default: false.
    #[serde(default)]
    pub legacy_algorithms: bool,
    /// Where keys begin; relative to the directory after login. Default: that directory.
    #[serde(default)]
    pub path: String,
    /// Whether missing directories are made. Default: true.
    #[serde(default = "yes")]
    pub make_directories: bool,
    /// Mode to set on delivered files, octal. Default: what the server gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<Mode>,
    /// Files up to so many bytes are read back where the server can't compute their digest itself; larger ones are compared by
    /// size. Default: 268435456 (256 MiB).
    #[serde(default = "read_back_bytes")]
    pub read_back_bytes: u64,
    /// Deliveries (each with a connection of its own) at a time. Default: `workers.parallel_per_destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Longest wait for connection and login. Default: 20.
    #[serde(default = "twenty")]
    pub connect_seconds: Seconds,
    /// Longest wait for the answer to one request. Default: 60.
    #[serde(default = "sixty")]
    pub deadline_seconds: Seconds,
    /// How long an unused connection is kept for the next delivery. Default: 30.
    #[serde(default = "thirty")]
    pub idle_seconds: Seconds,
}

/// A `[[destination]]` with `kind = "s3"`. Keys below the prefix belong to Dropgate: unfinished uploads in parts under a key
/// that it delivers to are aborted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Name by which routes choose it.
    pub name: DestinationName,
    /// The bucket. It must be there.
    pub bucket: String,
    /// What keys begin with, without the `/` that follows. Default: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The region. Default: what the environment says, or `us-east-1` where `access_key_id` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Address of the store, for others than Amazon's: `https://minio.example.com`. Default: Amazon's for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket is part of the path and not of the host name; most stores of one's own want that. Default: false.
    #[serde(default)]
    pub path_style: bool,
    /// Secret reference of the access key id. Default: the credentials that the environment has (variables, profile, role).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Secret reference of the secret access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// Secret reference of a session token, where the key has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// Files up to so many bytes are put in one request, larger ones in parts of this size, or larger where there would be
    /// more than 10,000. At least 5 MiB. Default: 8388608 (8 MiB).
    #[serde(default = "part_bytes")]
    pub part_bytes: u64,
    /// Parts of one file that are under way at a time. With the one that is filled they are in memory. Default: 3.
    #[serde(default = "parts_in_flight")]
    pub parts_in_flight: usize,
    /// Files up to so many bytes are read back where the store knows no checksum of them; larger ones are compared by size.
    /// Default: 268435456 (256 MiB).
    #[serde(default = "read_back_bytes")]
    pub read_back_bytes: u64,
    /// Deliveries at a time. Default: `workers.parallel_per_destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Longest wait for a connection. Default: 20.
    #[serde(default = "twenty")]
    pub connect_seconds: Seconds,
    /// Longest wait for one request, a part's bytes included. Default: 60.
    #[serde(default = "sixty")]
    pub deadline_seconds: Seconds,
}

/// A `[[destination]]` with `kind = "azure"`. One of `identity`, `sas` and `account_key` is needed; the credential has to
/// read, create, write and delete blobs: they are read back to compare them, and taken away should they be wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// Name by which routes choose it.
    pub name: DestinationName,
    /// The storage account. Needed without `endpoint`, and with `account_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The blob endpoint. Default: `https://ACCOUNT.blob.core.windows.net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The container. It has to be there.
    pub container: String,
    /// What keys begin with, followed by a slash. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// Login by Entra: `managed`, `workload` or `developer_tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<AzureIdentity>,
    /// Client id of the identity, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Secret reference of a SAS with `sp=rcwd` or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas: Option<String>,
    /// Secret reference of the account key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_key: Option<String>,
    /// The sum that goes with each block: `crc64`, or `md5` for a stand-in of Azure that is slow at that.
    /// Default: `crc64`.
    #[serde(default)]
    pub block_sum: AzureBlockSum,
    /// Blobs up to so many bytes are read back and compared by digest; larger ones by size, with the sums that the service
    /// checked of each block. Default: 268435456 (256 MiB).
    #[serde(default = "read_back_bytes")]
    pub read_back_bytes: u64,
    /// Deliveries at a time. Default: `workers.parallel_per_destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Longest wait for one request, repeats included. Default: 60.
    #[serde(default = "sixty")]
    pub deadline_seconds: Seconds,
}

impl AzureConfig {
    /// The keys that the blob store has too.
    #[must_use]
    pub fn keys(&self) -> AzureKeys {
        AzureKeys {
            account: self.account.clone(),
            endpoint: self.endpoint.clone(),
            container: self.container.clone(),
            identity: self.identity,
            client_id: self.client_id.clone(),
            sas: self.sas.clone(),
            account_key: self.account_key.clone(),
            block_sum: self.block_sum,
        }
    }
}

impl DirectoryConfig {
    /// The embedded default: `delivered` in the data directory.
    #[must_use]
    pub fn embedded(name: DestinationName) -> Self {
        Self {
            name,
            path: PathBuf::from("delivered"),
            create: true,
            file_mode: file_mode(),
            directory_mode: directory_mode(),
            parallel: None,
            deadline_seconds: sixty(),
        }
    }
}

fn file_mode() -> Mode {
    Mode(0o640)
}
fn directory_mode() -> Mode {
    Mode(0o750)
}
fn port() -> u16 {
    22
}
fn yes() -> bool {
    true
}
fn read_back_bytes() -> u64 {
    256 << 20
}
fn part_bytes() -> u64 {
    8 << 20
}
fn parts_in_flight() -> usize {
    3
}
fn twenty() -> Seconds {
    Seconds::from(20)
}
fn thirty() -> Seconds {
    Seconds::from(30)
}
fn sixty() -> Seconds {
    Seconds::from(60)
}

/// Permission bits, written as an octal string: `"0640"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a mode: use an octal string such as \"0640\""))
        })
    }
}
