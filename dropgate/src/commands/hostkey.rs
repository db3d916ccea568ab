//! `dropgate hostkey`: the identity that partners pin.

use super::{account::say, open::read_text};
use crate::{
    cli::{Global, HostkeyCommand, KeyKind, Start},
    config::{Config, Loaded},
};
use anyhow::{Context as _, bail};
use dropgate_backends::Backends;
use dropgate_gateway::{
    config::HostKeySource,
    ssh::hostkey::{HostKey, HostKeyError, HostKeyKind, HostKeys},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Runs one of the host key commands.
///
/// # Errors
/// What could not be done, and why.
pub(crate) async fn run(command: HostkeyCommand, global: &Global) -> anyhow::Result<()> {
    let config = Loaded::read(global, &Start::default())?.config;
    match command {
        HostkeyCommand::Generate { kind, replace } => generate(&directory(&config)?, kind, replace),
        HostkeyCommand::Import { file, replace } => {
            let directory = directory(&config)?;
            let key = HostKey::parse(&read_text(&file)?, &file)?;
            store(&key, &directory, replace)
        }
        HostkeyCommand::Show { host, json } => {
            let keys = match &config.gateway.host_keys {
                HostKeySource::Directory(path) => {
                    let directory = config.data_dir.join(path);
                    let keys = HostKeys::load(&directory)?;
                    if keys.keys().is_empty() {
                        bail!(
                            "there is no host key in {}: the first start makes them, or `dropgate hostkey generate`",
                            directory.display()
                        );
                    }
                    keys
                }
                HostKeySource::References(references) => {
                    let secrets = Backends::secrets(&config.backends, &config.data_dir).await?;
                    HostKeys::resolve(references, secrets.as_ref()).await?
                }
            };
            let gateway = &config.gateway;
            let more = gateway.more_listeners.iter().map(|more| more.listen);
            let addresses: Vec<(String, u16)> = std::iter::once(gateway.listener.listen)
                .chain(more)
                .map(|listen| (host.clone().unwrap_or_else(|| listen.ip().to_string()), listen.port()))
                .collect();
            if json.json {
                let values: Vec<Value> = keys.keys().iter().map(|key| as_json(key, &addresses)).collect();
                return say(&serde_json::to_string_pretty(&values)?);
            }
            let blocks: Vec<String> = keys.keys().iter().map(|key| block(key, &addresses)).collect();
            say(&blocks.join("\n\n"))
        }
    }
}

/// The directory of the host keys.
fn directory(config: &Config) -> anyhow::Result<PathBuf> {
    match &config.gateway.host_keys {
        HostKeySource::Directory(path) => Ok(config.data_dir.join(path)),
        HostKeySource::References(references) => bail!(
            "host_keys of [gateway] names secrets ({}), which dropgate only reads: write the private key there, for example \
             one made by `ssh-keygen -t ed25519 -N '' -f key`, with `vault kv patch -mount=secret dropgate/hostkeys \
             ed25519=@key`",
            references.join(", ")
        ),
    }
}

fn generate(directory: &Path, kind: Option<KeyKind>, replace: bool) -> anyhow::Result<()> {
    match kind {
        Some(kind) => store(&HostKey::generate(of(kind))?, directory, replace),
        None if replace => bail!(crate::exit::Usage(
            "--replace goes with --kind: say which key is to be replaced".to_owned()
        )),
        None => {
            let mut made = 0;
            for kind in HostKeyKind::DEFAULT {
                let key = HostKey::generate(kind)?;
                match key.store(directory, false) {
                    Ok(path) => {
                        made += 1;
                        say(&stored(&key, &path))?;
                    }
                    Err(HostKeyError::Exists { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if made == 0 {
                say("all default kinds are there: `dropgate hostkey show` shows them")?;
            }
            Ok(())
        }
    }
}

fn of(kind: KeyKind) -> HostKeyKind {
    match kind {
        KeyKind::Ed25519 => HostKeyKind::Ed25519,
        KeyKind::Rsa => HostKeyKind::Rsa4096,
    }
}

fn store(key: &HostKey, directory: &Path, replace: bool) -> anyhow::Result<()> {
    let path = key.store(directory, replace).map_err(|error| match error {
        HostKeyError::Exists { path } => anyhow::anyhow!(
            "{} is there already, and partners may have pinned it: --replace replaces it",
            path.display()
        ),
        other => other.into(),
    })?;
    say(&format!("{}\na running gateway uses it after its next start", stored(key, &path)))
}

fn stored(key: &HostKey, path: &Path) -> String {
    format!("{} {} in {}", key.algorithm(), key.fingerprint_sha256(), path.display())
}

fn known_hosts(key: &HostKey, addresses: &[(String, u16)]) -> Vec<String> {
    addresses.iter().map(|(host, port)| key.known_hosts_line(host, *port)).collect()
}

fn block(key: &HostKey, addresses: &[(String, u16)]) -> String {
    let known_hosts = known_hosts(key, addresses).join("\n  ");
    let (sha256, md5) = (key.fingerprint_sha256(), key.fingerprint_md5());
    format!("{}\n  {sha256}\n  {md5}\n  {known_hosts}", key.algorithm())
}

/// One line of `known_hosts` for each listener, in one text.
fn as_json(key: &HostKey, addresses: &[(String, u16)]) -> Value {
    json!({
        "algorithm": key.algorithm(),
        "sha256": key.fingerprint_sha256(),
        "md5": key.fingerprint_md5(),
        "public_key": key.public_line(),
        "known_hosts": known_hosts(key, addresses).join("\n"),
    })
}

/// Loads the host keys, making them if they are files of this host and there is none yet; says whether they were made.
///
/// # Errors
/// If a key can't be read, made or stored.
pub(crate) async fn load_or_make(config: &Config, backends: &Backends) -> anyhow::Result<(HostKeys, bool)> {
    match &config.gateway.host_keys {
        HostKeySource::Directory(path) => {
            let directory = config.data_dir.join(path);
            // Making an RSA key takes seconds of a processor.
            let made = tokio::task::spawn_blocking(move || HostKeys::load_or_generate(&directory));
            Ok(made.await.context("host keys")??)
        }
        HostKeySource::References(references) => {
            Ok((HostKeys::resolve(references, backends.secrets.as_ref()).await?, false))
        }
    }
}
