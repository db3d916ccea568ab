//! What the tests against a real RabbitMQ share: a virtual host of each test's own, made through the management API, and a
//! broker of its own for those that stop one.

use crate::secrets::{Secret, SecretError, SecretStore};
use async_trait::async_trait;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A broker and the API to look at it from outside.
#[derive(Clone)]
pub(crate) struct Broker {
    /// `HOST:PORT`.
    pub(crate) address: String,
    api: String,
    user: String,
    password: String,
}

/// A virtual host that goes when this does.
pub(crate) struct Host {
    pub(crate) broker: Broker,
    pub(crate) name: String,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the servers with `scripts/services`, or run `make test-servers`")
    })
}

impl Broker {
    /// The one that all tests share.
    pub(crate) fn shared() -> Self {
        Self::of(&|name| variable(name))
    }

    fn of(value: &dyn Fn(&str) -> String) -> Self {
        let uri = value("DROPGATE_TEST_AMQP_URI");
        let address = uri.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        Self {
            address,
            api: value("DROPGATE_TEST_RABBITMQ_API"),
            user: value("DROPGATE_TEST_RABBITMQ_USER"),
            password: value("DROPGATE_TEST_RABBITMQ_PASSWORD"),
        }
    }

    /// The management API, as somebody might configure it by mistake.
    pub(crate) fn api_as_amqp(&self) -> String {
        self.api.replace("http://", "amqp://")
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("{}/api/{path}", self.api);
        let mut request = Client::new().request(method, url).basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn must(&self, method: Method, path: &str, body: Option<Value>) {
        let (status, said) = self.call(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {said}");
    }

    /// A new virtual host.
    pub(crate) async fn host(&self) -> Host {
        let name = format!("dropgate-test-{}", Uuid::new_v4());
        self.must(Method::PUT, &format!("vhosts/{name}"), Some(json!({}))).await;
        let host = Host { broker: self.clone(), name };
        host.permit(&self.user, ".*", ".*", ".*").await;
        host
    }
}

impl Host {
    pub(crate) async fn permit(&self, user: &str, configure: &str, write: &str, read: &str) {
        let rights = json!({"configure": configure, "write": write, "read": read});
        self.broker.must(Method::PUT, &format!("permissions/{}/{user}", self.name), Some(rights)).await;
    }

    /// A user with rights in this virtual host only.
    pub(crate) async fn user(&self, configure: &str, write: &str, read: &str) -> (String, String) {
        let (name, password) = (format!("dropgate-test-{}", Uuid::new_v4()), Uuid::new_v4().to_string());
        let user = json!({"password": password, "tags": ""});
        self.broker.must(Method::PUT, &format!("users/{name}"), Some(user)).await;
        self.permit(&name, configure, write, read).await;
        (name, password)
    }

    pub(crate) async fn forget_user(&self, name: &str) {
        self.broker.must(Method::DELETE, &format!("users/{name}"), None).await;
    }

    /// Something below `/api/KIND/VHOST/`, as the broker shows it.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let (status, value) =
            self.broker.call(Method::GET, &format!("{kind}/{}/{name}", self.name), None).await;
        status.is_success().then_some(value)
    }

    pub(crate) async fn put(&self, kind: &str, name: &str, body: Value) {
        self.broker.must(Method::PUT, &format!("{kind}/{}/{name}", self.name), Some(body)).await;
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        self.broker.must(Method::DELETE, &format!("{kind}/{}/{name}", self.name), None).await;
    }

    /// Binds a queue of a downstream system to an exchange.
    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        self.bind_with(queue, exchange, key, json!({})).await;
    }

    /// The same for a queue with arguments.
    pub(crate) async fn bind_with(&self, queue: &str, exchange: &str, key: &str, arguments: Value) {
        self.put("queues", queue, json!({"durable": true, "arguments": arguments})).await;
        let path = format!("bindings/{}/e/{exchange}/q/{queue}", self.name);
        self.broker.must(Method::POST, &path, Some(json!({"routing_key": key}))).await;
    }

    /// All messages of a queue, as a foreign client sees them; they stay there.
    pub(crate) async fn messages(&self, queue: &str) -> Vec<Value> {
        let ask = json!({"count": 100_000, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let path = format!("queues/{}/{queue}/get", self.name);
        let (status, messages) = self.broker.call(Method::POST, &path, Some(ask)).await;
        assert!(status.is_success(), "{status} {messages}");
        messages.as_array().unwrap().clone()
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://{}/{}", self.broker.address, self.name)
    }

    pub(crate) fn user_name(&self) -> String {
        self.broker.user.clone()
    }

    /// Resolves `env:PASSWORD` to what the broker's own user has.
    pub(crate) fn secrets(&self) -> Arc<dyn SecretStore> {
        password(&self.broker.password)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let (broker, name) = (self.broker.clone(), std::mem::take(&mut self.name));
        // The runtime of the test ends with it.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let path = format!("vhosts/{name}");
            let _ = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(10), broker.call(Method::DELETE, &path, None)).await
            });
        });
        let _ = removing.join();
    }
}

struct Fixed(HashMap<String, String>);

/// Resolves `env:PASSWORD`, and nothing else.
pub(crate) fn password(password: &str) -> Arc<dyn SecretStore> {
    Arc::new(Fixed(HashMap::from([("env:PASSWORD".to_owned(), password.to_owned())])))
}

#[async_trait]
impl SecretStore for Fixed {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        let found = self.0.get(reference);
        found.map(|secret| Secret::new(secret.as_bytes())).ok_or_else(|| SecretError::NotFound {
            reference: reference.to_owned(),
            remedy: "set it".to_owned(),
        })
    }
}

/// A broker that one test may stop, pause and kill.
pub(crate) struct OwnBroker {
    pub(crate) broker: Broker,
    dir: tempfile::TempDir,
}

impl OwnBroker {
    pub(crate) fn start() -> Self {
        // Short: the paths of sockets in it are.
        let dir = tempfile::Builder::new().prefix("dg-amqp-").tempdir().unwrap();
        services(dir.path(), &["start", "rabbitmq"]);
        let lines = services(dir.path(), &["env", "rabbitmq"]);
        let value = |name: &str| {
            let named = |name: &str| lines.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            let line = named(name).or_else(|| named(name.trim_end_matches("_URI")));
            line.unwrap_or_else(|| panic!("no {name} in {lines}")).trim_matches('\'').to_owned()
        };
        Self { broker: Broker::of(&value), dir }
    }

    /// `start`, `stop`, `pause` or `resume`.
    pub(crate) async fn tell(&self, what: &'static str) {
        let dir = self.dir.path().to_owned();
        tokio::task::spawn_blocking(move || services(&dir, &[what, "rabbitmq"])).await.unwrap();
    }

    /// Stops and starts it in good order. RabbitMQ 3.10 syncs the names of its quorum queues every three minutes and when it
    /// stops: killed before, it comes back with a queue that answers nobody.
    pub(crate) async fn restart(&self) {
        self.tell("stop").await;
        self.tell("start").await;
    }

    /// Kills it with -9.
    pub(crate) fn kill(&self) {
        let text = std::fs::read_to_string(self.dir.path().join("rabbitmq/processes.json")).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let pid = all["parts"]["server"][0].as_i64().unwrap();
        let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let _ = run(self.dir.path(), &["resume", "rabbitmq"]);
        let _ = run(self.dir.path(), &["stop", "rabbitmq"]);
    }
}

fn run(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/services");
    let mut command = Command::new(script);
    command.args(arguments).arg("--dir").arg(dir);
    // Otherwise it takes the shared one for the one that is asked for.
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("DROPGATE_TEST_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn services(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, at_most: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < at_most, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
