use super::*;
use crate::events::conformance::event;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use std::{collections::HashMap, convert::Infallible, sync::Mutex};
use tokio::net::TcpListener;

/// A status, headers and a body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// What came, and what is answered next, from the end.
#[derive(Default)]
struct Seen {
    requests: Vec<(HashMap<String, String>, Bytes)>,
    answers: Vec<Answer>,
}

struct Server {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks?x=1", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request: Request<Incoming>| {
                let shared = Arc::clone(&shared);
                async move {
                    let name = |(n, v): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
                        (n.to_string(), v.to_str().unwrap().to_owned())
                    };
                    let headers = request.headers().iter().map(name).collect();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut seen = shared.lock().unwrap();
                    seen.requests.push((headers, body));
                    let (status, headers, text) = seen.answers.pop().unwrap_or((204, vec![], String::new()));
                    let mut answer = hyper::Response::new(Full::new(Bytes::from(text)));
                    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
                    for (name, value) in headers {
                        answer.headers_mut().insert(name, value.parse().unwrap());
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { url, seen }
}

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Two;

#[async_trait]
impl SecretStore for Two {
    async fn resolve(&self, reference: &str) -> Result<crate::Secret, SecretError> {
        match reference {
            "env:OLD" => Ok(crate::Secret::new(OLD)),
            "env:NEW" => Ok(crate::Secret::new(format!("{NEW}\n"))),
            "env:WEAK" => Ok(crate::Secret::new("hunter2")),
            other => Err(SecretError::NotFound { reference: other.to_owned(), remedy: "set it".to_owned() }),
        }
    }
}

fn config(url: &str) -> WebhookConfig {
    let text = format!("name = 'erp'\nurl = '{url}'\nsecrets = ['env:NEW', 'env:OLD']");
    toml::from_str(&text).unwrap()
}

async fn open(config: &WebhookConfig) -> Result<Webhook, OpenError> {
    Webhook::open(config, Arc::new(Two)).await
}

/// HMAC as RFC 2104 writes it down, and not as the code under test computes it.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test]
async fn posts_a_signed_cloud_event_that_each_secret_verifies() {
    let server = server().await;
    let webhook = open(&config(&server.url)).await.unwrap();
    let event = event(7).event;
    webhook.tell(&event).await.unwrap();
    let (headers, body) = server.seen.lock().unwrap().requests.remove(0);
    assert_eq!(headers["content-type"], "application/cloudevents+json");
    assert_eq!(headers["webhook-id"], event.id.to_string());
    assert_eq!(serde_json::from_slice::<Event>(&body).unwrap(), event);
    let age = Timestamp::now().seconds() - headers["webhook-timestamp"].parse::<i64>().unwrap();
    assert!((0..30).contains(&age), "{age}");
    let signed = [format!("{}.{}.", event.id, headers["webhook-timestamp"]).as_bytes(), &body].concat();
    let expected = [NEW, OLD].map(|secret| {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        format!("v1,{}", BASE64_STANDARD.encode(hmac(&key, &signed)))
    });
    assert_eq!(headers["webhook-signature"], expected.join(" "));
}

#[tokio::test]
async fn what_is_not_taken_says_why() {
    let server = server().await;
    let webhook = open(&config(&server.url)).await.unwrap();
    let elsewhere = vec![("location", server.url.clone())];
    server.seen.lock().unwrap().answers = vec![
        (503, vec![("retry-after", "7".to_owned())], "x".repeat(1 << 20)),
        (302, elsewhere, String::new()),
        (400, vec![], "no such\ttenant".to_owned()),
    ];
    let event = event(1).event;
    let error = webhook.tell(&event).await.unwrap_err();
    assert_eq!(error.why, "it answered 400 Bad Request: no suchtenant");
    let error = webhook.tell(&event).await.unwrap_err();
    assert!(error.why.contains("302"), "a redirect is not followed: {error}");
    let error = webhook.tell(&event).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert!(error.why.len() < 400, "{}", error.why.len());
    assert_eq!(server.seen.lock().unwrap().requests.len(), 3);
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_told_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    let mut silent = config(&format!("http://{address}/secret-path"));
    silent.timeout_seconds = toml::from_str::<HashMap<String, crate::config::Seconds>>("x = 1").unwrap()["x"];
    let webhook = open(&silent).await.unwrap();
    let begun = std::time::Instant::now();
    let error = webhook.tell(&event(1).event).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(!error.why.contains("secret-path"), "{error}");
    drop(closed);
    let error = webhook.tell(&event(1).event).await.unwrap_err();
    assert!(error.why.contains("refused"), "{error}");
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_with_the_remedy() {
    let good = config("https://example.com/hook");
    open(&good).await.unwrap();
    let with = |change: &dyn Fn(&mut WebhookConfig)| {
        let mut config = good.clone();
        change(&mut config);
        config
    };
    for (config, expected) in [
        (with(&|c| c.url = "http://example.com/".into()), "allow_http = true"),
        (with(&|c| c.url = "https://u:p@example.com/".into()), "names a user"),
        (with(&|c| c.url = "ftp://example.com/".into()), "https://HOST/PATH"),
        (with(&|c| c.url = "example.com".into()), "is no address"),
        (with(&|c| c.name = "a b".into()), "`name` is no name"),
        (with(&|c| c.secrets = vec![]), "`secrets` is empty"),
        (with(&|c| c.secrets = vec!["env:WEAK".into()]), "24 to 64 bytes"),
        (with(&|c| c.secrets = vec!["env:GONE".into()]), "env:GONE"),
    ] {
        let Err(error) = open(&config).await else { panic!("opened: {config:?}") };
        let said = error.to_string();
        assert!(said.contains(expected) && said.contains(KEY) && !said.contains("hunter2"), "{said}");
    }
    let plain = with(&|c| (c.url, c.allow_http) = ("http://10.0.0.1/".into(), true));
    open(&plain).await.unwrap();
}
