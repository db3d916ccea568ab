//! Events by HTTP POST, signed as Standard Webhooks has it (`webhook-id`, `webhook-timestamp`, `webhook-signature`), each a
//! CloudEvent in structured JSON. Any answer of 200 to 299 means that it was taken. The id is the event's: whoever gets it
//! twice can tell. Redirects are not followed, and no more of an answer is read than fits in a log line.

mod filter;
mod signature;

use crate::{
    config::WebhookConfig,
    events::{NotTaken, Subscriber},
    open::OpenError,
    secrets::{SecretError, SecretStore},
};
use async_trait::async_trait;
use dropgate_schemas::{event::Event, time::Timestamp};
use filter::Filter;
use reqwest::{
    Client, Response, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use signature::Key;
use std::{error::Error as _, net::IpAddr, sync::Arc, time::Duration};

const KEY: &str = "[[backends.events.webhook]]";
/// Bytes of an answer that are read, for the log.
const ANSWER: usize = 256;
/// Connections that wait for the next event.
const IDLE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Webhook {
    name: String,
    url: Url,
    filter: Filter,
    references: Vec<String>,
    secrets: Arc<dyn SecretStore>,
    client: Client,
    whole_log: bool,
    patience: Duration,
}

fn wrong(config: &WebhookConfig, what: impl Into<String>, remedy: &str) -> OpenError {
    OpenError::Remote { key: KEY, address: config.name.clone(), what: what.into(), remedy: remedy.to_owned() }
}

/// Two of one name.
pub(crate) fn twice(config: &WebhookConfig) -> OpenError {
    wrong(
        config,
        "another webhook has that name",
        "give each its own: it is what its place in the log is kept under",
    )
}

impl Webhook {
    /// Checks the settings and the secrets. The address is not tried: it may be down now.
    pub(crate) async fn open(
        config: &WebhookConfig,
        secrets: Arc<dyn SecretStore>,
    ) -> Result<Self, OpenError> {
        let name = &config.name;
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(wrong(config, "`name` is no name", "use up to 64 letters, digits, `.`, `-`, `_`"));
        }
        let url = address(config)?;
        if config.secrets.is_empty() {
            let remedy = "name at least one: secrets = [\"env:WEBHOOK_SECRET\"], a text such as `whsec_` and 32 random bytes in Base64";
            return Err(wrong(
                config,
                "`secrets` is empty, and whoever is called could not tell us from others",
                remedy,
            ));
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(config.timeout_seconds.duration())
            .connect_timeout(config.timeout_seconds.duration())
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("dropgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| {
                wrong(
                    config,
                    format!("no HTTP client: {e}"),
                    "check the certificates and proxies of this host",
                )
            })?;
        let this = Self {
            name: name.clone(),
            url,
            filter: Filter::new(&config.types, &config.partners),
            references: config.secrets.clone(),
            secrets,
            client,
            whole_log: config.whole_log,
            patience: config.give_up_seconds.duration(),
        };
        match this.keys().await {
            Ok(_) => Ok(this),
            Err(KeyError::Secret(SecretError::Unavailable { reference, why })) => {
                tracing::warn!(
                    webhook = name,
                    reference,
                    why,
                    "a secret can't be read yet; it is read anew for each event"
                );
                Ok(this)
            }
            Err(error) => Err(wrong(config, error.to_string(), "correct `secrets` or what they point at")),
        }
    }

    /// Read for each event: a changed secret is used without a restart.
    async fn keys(&self) -> Result<Vec<Key>, KeyError> {
        let mut keys = Vec::with_capacity(self.references.len());
        for reference in &self.references {
            let secret = self.secrets.resolve(reference).await?;
            let key = secret.expose_str().and_then(Key::parse);
            keys.push(key.ok_or_else(|| KeyError::NoKey(reference.clone()))?);
        }
        Ok(keys)
    }
}

#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret {0} is not `whsec_` and 24 to 64 bytes in Base64")]
    NoKey(String),
}

fn address(config: &WebhookConfig) -> Result<Url, OpenError> {
    let url: Url = config
        .url
        .parse()
        .map_err(|e| wrong(config, format!("`url` is no address: {e}"), "use https://HOST/PATH"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(config, "`url` names a user", "leave it out: requests are signed"));
    }
    let Some(host) = url.host_str() else {
        return Err(wrong(config, "`url` names no host", "use https://HOST/PATH"));
    };
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if here || config.allow_http => Ok(url),
        "http" => Err(wrong(
            config,
            "`url` is not encrypted, and events name partners and files",
            "use https://, or set allow_http = true where the network may be trusted",
        )),
        _ => Err(wrong(config, "`url` is neither https nor http", "use https://HOST/PATH")),
    }
}

fn not_taken(why: impl Into<String>) -> NotTaken {
    NotTaken { why: why.into(), retry_after: None }
}

#[async_trait]
impl Subscriber for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants_the_whole_log(&self) -> bool {
        self.whole_log
    }

    fn wants(&self, event: &Event) -> bool {
        self.filter.wants(event)
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    async fn tell(&self, event: &Event) -> Result<(), NotTaken> {
        let keys = self.keys().await.map_err(|e| not_taken(e.to_string()))?;
        let body = serde_json::to_vec(event).map_err(|e| not_taken(format!("it is not JSON: {e}")))?;
        let (id, time) = (event.id.to_string(), Timestamp::now().seconds());
        let signature = signature::header(&keys, &id, time, &body);
        let asked = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await;
        let answer = asked.map_err(|error| not_taken(chain(&error.without_url())))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Err(NotTaken {
            why: format!("it answered {}: {}", answer.status(), beginning(answer).await),
            retry_after,
        })
    }
}

fn chain(error: &reqwest::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    said
}

async fn beginning(mut answer: Response) -> String {
    let mut read = Vec::new();
    while read.len() < ANSWER
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read.extend_from_slice(chunk.get(..ANSWER - read.len()).unwrap_or(&chunk));
    }
    String::from_utf8_lossy(&read).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
