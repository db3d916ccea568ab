//! The settings of all roles: one TOML file, over it the environment, over that the command line.
//!
//! Each part is defined beside what it configures; here they are put together, read and checked as a whole.

mod document;
mod load;
mod print;
mod problem;

use crate::{
    cli::{Global, Start},
    logging::LogConfig,
};
use document::{PREFIX, Setting};
use dropgate_backends::BackendsConfig;
use dropgate_gateway::{GatewayConfig, listener::SettingError};
use dropgate_ops::OpsConfig;
use dropgate_workers::{DestinationConfig, RouteConfig, WorkersConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(crate) use document::Origin;
pub(crate) use load::Places;
pub(crate) use print::{print, print_json};
pub(crate) use problem::{Problem, Problems};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Directory for everything that is kept: database, blobs, host keys, credentials, deliveries of the embedded default.
    /// A relative path is below the working directory. Default `data`.
    pub(crate) data_dir: PathBuf,
    /// `[log]`.
    pub(crate) log: LogConfig,
    /// `[gateway]`.
    pub(crate) gateway: GatewayConfig,
    /// `[workers]`.
    pub(crate) workers: WorkersConfig,
    /// `[ops]`.
    pub(crate) ops: OpsConfig,
    /// `[backends]`.
    pub(crate) backends: BackendsConfig,
    /// `[[destination]]`, one each. None: a local directory below the data directory.
    pub(crate) destination: Vec<DestinationConfig>,
    /// `[[route]]`, in the order in which they are tried. None and no destination: everything goes to that directory.
    pub(crate) route: Vec<RouteConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            log: LogConfig::default(),
            gateway: GatewayConfig::default(),
            workers: WorkersConfig::default(),
            ops: OpsConfig::default(),
            backends: BackendsConfig::default(),
            destination: Vec::new(),
            route: Vec::new(),
        }
    }
}

/// Settings that went through every check, and where they were made.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) places: Places,
}

impl Loaded {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn read(global: &Global, start: &Start) -> Result<Self, Problems> {
        let (name, text) = match &global.config {
            None => ("the embedded defaults".to_owned(), String::new()),
            Some(file) => (file.display().to_string(), read(file)?),
        };
        let settings: Vec<Setting> = environment(std::env::vars_os()).chain(options(global, start)).collect();
        let (config, places) = load::load::<Config>(&name, &text, &settings)?;
        let loaded = Self { config, places };
        let config = &loaded.config;
        let settings = |section: &'static str, problems: Vec<SettingError>| {
            problems.into_iter().map(|problem| loaded.placed_setting(section, problem))
        };
        let listener = settings("gateway.listener", config.gateway.listener.problems());
        let content_type = settings("gateway.content_type", config.gateway.content_type.problems());
        let workers = dropgate_workers::check(&config.workers, &config.destination, &config.route);
        let workers = workers.into_iter().map(|problem| loaded.placed(problem));
        let problems: Vec<Problem> =
            listener.chain(content_type).chain(loaded.shared_addresses()).chain(workers).collect();
        if problems.is_empty() { Ok(loaded) } else { Err(problems.into()) }
    }

    /// The same for a setting of the gateway that can't work by itself.
    pub(crate) fn placed_setting(&self, section: &str, setting: SettingError) -> Problem {
        let key = format!("{section}.{}", setting.key);
        let origin = self.places.find(&key);
        let what = format!("{} can't work", setting.value);
        Problem { origin, key: Some(key), what, remedy: setting.why.to_owned(), missing: false }
    }

    /// Listeners that have the address of one before them.
    fn shared_addresses(&self) -> Vec<Problem> {
        let gateway = &self.config.gateway;
        let mut taken = vec![gateway.listener.listen];
        let mut problems = Vec::new();
        for (place, more) in (1..).zip(&gateway.more_listeners) {
            if more.listen.port() != 0 && taken.contains(&more.listen) {
                let key = format!("gateway.more_listeners[{place}].listen");
                problems.push(Problem {
                    origin: self.places.find(&key),
                    key: Some(key),
                    what: format!("{} is the address of another listener already", more.listen),
                    remedy: "give it a port of its own".to_owned(),
                    missing: false,
                });
            }
            taken.push(more.listen);
        }
        problems
    }

    /// A problem that shows only when the settings are taken together, with the place where its key was set.
    pub(crate) fn placed(&self, problem: dropgate_workers::Problem) -> Problem {
        let dropgate_workers::Problem { key, what, remedy } = problem;
        Problem { origin: self.places.find(&key), key: Some(key), what, remedy, missing: false }
    }
}

fn read(file: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(file).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "give --config the path of a config file (config/local.toml is one), or leave it out for the defaults"
            }
            std::io::ErrorKind::PermissionDenied => "let the user that runs dropgate read it",
            std::io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "give --config the path of a config file",
        };
        Problems::from(vec![Problem {
            origin: Origin::Whole(file.display().to_string()),
            key: None,
            what: format!("the config file can't be read: {error}"),
            remedy: remedy.to_owned(),
            missing: false,
        }])
    })
}

/// `DROPGATE__OPS__LISTEN=…` sets `ops.listen`; an element of a list goes by its number from 1.
fn environment(
    vars: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> impl Iterator<Item = Setting> {
    let mut found: Vec<Setting> = vars
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let keys = name.strip_prefix(PREFIX)?;
            let path = keys.split("__").map(str::to_ascii_lowercase).collect();
            Some(Setting { path, text: value.to_string_lossy().into_owned(), name })
        })
        .collect();
    found.sort_by(|a, b| a.path.len().cmp(&b.path.len()).then_with(|| a.name.cmp(&b.name)));
    found.into_iter()
}

fn options(global: &Global, start: &Start) -> impl Iterator<Item = Setting> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let format = global.log_format.map(|format| format!("{format:?}").to_lowercase());
    [
        ("--data-dir", &["data_dir"][..], global.data_dir.as_deref().map(text)),
        ("--log-format", &["log", "format"], format),
        ("--sftp-listen", &["gateway", "listener", "listen"], start.sftp_listen.clone()),
        ("--ops-listen", &["ops", "listen"], start.ops_listen.clone()),
        ("--health-listen", &["ops", "health_listen"], start.health_listen.clone()),
    ]
    .into_iter()
    .filter_map(|(name, path, text)| {
        let path = path.iter().map(|&key| key.to_owned()).collect();
        Some(Setting { name: name.to_owned(), path, text: text? })
    })
}

#[cfg(test)]
mod tests;
