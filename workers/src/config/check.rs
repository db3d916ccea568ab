//! What the types can't check: names that refer to each other, patterns, templates, values that need each other.

use super::{DestinationConfig, RouteConfig, S3Config, SftpConfig, WorkersConfig};
use crate::{
    deliver::sftp::hostkey::Pins,
    route::{Routes, template::Template},
};
use dropgate_schemas::account::Account;
use std::collections::HashSet;

/// One thing that is wrong with the config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}; {remedy}")]
pub struct Problem {
    /// Which key, counted from 1 where there are several: `route[2].destinations`.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), remedy: remedy.into() }
    }
}

/// Every problem of `[workers]`, `[[destination]]` and `[[route]]` taken together; empty if there is none.
#[must_use]
pub fn check(
    workers: &WorkersConfig,
    destinations: &[DestinationConfig],
    routes: &[RouteConfig],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in
        [("parallel", workers.parallel), ("parallel_per_destination", workers.parallel_per_destination)]
    {
        if value == 0 || value > 1000 {
            problems.push(Problem::new(
                format!("workers.{key}"),
                format!("{value} is out of range"),
                "use 1 to 1000",
            ));
        }
    }
    for (key, value) in [
        ("retry.permanent_tries", workers.retry.permanent_tries),
        ("retry.crashes", workers.retry.crashes),
        ("breaker.failures", workers.breaker.failures),
    ] {
        if value == 0 {
            problems.push(Problem::new(
                format!("workers.{key}"),
                "0 would never let it happen",
                "use at least 1",
            ));
        }
    }
    let mut names = HashSet::new();
    for (at, destination) in destinations.iter().enumerate() {
        let key = |field: &str| format!("destination[{}].{field}", at + 1);
        if !names.insert(destination.name()) {
            problems.push(Problem::new(
                key("name"),
                format!("another destination is called {:?} too", destination.name()),
                "give each destination a name of its own",
            ));
        }
        if destination.parallel().is_some_and(|n| n == 0 || n > 1000) {
            problems.push(Problem::new(key("parallel"), "it is out of range", "use 1 to 1000"));
        }
        match destination {
            DestinationConfig::Directory(directory) => {
                if directory.path.as_os_str().is_empty() {
                    problems.push(Problem::new(key("path"), "it is empty", "name the directory"));
                }
            }
            DestinationConfig::Sftp(sftp) => check_sftp(sftp, key, &mut problems),
            DestinationConfig::S3(s3) => check_s3(s3, key, &mut problems),
            DestinationConfig::Azure(azure) => {
                if let Err(mistake) = azure.keys().place() {
                    problems.push(Problem::new(key(mistake.key), mistake.what, mistake.remedy));
                }
            }
        }
    }
    for (at, route) in routes.iter().enumerate() {
        let key = |field: &str| format!("route[{}].{field}", at + 1);
        if route.destinations.is_empty() {
            problems.push(Problem::new(key("destinations"), "it is empty", "name at least one destination"));
        }
        let mut seen = HashSet::new();
        for name in &route.destinations {
            if !names.contains(name) {
                let known: Vec<&str> = destinations.iter().map(|d| d.name().as_str()).collect();
                problems.push(Problem::new(
                    key("destinations"),
                    format!("no destination is called {name:?}"),
                    if known.is_empty() {
                        "add a [[destination]] of that name".to_owned()
                    } else {
                        format!("add a [[destination]] of that name, or use one of {}", known.join(", "))
                    },
                ));
            }
            if !seen.insert(name) {
                problems.push(Problem::new(
                    key("destinations"),
                    format!("{name:?} is named twice"),
                    "name it once",
                ));
            }
        }
        if let Err(error) = Template::parse(&route.key) {
            problems.push(Problem::new(key("key"), error.what, error.remedy));
        }
        if let (Some(min), Some(max)) = (route.size_min, route.size_max)
            && min > max
        {
            problems.push(Problem::new(key("size_min"), "it is more than size_max", "swap the two"));
        }
    }
    if let Err(more) = Routes::compile(routes) {
        problems.extend(more);
    }
    problems
}

fn check_sftp(sftp: &SftpConfig, key: impl Fn(&str) -> String, problems: &mut Vec<Problem>) {
    for (field, value) in [("host", &sftp.host), ("username", &sftp.username)] {
        if value.is_empty() {
            problems.push(Problem::new(key(field), "it is empty", "set it"));
        }
    }
    if sftp.password.is_none() && sftp.private_key.is_none() {
        problems.push(Problem::new(
            key("password"),
            "there is neither a password nor a private key",
            "set password or private_key to a secret reference such as \"file:/etc/dropgate/archive.key\"",
        ));
    }
    for (field, reference) in
        [("password", &sftp.password), ("private_key", &sftp.private_key), ("passphrase", &sftp.passphrase)]
    {
        check_reference(key(field), reference.as_deref(), problems);
    }
    if sftp.host_keys.is_empty() {
        problems.push(Problem::new(
            key("host_keys"),
            "the server's host key is not pinned",
            format!("list its fingerprint: ssh-keyscan -p {} {} | ssh-keygen -lf -", sftp.port, sftp.host),
        ));
    }
    if let Err(what) = Pins::parse(&sftp.host_keys) {
        problems.push(Problem::new(
            key("host_keys"),
            what,
            "use SHA256: fingerprints, known_hosts lines or public keys such as \"ssh-ed25519 AAAA…\"",
        ));
    }
    if sftp.path.contains('\0') {
        problems.push(Problem::new(key("path"), "it has a NUL character", "remove it"));
    }
}

/// Whether what stands where a secret is needed is a reference to one.
fn check_reference(key: String, reference: Option<&str>, problems: &mut Vec<Problem>) {
    if let Some(reference) = reference
        && !["env:", "file:", "vault:"].iter().any(|scheme| reference.starts_with(scheme))
    {
        // The value is not repeated: it may be the secret itself.
        problems.push(Problem::new(
            key,
            "it is not a secret reference",
            "secrets are never written into the config: use \"env:NAME\", \"file:PATH\" or \"vault:PATH#KEY\"",
        ));
    }
}

fn check_s3(s3: &S3Config, key: impl Fn(&str) -> String, problems: &mut Vec<Problem>) {
    let mut problem = |field: &str, what: &str, remedy: &str| {
        problems.push(Problem::new(key(field), what, remedy));
    };
    if s3.bucket.is_empty() || s3.bucket.contains(['/', ':', ' ']) {
        problem(
            "bucket",
            "it is not the name of a bucket",
            "name the bucket alone, and set prefix for what keys begin with",
        );
    }
    if s3.prefix.starts_with('/') || s3.prefix.split('/').any(|part| matches!(part, "." | "..")) {
        problem("prefix", "it begins with / or has . or .. in it", "use something like incoming/partners");
    }
    if let Some(endpoint) = &s3.endpoint
        && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
    {
        problem("endpoint", "it is not an address", "use something like https://minio.example.com");
    }
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
        problem(
            "access_key_id",
            "access_key_id and secret_access_key go together",
            "set both, or neither for the credentials of the environment",
        );
    }
    if s3.session_token.is_some() && s3.access_key_id.is_none() {
        problem(
            "session_token",
            "it belongs to an access key",
            "set access_key_id and secret_access_key too",
        );
    }
    if s3.access_key_id.is_some() && s3.region.is_none() && s3.endpoint.is_none() {
        problem("region", "there is none", "set it to the region of the bucket, such as eu-central-1");
    }
    if !(5 << 20..=512 << 20).contains(&s3.part_bytes) {
        problem("part_bytes", "it is out of range", "use 5242880 (5 MiB) to 536870912 (512 MiB)");
    }
    if !(1..=64).contains(&s3.parts_in_flight) {
        problem("parts_in_flight", "it is out of range", "use 1 to 64");
    }
    for (field, reference) in [
        ("access_key_id", &s3.access_key_id),
        ("secret_access_key", &s3.secret_access_key),
        ("session_token", &s3.session_token),
    ] {
        check_reference(key(field), reference.as_deref(), problems);
    }
}

/// Accounts for which some upload would match no route, as problems that name them.
#[must_use]
pub fn check_accounts(routes: &[RouteConfig], accounts: &[Account]) -> Vec<Problem> {
    let Ok(compiled) = Routes::compile(routes) else { return Vec::new() };
    accounts
        .iter()
        .filter(|account| !account.removed && !compiled.catches_all(&account.name, &account.partner))
        .map(|account| {
            Problem::new(
                "route",
                format!(
                    "no route takes every upload of account {:?}: what none takes fails as no_route",
                    account.name
                ),
                "add a [[route]] without conditions other than account or partner as the last one",
            )
        })
        .collect()
}
