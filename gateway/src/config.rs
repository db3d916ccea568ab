//! `[gateway]`: where partners come in.

use crate::{
    ingest::{UploadOptions, content_type::ContentTypeConfig},
    listener::{ListenerConfig, MoreListenerConfig},
    sftp::session::SessionLimits,
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where the SSH host keys are: a directory, relative to the data directory, or a list of secret references, one for
    /// each key. With references, several gateways present the same keys. Default `hostkeys`.
    pub host_keys: HostKeySource,
    /// Where to listen, and how.
    pub listener: ListenerConfig,
    /// More addresses, each with algorithms of its own. None by default.
    pub more_listeners: Vec<MoreListenerConfig>,
    /// Bounds of uploads and sessions.
    pub uploads: UploadsConfig,
    /// How the types of files are found.
    pub content_type: ContentTypeConfig,
}

/// Where the SSH host keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a directory, or a list of secret references such as [\"vault:dropgate/hostkeys#ed25519\"]"
)]
pub enum HostKeySource {
    /// Files of this host; made on first start.
    Directory(PathBuf),
    /// Secrets that hold one private key each, in OpenSSH or PEM form. A gateway does not start without one of them.
    References(Vec<String>),
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            host_keys: HostKeySource::Directory(PathBuf::from("hostkeys")),
            listener: ListenerConfig::default(),
            more_listeners: Vec::new(),
            uploads: UploadsConfig::default(),
            content_type: ContentTypeConfig::default(),
        }
    }
}

/// `[gateway.uploads]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UploadsConfig {
    /// Largest file in bytes. Default 161061273600 (150 GiB).
    pub max_bytes: u64,
    /// Files up to this size are stored with their record, in one durable write. Default 65536.
    pub inline_bytes: usize,
    /// Payload in memory for one connection, in bytes. Default 8388608 (8 MiB).
    pub connection_memory_bytes: usize,
    /// Payload in memory for all connections, in bytes. Default 536870912 (512 MiB).
    pub memory_bytes: usize,
    /// How long a WRITE waits for storage before the upload fails, in seconds. Default 40, which is also the most: a client
    /// gets no keepalive answers meanwhile.
    pub stall_seconds: u64,
    /// Open handles of one session. Default 100.
    pub handles: usize,
    /// Requests in flight of one session, WRITEs not counted. Default 128.
    pub requests: usize,
}

impl Default for UploadsConfig {
    fn default() -> Self {
        let limits = SessionLimits::default();
        Self {
            max_bytes: 150 << 30,
            inline_bytes: 64 << 10,
            connection_memory_bytes: crate::ingest::CONNECTION_BYTES,
            memory_bytes: 512 << 20,
            stall_seconds: 40,
            handles: limits.handles,
            requests: limits.requests,
        }
    }
}

impl UploadsConfig {
    pub(crate) fn options(&self) -> UploadOptions {
        UploadOptions {
            max_size: self.max_bytes,
            inline_max: self.inline_bytes,
            stall_limit: Duration::from_secs(self.stall_seconds.min(40)),
            ..UploadOptions::default()
        }
    }

    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits { handles: self.handles.max(1), requests: self.requests.max(1) }
    }
}
