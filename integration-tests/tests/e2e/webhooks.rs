//! Webhooks through a running relay: a receiver that fails now and then gets every event of real uploads, signed, in order.

use anyhow::{Context as _, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use dropgate_integration_tests::harness::{
    Gate, Setup,
    until::{until, until_true},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// How long it may take until everything was told: after a failure the relay waits, up to a few seconds here.
const TOLD: Duration = Duration::from_secs(90);

/// Two secrets, as while one takes the place of the other.
const SECRETS: [&str; 2] =
    ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];

/// One request, and whether it was answered as taken.
struct Request {
    headers: HeaderMap,
    body: Bytes,
    taken: bool,
}

/// A real HTTP server of a downstream system.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers the requests of these numbers, from 0, with 500.
    async fn start(fails: &'static [usize]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let take = move |State(requests): State<Arc<Mutex<Vec<Request>>>>,
                         headers: HeaderMap,
                         body: Bytes| async move {
            let mut requests = requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let taken = !fails.contains(&requests.len());
            requests.push(Request { headers, body, taken });
            if taken { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
        };
        let routes = Router::new().route("/hook", post(take)).with_state(Arc::clone(&requests));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the receiver ended: {error}");
            }
        });
        Ok(Self { address, requests, task })
    }

    /// What came so far.
    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The events that were taken, in their order.
    fn taken(&self) -> Result<Vec<Value>> {
        let seen = self.seen();
        seen.iter().filter(|request| request.taken).map(|r| Ok(serde_json::from_slice(&r.body)?)).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As a receiver checks it: HMAC-SHA256 over `id.timestamp.body`, by one secret that it knows.
fn verify(request: &Request, secret: &str) -> Result<()> {
    let header = |name: &str| {
        request.headers.get(name).and_then(|value| value.to_str().ok()).with_context(|| format!("no {name}"))
    };
    let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    ensure!(now.abs_diff(time.parse()?) < 300, "signed at {time}, and now it is {now}");
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").context("no prefix")?)?;
    let fits = header("webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
        let Ok(signature) = BASE64_STANDARD.decode(one) else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(&request.body);
        mac.verify_slice(&signature).is_ok()
    });
    ensure!(fits, "the signature of {id} does not fit");
    let event: Value = serde_json::from_slice(&request.body)?;
    ensure!(event["id"] == id && header("content-type")? == "application/cloudevents+json", "{event}");
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_fails_now_and_then_gets_every_event_signed_and_in_order() -> Result<()> {
    let receiver = Receiver::start(&[0, 1, 4]).await?;
    let address = receiver.address;
    let keys = tempfile::tempdir()?;
    let files = ["new", "old"].map(|name| keys.path().join(name));
    for (file, secret) in files.iter().zip(SECRETS) {
        std::fs::write(file, secret)?;
    }
    let [new, old] = files.map(|file| format!("file:{}", file.display()));
    let config = format!(
        "[[backends.events.webhook]]\nname = \"erp\"\nurl = \"http://{address}/hook\"\n\
         secrets = [\"{new}\", \"{old}\"]\n\
         [[backends.events.webhook]]\nname = \"finals\"\nurl = \"http://{address}/hook\"\n\
         secrets = [\"{new}\"]\ntypes = [\"delivery.dead_lettered\"]\n"
    );
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for number in 0..4 {
        raw.put(&format!("/upload/f{number}"), b"told").await?;
    }
    for number in 0..4 {
        gate.event_about("upload.delivered", &format!("/upload/f{number}"), 1).await?;
    }
    let told = gate.events()?;
    ensure!(told.len() >= 12, "{} events", told.len());
    let taken = until(TOLD, "every event to be taken", || async {
        let taken = receiver.taken()?;
        Ok((taken.len() >= told.len()).then_some(taken))
    })
    .await?;
    ensure!(taken == told, "another order, or a repeat, or a gap:\n{taken:?}\n{told:?}");
    {
        let seen = receiver.seen();
        for request in seen.iter() {
            verify(request, SECRETS[0])?;
            verify(request, SECRETS[1])?;
            ensure!(verify(request, "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBrZXk=").is_err(), "any key fits");
        }
        // What was refused came again as it was, before anything after it.
        for pair in seen.windows(2).filter(|pair| !pair[0].taken) {
            ensure!(pair[0].body == pair[1].body, "another event came before the one that was refused");
        }
        ensure!(seen.iter().filter(|request| !request.taken).count() == 3);
    }
    let metrics = dropgate_integration_tests::harness::http::get(gate.ops()?, "/metrics", None).await?.body;
    ensure!(metrics.contains("dropgate_webhook_posts_total{result=\"refused\"} 3"), "{metrics}");

    // Its place in the log is kept: the next start tells what is new and nothing again.
    let before = receiver.seen().len();
    let gate = again(gate).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/after", b"told").await?;
    gate.event_about("upload.delivered", "/upload/after", 1).await?;
    let told = gate.events()?;
    until_true(TOLD, "the new events to be taken", || async { Ok(receiver.taken()?.len() >= told.len()) })
        .await?;
    ensure!(receiver.taken()? == told && receiver.seen().len() == before + told.len() - taken.len());
    gate.finish().await
}

async fn again(mut gate: Gate) -> Result<Gate> {
    for (role, end) in gate.terminate().await? {
        ensure!(end.code() == Some(0), "{role} ended with {end}");
    }
    gate.launch().await?;
    Ok(gate)
}
