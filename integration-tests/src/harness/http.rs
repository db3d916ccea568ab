//! Requests to the ops listener, as an operator's or a consumer's machine makes them.

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: String,
    /// The whole body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }
}

/// `GET path`, with a token if there is one.
///
/// # Errors
/// If nobody answers in time.
pub async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Result<Answer> {
    request(Method::GET, address, path, token).await
}

/// The same with another method.
///
/// # Errors
/// If nobody answers in time.
pub async fn request(method: Method, address: SocketAddr, path: &str, token: Option<&str>) -> Result<Answer> {
    // Whatever proxy the environment names, this is loopback.
    let client = Client::builder().no_proxy().timeout(LIMIT).build()?;
    let mut asked = client.request(method, format!("http://{address}{path}"));
    if let Some(token) = token {
        asked = asked.bearer_auth(token);
    }
    let answer = asked.send().await.with_context(|| path.to_owned())?;
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let (status, kind) = (answer.status().as_u16(), kind.unwrap_or_default().to_owned());
    Ok(Answer { status, kind, body: answer.text().await? })
}

/// Every event of the log after a position, page by page, as (position, event).
///
/// # Errors
/// If a page can't be had, or is longer than asked for.
pub async fn events(address: SocketAddr, token: &str, after: u64, limit: usize) -> Result<Vec<(u64, Value)>> {
    let (mut seen, mut next) = (Vec::new(), after);
    loop {
        let answer = get(address, &format!("/api/v1/events?after={next}&limit={limit}"), Some(token)).await?;
        ensure!(answer.status == 200 && answer.kind == "application/json", "{answer:?}");
        let mut page = answer.json()?;
        let Some(Value::Array(events)) = page.get_mut("events").map(Value::take) else {
            anyhow::bail!("no events in {answer:?}")
        };
        ensure!(events.len() <= limit, "{} events in a page of {limit}", events.len());
        next = page.get("next").and_then(Value::as_u64).context("no next")?;
        if events.is_empty() {
            return Ok(seen);
        }
        for mut logged in events {
            let position = logged.get("position").and_then(Value::as_u64).context("no position")?;
            seen.push((position, logged.get_mut("event").map(Value::take).unwrap_or_default()));
        }
    }
}
