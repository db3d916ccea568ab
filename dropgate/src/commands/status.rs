//! `dropgate status`: roles, backends, backlog and the last errors on one screen.

use super::{account::say, audit, open::Open};
use crate::{
    cli::{Global, Json},
    table::Table,
};
use dropgate_backends::{
    AuditQuery,
    state::{Backlog, Instance},
};
use dropgate_ops::{Probe, health::Readiness};
use dropgate_schemas::{audit::AuditEntry, time::Timestamp, upload::UploadState};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// An instance that was heard of within this time runs, as far as the clocks of its host and this one agree.
const RUNS_MILLIS: u128 = 20_000;
/// Whether a process of this host, named as `host:pid`, is no more. Of other hosts nothing is known.
fn has_ended(node: &str) -> bool {
    let Some((host, pid)) = node.rsplit_once(':') else { return false };
    let here = rustix::system::uname();
    let Ok(pid) = pid.parse::<i32>() else { return false };
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    here.nodename().to_bytes() == host.as_bytes()
        && rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// Errors shown.
const ERRORS: usize = 5;

struct Status {
    data_dir: String,
    now: Timestamp,
    instances: Vec<Instance>,
    readiness: Readiness,
    backlog: Option<Backlog>,
    depth: Option<u64>,
    errors: Vec<AuditEntry>,
}

/// Runs `status`.
///
/// # Errors
/// If the stores can't be opened. A backend that does not answer is part of the status, and no error.
pub(crate) async fn run(json: Json, global: &Global) -> anyhow::Result<()> {
    let open = Open::existing(global).await?;
    let status = gather(&open).await;
    open.close().await;
    if json.json {
        say(&serde_json::to_string_pretty(&status.json())?)
    } else {
        say(status.text().trim_end())
    }
}

async fn gather(open: &Open) -> Status {
    let probe = Probe {
        backends: open.backends.clone(),
        roles: &[],
        draining: tokio_util::sync::CancellationToken::new(),
    };
    let query = AuditQuery { result: Some("failed".to_owned()), ..AuditQuery::default() };
    let (readiness, instances, backlog, depth, errors) = tokio::join!(
        probe.readiness(),
        open.state().instances(),
        open.state().backlog(),
        open.backends.queue.depth(),
        audit::newest(open.state(), query, ERRORS),
    );
    Status {
        data_dir: open.config.data_dir.display().to_string(),
        now: Timestamp::now(),
        instances: instances.unwrap_or_default(),
        readiness,
        backlog: backlog.ok(),
        depth: depth.ok(),
        errors: errors.unwrap_or_default().iter().filter_map(|stored| stored.entry().ok()).collect(),
    }
}

impl Status {
    fn runs(&self, instance: &Instance) -> bool {
        self.now.since(instance.seen_at).as_millis() < RUNS_MILLIS && !has_ended(&instance.node)
    }

    fn oldest_seconds(&self) -> Option<u64> {
        self.backlog.as_ref()?.oldest_outbox.map(|due| self.now.since(due).as_secs())
    }

    fn json(&self) -> Value {
        let roles: Vec<Value> = self
            .instances
            .iter()
            .map(|i| json!({"role": i.role, "instance": i.id, "node": i.node, "running": self.runs(i), "seen_at": i.seen_at}))
            .collect();
        let uploads: serde_json::Map<String, Value> = self
            .backlog
            .iter()
            .flat_map(|b| b.uploads.iter().map(|(state, count)| (state.to_string(), (*count).into())))
            .collect();
        json!({
            "data_dir": self.data_dir,
            "at": self.now,
            "roles": roles,
            "backends": self.readiness.backends,
            "uploads": uploads,
            "outbox": self.backlog.as_ref().map(|b| b.outbox),
            "outbox_oldest_seconds": self.oldest_seconds(),
            "queue": self.depth,
            "last_errors": self.errors,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("data directory  {}\n\n", self.data_dir);
        let mut roles = Table::new(["ROLE", "STATE", "NODE", "LAST HEARD"]);
        for instance in &self.instances {
            let state = if self.runs(instance) { "runs" } else { "silent" };
            let ago = self.now.since(instance.seen_at).as_secs();
            roles.row([
                instance.role.clone(),
                state.to_owned(),
                instance.node.clone(),
                format!("{ago} s ago"),
            ]);
        }
        if roles.is_empty() {
            text.push_str("no role has run on this data directory yet\n");
        } else {
            let _ = write!(text, "{roles}");
        }
        let mut backends = Table::new(["BACKEND", "STATE"]);
        for (name, said) in &self.readiness.backends {
            backends.row([(*name).to_owned(), said.clone()]);
        }
        let _ = write!(text, "\n{backends}\n");
        match &self.backlog {
            Some(backlog) => {
                let count = |state: UploadState| {
                    backlog.uploads.iter().find(|(s, _)| *s == state).map_or(0, |(_, count)| *count)
                };
                let shown: Vec<String> = UploadState::ALL
                    .into_iter()
                    .filter(|state| count(*state) > 0)
                    .map(|state| format!("{} {state}", count(state)))
                    .collect();
                let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
                let _ = writeln!(text, "uploads  {shown}");
                let waits =
                    self.oldest_seconds().map_or(String::new(), |s| format!(", the oldest due for {s} s"));
                let _ = writeln!(text, "outbox   {} to do{waits}", backlog.outbox);
            }
            None => text.push_str("uploads  unknown: the state store does not answer\n"),
        }
        let depth = self.depth.map_or("unknown".to_owned(), |n| n.to_string());
        let _ = writeln!(text, "queue    {depth} waiting");
        if self.errors.is_empty() {
            text.push_str("\nno failures on record\n");
        } else {
            let _ = write!(text, "\nlast failures\n{}", audit::table(&self.errors));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_schemas::{
        audit::{Action, Actor, AuditResult},
        id::InstanceId,
    };
    use std::{collections::BTreeMap, time::Duration};

    fn status() -> Status {
        let now = Timestamp::from_millis(1_772_366_400_120);
        let instance = |role: &str, ago| Instance {
            id: InstanceId::from_uuid(uuid_of(ago)),
            role: role.to_owned(),
            node: "gate1:4711".to_owned(),
            beats: 3,
            seen_at: now.minus(Duration::from_secs(ago)),
        };
        let mut error = AuditEntry::new(
            Action::DeliveryDeadLetter,
            Actor::System { id: "worker".to_owned() },
            AuditResult::Failed,
        );
        error.at = now;
        error.subject = Some("/upload/a.csv".to_owned());
        error.reason = Some("archive could not be reached".to_owned());
        Status {
            data_dir: "data".to_owned(),
            now,
            instances: vec![instance("gateway", 2), instance("worker", 300)],
            readiness: Readiness {
                ready: false,
                draining: false,
                roles: &[],
                backends: BTreeMap::from([
                    ("blob", "no answer within 2 s".to_owned()),
                    ("state", "ok".to_owned()),
                ]),
            },
            backlog: Some(Backlog {
                uploads: vec![(UploadState::Processed, 12), (UploadState::Failed, 1)],
                outbox: 3,
                oldest_outbox: Some(now.minus(Duration::from_secs(9))),
            }),
            depth: Some(2),
            errors: vec![error],
        }
    }

    fn uuid_of(n: u64) -> uuid::Uuid {
        uuid::Uuid::from_u128(n.into())
    }

    #[test]
    fn one_screen_says_what_runs_what_waits_and_what_failed() {
        let text = status().text();
        for line in [
            "gateway  runs    gate1:4711  2 s ago",
            "worker   silent  gate1:4711  300 s ago",
            "blob     no answer within 2 s",
            "uploads  12 processed, 1 failed",
            "outbox   3 to do, the oldest due for 9 s",
            "queue    2 waiting",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("delivery.dead_letter  failed  (worker)"), "{text}");
        assert!(text.lines().count() < 25 && text.lines().all(|l| l == l.trim_end()), "{text}");
    }

    #[test]
    fn machines_get_the_same() {
        let value = status().json();
        assert_eq!(value["roles"][0]["running"], true);
        assert_eq!(value["roles"][1]["running"], false);
        assert_eq!(value["uploads"]["processed"], 12);
        assert_eq!(value["outbox_oldest_seconds"], 9);
        assert_eq!(value["last_errors"][0]["action"], "delivery.dead_letter");
    }
}
