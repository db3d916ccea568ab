//! `[ops]` of the config.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Where the process answers operators and their machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Address of the ops role's HTTP listener. Default `127.0.0.1:8080`. Port 0 takes a free one. Nothing here is
    /// encrypted, and health and metrics ask for no credential, so keep it on loopback or a network that only operators reach.
    pub listen: SocketAddr,
    /// Address where any role answers `/livez`, `/readyz` and `/metrics` of its own process. Default: none; the ops role
    /// answers them on `listen` too.
    pub health_listen: Option<SocketAddr>,
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), health_listen: None }
    }
}
