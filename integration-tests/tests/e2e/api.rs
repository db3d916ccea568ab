//! The event log over HTTP: pages, the stream, and the tokens that open them.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::{
    Gate, Setup,
    http::{events, get, request},
    records::text,
    until::{until, within},
};
use serde_json::Value;
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How long an event may take to come over a stream.
const EVENT: Duration = Duration::from_secs(30);

/// A new token: its id and its text.
async fn token(gate: &Gate, more: &[&str]) -> Result<(String, String)> {
    let mut args = vec!["token", "create", "--name", "erp"];
    args.extend_from_slice(more);
    let made = gate.cli.json(&args).await?;
    Ok((text(&made, "id").to_owned(), text(&made, "token").to_owned()))
}

/// Uploads of two partners, all delivered and announced; returns the events as the file has them.
async fn two_partners() -> Result<(Gate, Vec<Value>)> {
    let gate = Gate::start(Setup::default().accounts(&["acme", "other"])).await?;
    for (account, count) in [("acme", 5), ("other", 3)] {
        let (_connection, mut raw) = gate.raw(account).await?;
        for number in 0..count {
            raw.put(&format!("/upload/Für {account} {number}"), account.as_bytes()).await?;
        }
        for number in 0..count {
            gate.event_about("upload.delivered", &format!("/upload/Für {account} {number}"), 1).await?;
        }
    }
    let told = gate.events()?;
    Ok((gate, told))
}

#[tokio::test]
async fn pages_cover_the_event_log_and_a_bound_token_shows_one_partner() -> Result<()> {
    let (gate, told) = two_partners().await?;
    let ops = gate.ops()?;
    let (_, all) = token(&gate, &["--scopes", "events:read", "--expires", "90d"]).await?;
    let (_, acme) = token(&gate, &["--scopes", "events:read", "--partner", "acme-corp"]).await?;

    // Exactly what was published, in its order, however it is cut into pages.
    ensure!(told.len() >= 24, "{} events", told.len());
    for limit in [1, 7, 1_000] {
        let seen = events(ops, &all, 0, limit).await?;
        let positions: Vec<u64> = seen.iter().map(|(position, _)| *position).collect();
        ensure!(positions == (1..=told.len() as u64).collect::<Vec<_>>(), "{positions:?}");
        ensure!(seen.iter().map(|(_, event)| event).eq(&told), "pages of {limit} differ from the file");
    }
    let rest = events(ops, &all, 20, 1_000).await?;
    ensure!(rest.iter().map(|(_, event)| event).eq(&told[20..]));

    // One partner's alone, without a gap in its sequence, with and without asking for it.
    let seen = events(ops, &acme, 0, 4).await?;
    let expected: Vec<&Value> = told.iter().filter(|event| event["partner"] == "acme-corp").collect();
    ensure!(seen.iter().map(|(_, event)| event).eq(expected), "{seen:?}");
    for (number, (_, event)) in (1_u64..).zip(&seen) {
        ensure!(text(event, "sequence").parse::<u64>()? == number, "{event}");
    }
    let of_other = get(ops, "/api/v1/events?partner=other-corp&limit=1000", Some(&all)).await?.json()?;
    let count = of_other["events"].as_array().context("events")?.len();
    ensure!(count == told.len() - seen.len(), "{count} events of the other partner");
    let answer = get(ops, "/api/v1/events?partner=other-corp", Some(&acme)).await?;
    ensure!(answer.status == 403 && answer.body.contains("acme-corp"), "{answer:?}");
    gate.finish().await
}

#[tokio::test]
async fn what_is_asked_wrongly_or_without_a_right_is_a_problem_that_says_so() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ops = gate.ops()?;
    let (_, good) = token(&gate, &["--scopes", "events:read"]).await?;
    let (_, blind) = token(&gate, &["--scopes", "ops:read,ops:write,accounts:write"]).await?;
    let other_secret = format!("{}x", &good[..good.len() - 1]);
    for (path, token, status, said) in [
        ("/api/v1/events?after=soon", Some(&good), 400, "after"),
        ("/api/v1/events?after=-1", Some(&good), 400, "after"),
        ("/api/v1/events?limit=0", Some(&good), 400, "1 to 1000"),
        ("/api/v1/events?limit=1001", Some(&good), 400, "1 to 1000"),
        ("/api/v1/events?since=0", Some(&good), 400, "since"),
        ("/api/v1/events?partner=A/B", Some(&good), 400, "is not a name"),
        ("/api/v1/events/stream?limit=1", Some(&good), 400, "no end"),
        ("/api/v1/uploads", Some(&good), 404, "/api/v1/uploads"),
        ("/api/v1/events", None, 401, "Authorization: Bearer"),
        ("/api/v1/events?limit=0", None, 401, "Authorization: Bearer"),
        ("/api/v1/events/stream", None, 401, "Authorization: Bearer"),
        ("/api/v1/events", Some(&other_secret), 401, "not known"),
        ("/api/v1/events", Some(&blind), 403, "events:read"),
    ] {
        let answer = get(ops, path, token.map(String::as_str)).await?;
        let problem = answer.json()?;
        ensure!(answer.status == status && answer.kind == "application/problem+json", "{path}: {answer:?}");
        ensure!(problem["status"] == status && text(&problem, "detail").contains(said), "{path}: {answer:?}");
    }
    let answer = request(reqwest::Method::POST, ops, "/api/v1/events", Some(&good)).await?;
    ensure!(answer.status == 405 && answer.kind == "application/problem+json", "{answer:?}");
    ensure!(get(ops, "/livez", None).await?.status == 200);
    let metrics = get(ops, "/metrics", None).await?.body;
    ensure!(metrics.contains("dropgate_api_requests_total{result=\"refused\"} 5"), "{metrics}");
    gate.logged("run", "a request to the API was refused").await?;

    let refused = ["token", "create", "--name", "x", "--scopes", "ops:read", "--partner", "acme-corp"];
    let outcome = gate.cli.try_run(&refused, b"").await?;
    ensure!(outcome.code() == 2 && outcome.stderr.contains("events:read"), "{}", outcome.all());
    gate.finish().await
}

#[tokio::test]
async fn a_revoked_token_opens_nothing_and_its_story_is_in_the_audit_trail() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ops = gate.ops()?;
    let (id, made) = token(&gate, &["--scopes", "events:read"]).await?;
    ensure!(get(ops, "/api/v1/events", Some(&made)).await?.status == 200);
    let mut stream = Stream::open(&gate, &made, "", &[]).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/f", b"1").await?;
    stream.event().await?;

    gate.cli.run(&["token", "revoke", &id]).await?;
    let revoked = Instant::now();
    ensure!(get(ops, "/api/v1/events", Some(&made)).await?.status == 401, "it opens something still");
    // Bounded by far less than the heartbeat or the life of a stream.
    within(Duration::from_secs(10), "the stream to end", stream.read_to_the_end()).await??;
    println!("the stream ended {:?} after the token was revoked", revoked.elapsed());
    let again = gate.cli.run(&["token", "revoke", &id]).await?;
    ensure!(again.contains("already"), "{again}");

    let listed = gate.cli.json(&["token", "list"]).await?;
    ensure!(listed[0]["state"] == "revoked" && listed[0]["name"] == "erp", "{listed}");
    let entries = gate.audit(&[]).await?;
    let story: Vec<&str> = entries
        .iter()
        .filter(|entry| entry["subject"] == id.as_str() && entry["actor"]["kind"] == "operator")
        .map(|entry| text(entry, "action"))
        .collect();
    ensure!(story == ["token.create", "token.revoke"], "{story:?}");

    // The secret was shown once and is nowhere.
    let secret = made.rsplit('_').next().context("no secret")?.as_bytes();
    let holds = |path: &std::path::Path| -> Result<bool> {
        Ok(std::fs::read(path)?.windows(secret.len()).any(|window| window == secret))
    };
    for file in ["data/dropgate.db", "data/dropgate.db-wal", "run.log", "run.out"] {
        ensure!(!holds(&gate.path(file))?, "{file} holds the secret");
    }
    gate.finish().await
}

/// curl that listens to the stream.
struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    async fn open(gate: &Gate, token: &str, query: &str, more: &[&str]) -> Result<Self> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--no-buffer", "--fail", "--noproxy", "*"])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(more)
            .arg(format!("http://{}/api/v1/events/stream{query}", gate.ops()?))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = curl.spawn().context("running curl")?;
        let out = child.stdout.take().context("no output")?;
        Ok(Self { child, lines: BufReader::new(out).lines() })
    }

    /// The next event, with its position.
    async fn event(&mut self) -> Result<(u64, Value)> {
        let mut position = None;
        loop {
            let line = within(EVENT, "an event of the stream", self.lines.next_line()).await??;
            let line = line.context("the stream ended")?;
            if let Some(id) = line.strip_prefix("id: ") {
                position = Some(id.parse()?);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Ok((position.context("an event without a position")?, serde_json::from_str(data)?));
            }
        }
    }

    /// Reads until the server ends it in good order.
    async fn read_to_the_end(&mut self) -> Result<()> {
        while self.lines.next_line().await?.is_some() {}
        let end = self.child.wait().await?;
        ensure!(end.success(), "curl ended with {end}");
        Ok(())
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_the_client_was_and_ends_with_the_process() -> Result<()> {
    let (mut gate, told) = two_partners().await?;
    let (_, all) = token(&gate, &["--scopes", "events:read"]).await?;
    let (_, acme) = token(&gate, &["--scopes", "events:read", "--partner", "acme-corp"]).await?;

    let mut stream = Stream::open(&gate, &all, "?after=10", &[]).await?;
    for (number, expected) in (11_u64..).zip(&told[10..]) {
        let (position, event) = stream.event().await?;
        ensure!(position == number && event == *expected, "{number}: {position} {event}");
    }
    // Now it waits, and hears of what happens.
    let mut bound = Stream::open(&gate, &acme, &format!("?after={}", told.len()), &[]).await?;
    for account in ["other", "acme"] {
        let (_connection, mut raw) = gate.raw(account).await?;
        raw.put("/upload/live", account.as_bytes()).await?;
        gate.event_about("upload.delivered", "/upload/live", 1 + usize::from(account == "acme")).await?;
    }
    let now = gate.events()?;
    for (number, expected) in (1 + told.len() as u64..).zip(&now[told.len()..]) {
        let (position, event) = stream.event().await?;
        ensure!(position == number && event == *expected, "{number}: {position} {event}");
    }
    for expected in now[told.len()..].iter().filter(|event| event["partner"] == "acme-corp") {
        let (_, event) = bound.event().await?;
        ensure!(event == *expected, "{event}");
    }
    // Whoever comes again says what it saw last, and the address it began with does not count.
    drop(stream);
    let last = format!("Last-Event-ID: {}", now.len() - 1);
    let mut again = Stream::open(&gate, &all, "?after=0", &["--header", &last]).await?;
    let (position, event) = again.event().await?;
    ensure!(position == now.len() as u64 && Some(&event) == now.last(), "{position} {event}");

    for (role, end) in gate.terminate().await? {
        ensure!(end.code() == Some(0), "{role} ended with {end}");
    }
    for mut stream in [again, bound] {
        within(EVENT, "the stream to end", stream.read_to_the_end()).await??;
    }
    gate.launch().await?;
    gate.finish().await
}

#[tokio::test]
async fn the_first_start_prints_a_token_and_the_next_one_does_not() -> Result<()> {
    let mut gate = Gate::start(Setup::default().accounts(&[])).await?;
    let printed = async |gate: &Gate| {
        let out = gate.path("run.out");
        until(EVENT, "what the start prints", || async {
            let said = std::fs::read_to_string(&out)?;
            Ok(said.contains("data ").then_some(said))
        })
        .await
    };
    let said = printed(&gate).await?;
    let made = said.lines().map(str::trim).find(|line| line.starts_with("dgt_")).context("no token")?;
    ensure!(get(gate.ops()?, "/api/v1/events", Some(made)).await?.status == 200, "{said}");
    let listed = gate.cli.json(&["token", "list"]).await?;
    ensure!(listed[0]["scopes"].as_array().is_some_and(|scopes| scopes.len() == 4), "{listed}");
    gate.terminate().await?;
    gate.launch().await?;
    ensure!(!printed(&gate).await?.contains("dgt_"), "a second token");
    ensure!(get(gate.ops()?, "/api/v1/events", Some(made)).await?.status == 200);
    gate.finish().await
}
