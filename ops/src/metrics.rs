//! `GET /metrics` in the OpenMetrics text format: the counters of this process and the backlog of the stores.

use crate::health::{DEADLINE, Probe};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dropgate_backends::{
    observe::{BUCKETS, Counter, Description, Gauge, Timing},
    state::Backlog,
};
use dropgate_schemas::time::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::fmt;

/// One scrape: what must be asked for is asked before it is printed.
#[derive(Debug)]
struct Scrape {
    roles: &'static [&'static str],
    up: Vec<(&'static str, bool)>,
    backlog: Option<Backlog>,
    depth: Option<u64>,
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(probe): State<Probe>) -> Response {
    let state = &probe.backends.state;
    let queue = &probe.backends.queue;
    let (readiness, backlog, depth) = tokio::join!(
        probe.readiness(),
        tokio::time::timeout(DEADLINE, state.backlog()),
        tokio::time::timeout(DEADLINE, queue.depth()),
    );
    let scrape = Scrape {
        roles: probe.roles,
        up: readiness.backends.iter().map(|(name, said)| (*name, said == "ok")).collect(),
        backlog: backlog.ok().and_then(Result::ok),
        depth: depth.ok().and_then(Result::ok),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut page = String::new();
    match text::encode(&mut page, &registry) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
                .into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics can't be printed: {error}\n"))
            .into_response(),
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let counters = Counter::ALL.iter().map(|c| (c.describe(), c.value()));
        for family in families(counters) {
            print(&mut encoder, MetricType::Counter, &family, |v| ConstCounter::new(*v))?;
        }
        let gauges = Gauge::ALL.iter().map(|g| (g.describe(), g.value()));
        for family in families(gauges) {
            print(&mut encoder, MetricType::Gauge, &family, |v| ConstGauge::new(*v))?;
        }
        for timing in Timing::ALL {
            distribution(&mut encoder, *timing)?;
        }
        self.stores(&mut encoder)?;
        process(&mut encoder, self.roles)
    }
}

impl Scrape {
    fn stores(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Whether a backend answered this scrape";
        let mut family = encoder.encode_descriptor("dropgate_backend_up", help, None, MetricType::Gauge)?;
        for (backend, up) in &self.up {
            ConstGauge::new(i64::from(*up)).encode(family.encode_family(&[("backend", *backend)])?)?;
        }
        if let Some(backlog) = &self.backlog {
            let help = "Uploads in the state store by state, deleted ones left out";
            let mut family =
                encoder.encode_descriptor("dropgate_uploads_in_state", help, None, MetricType::Gauge)?;
            for (state, count) in &backlog.uploads {
                ConstGauge::new(count_of(*count))
                    .encode(family.encode_family(&[("state", state.as_str())])?)?;
            }
            let help = "Outbox entries not yet handled";
            single(encoder, "dropgate_outbox_entries", help, count_of(backlog.outbox))?;
            let help = "How long the oldest due outbox entry has waited";
            let now = Timestamp::now();
            let waited = backlog.oldest_outbox.map_or(0.0, |due| now.since(due).as_secs_f64());
            let metric =
                encoder.encode_descriptor("dropgate_outbox_oldest_seconds", help, None, MetricType::Gauge)?;
            ConstGauge::new(waited).encode(metric)?;
        }
        if let Some(depth) = self.depth {
            single(encoder, "dropgate_queue_depth", "Jobs waiting in the queue", count_of(depth))?;
        }
        Ok(())
    }
}

fn count_of(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn single(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: i64) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

/// Neighbours of the same name belong together.
fn families<V>(figures: impl Iterator<Item = (Description, V)>) -> Vec<Vec<(Description, V)>> {
    let mut families: Vec<Vec<(Description, V)>> = Vec::new();
    for (description, value) in figures {
        match families.last_mut() {
            Some(family) if family.first().is_some_and(|(first, _)| first.name == description.name) => {
                family.push((description, value));
            }
            Some(_) | None => families.push(vec![(description, value)]),
        }
    }
    families
}

fn print<V, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    kind: MetricType,
    family: &[(Description, V)],
    metric: impl Fn(&V) -> M,
) -> Result<(), fmt::Error> {
    let Some((first, _)) = family.first() else { return Ok(()) };
    let mut printed = encoder.encode_descriptor(first.name, first.help, None, kind)?;
    for (description, value) in family {
        match description.label {
            Some(label) => metric(value).encode(printed.encode_family(&[label])?)?,
            // Nothing tells members apart, so there is just this one.
            None => return metric(value).encode(printed),
        }
    }
    Ok(())
}

fn distribution(encoder: &mut DescriptorEncoder, timing: Timing) -> Result<(), fmt::Error> {
    let description = timing.describe();
    let seen = timing.distribution();
    let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(seen.buckets.iter().copied()).collect();
    encoder
        .encode_descriptor(description.name, description.help, None, MetricType::Histogram)?
        .encode_histogram::<NoLabelSet>(seen.sum, seen.buckets.iter().sum(), &buckets, None)
}

/// The process itself: version, roles, memory, open files. What the system does not tell is left out.
fn process(encoder: &mut DescriptorEncoder, roles: &'static [&'static str]) -> Result<(), fmt::Error> {
    let help = "The program and the roles in this process";
    let version = env!("CARGO_PKG_VERSION");
    encoder
        .encode_descriptor("dropgate_build", help, None, MetricType::Info)?
        .encode_info(&[("version", version.to_owned()), ("roles", roles.join(","))])?;
    if let Some(bytes) = resident_bytes() {
        single(encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        single(encoder, "process_open_fds", "Open file descriptors", count_of(open.count() as u64))?;
    }
    Ok(())
}

fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}
