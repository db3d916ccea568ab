//! Against a real server: the shared one for what leaves others alone, one of our own for what does not.

use super::{Server, Vault, login::Session};
use crate::{
    Backends, BackendsConfig, OpenError,
    credentials::{self, CredentialError},
    secrets::{self, SecretError, local::LocalSecrets},
};
use dropgate_schemas::account::{AccountName, Credentials};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;
use vaultrs::{
    api::{
        auth::approle::requests::SetAppRoleRequest, kv2::requests::SetSecretRequestOptions,
        sys::requests::EnableEngineRequest, token::requests::CreateTokenRequest,
    },
    auth::approle,
    client::{VaultClient, VaultClientSettings},
    kv2, sys, token,
};

/// A server, and what a test may do there as its operator.
struct Place {
    address: String,
    token: String,
    root: VaultClient,
    /// A KV version 2 mount of this test.
    mount: String,
    dir: tempfile::TempDir,
}

impl Place {
    async fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: `make test-servers` starts the servers and sets it")
            })
        };
        Self::at(variable("DROPGATE_TEST_VAULT_ADDR"), variable("DROPGATE_TEST_VAULT_TOKEN")).await
    }

    async fn at(address: String, token: String) -> Self {
        let root = operator(&address, &token);
        let mount = format!("dropgate-test-{}", Uuid::new_v4().simple());
        let place = Self { address, token, root, mount, dir: tempfile::tempdir().unwrap() };
        place.enable(&place.mount, "2").await;
        place.file("token", &place.token);
        place
    }

    async fn enable(&self, mount: &str, version: &str) {
        let mut request = EnableEngineRequest::builder();
        request.options(HashMap::from([("version".to_owned(), version.to_owned())]));
        sys::mount::enable(&self.root, mount, "kv", Some(&mut request)).await.unwrap();
    }

    async fn gone(self) {
        sys::mount::disable(&self.root, &self.mount).await.unwrap();
        // Not every test has a role.
        let _ = approle::role::delete(&self.root, "approle", &self.mount).await;
        let _ = sys::policy::delete(&self.root, &self.mount).await;
    }

    fn file(&self, name: &str, content: &str) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Both sections, the second with what differs.
    fn config(&self, secrets: &str, credentials: &str) -> BackendsConfig {
        let (address, mount) = (&self.address, &self.mount);
        let text = format!(
            "[secrets]\nkind = 'vault'\naddress = '{address}'\nmount = '{mount}'\n{secrets}\n\
             [credentials]\nkind = 'vault'\nmount = '{mount}'\n{credentials}\n"
        );
        toml::from_str(&text).unwrap()
    }

    async fn open(&self, secrets: &str, credentials: &str) -> Result<Backends, OpenError> {
        Backends::open(&self.config(secrets, credentials), self.dir.path()).await
    }

    async fn refused(&self, secrets: &str, credentials: &str) -> String {
        match self.open(secrets, credentials).await {
            Ok(_) => panic!("{secrets} {credentials}: it should not open"),
            Err(error) => error.to_string(),
        }
    }

    /// A role with a policy of its own; the files `role` and `secret` hold its ids.
    async fn role(&self, policy: &str, ttl: &str, longest: &str) {
        let name = &self.mount;
        // Another test may have mounted it.
        let _ = sys::auth::enable(&self.root, "approle", "approle", None).await;
        sys::policy::set(&self.root, name, policy).await.unwrap();
        let mut role = SetAppRoleRequest::builder();
        role.token_ttl(ttl).token_max_ttl(longest).token_policies(vec![name.clone()]);
        approle::role::set(&self.root, "approle", name, Some(&mut role)).await.unwrap();
        let id = approle::role::read_id(&self.root, "approle", name).await.unwrap().role_id;
        let secret = approle::role::secret::generate(&self.root, "approle", name, None).await.unwrap();
        self.file("role", &id);
        self.file("secret", &secret.secret_id);
    }

    fn readers(&self) -> String {
        format!("path \"{}/data/dropgate/*\" {{ capabilities = [\"read\"] }}", self.mount)
    }

    async fn connect(&self) -> Arc<Vault> {
        let secrets = Arc::new(LocalSecrets::new(self.dir.path().to_owned()));
        let server = Server {
            address: &self.address,
            namespace: None,
            ca_file: None,
            token: None,
            role_id: Some("file:role"),
            secret_id: Some("file:secret"),
            approle_mount: "approle",
            deadline: Duration::from_secs(10),
        };
        Vault::connect("[backends.secrets]", server, secrets, self.dir.path()).await.unwrap()
    }
}

fn operator(address: &str, token: &str) -> VaultClient {
    VaultClient::new(VaultClientSettings {
        address: address.parse().unwrap(),
        ca_certs: Vec::new(),
        identity: None,
        timeout: Some(Duration::from_secs(20)),
        token: token.to_owned(),
        verify: true,
        version: 1,
        wrapping: false,
        namespace: None,
        proxy: None,
    })
    .unwrap()
}

const TOKEN: &str = "token = 'file:token'";
const ROLE: &str = "role_id = 'file:role'\nsecret_id = 'file:secret'";

fn verifiers(name: &str, hash: &str) -> Credentials {
    Credentials { account: account(name), password_hash: Some(hash.to_owned()), public_keys: Vec::new() }
}

fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{what}: it never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn both_ports_conform() {
    let place = Place::shared().await;
    kv2::set(&place.root, &place.mount, "sftp/bank", &HashMap::from([("password", "canary-9x4k")]))
        .await
        .unwrap();
    let (one, other) = (place.open(TOKEN, "").await.unwrap(), place.open(TOKEN, "").await.unwrap());
    credentials::conformance::suite(one.credentials.as_ref(), other.credentials.as_ref()).await;
    let secrets = one.secrets.as_ref();
    for missing in ["vault:sftp/bank#pasword", "vault:sftp/nowhere#password", "file:missing"] {
        secrets::conformance::suite(secrets, "vault:sftp/bank#password", "canary-9x4k", missing).await;
    }
    place.file("local", "canary-local");
    secrets::conformance::suite(secrets, "file:local", "canary-local", "env:DROPGATE_NOT_SET").await;
    let error = secrets.resolve("vault:sftp/bank#pasword").await.unwrap_err().to_string();
    assert!(error.contains("only the keys [password]") && error.contains("vault kv patch"), "{error}");
    for malformed in ["vault:", "vault:a", "vault:#k", "vault:a#", "vault:../x#k", "vault:a b#k", "hunter2"] {
        let error = secrets.resolve(malformed).await.unwrap_err();
        assert!(matches!(error, SecretError::Malformed(_)), "{malformed}: {error}");
        assert!(
            error.to_string().contains("vault:PATH#KEY") && !error.to_string().contains("hunter2"),
            "{error}"
        );
    }
    place.gone().await;
}

#[tokio::test]
async fn a_secret_that_others_deleted_or_wrote_in_vault_is_seen_at_once() {
    let place = Place::shared().await;
    let store = place.open(TOKEN, "").await.unwrap().credentials;
    let (demo, path) = (account("demo"), "dropgate/accounts/demo");
    store.put(verifiers("demo", "one")).await.unwrap();
    // Soft deletion leaves the version number, on which the next write has to build.
    kv2::delete_latest(&place.root, &place.mount, path).await.unwrap();
    assert_eq!(store.lookup(&demo).await.unwrap(), None);
    store.put(verifiers("demo", "two")).await.unwrap();
    let by_hand = HashMap::from([("password_hash", "three")]);
    let options = SetSecretRequestOptions { cas: 2 };
    kv2::set_with_options(&place.root, &place.mount, path, &by_hand, options).await.unwrap();
    assert_eq!(store.lookup(&demo).await.unwrap(), Some(verifiers("demo", "three")));
    kv2::set(&place.root, &place.mount, path, &HashMap::from([("pasword_hash", "canary")])).await.unwrap();
    let error = store.lookup(&demo).await.unwrap_err();
    assert!(matches!(error, CredentialError::Corrupt(_)), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("dropgate/accounts/demo: unknown field \"pasword_hash\"") && !said.contains("canary"),
        "{said}"
    );
    // Many writers of one account: each write is whole, none fails.
    let writes = (0..6).map(|n| store.put(verifiers("demo", &format!("hash {n}"))));
    for done in futures::future::join_all(writes).await {
        done.unwrap();
    }
    assert!(store.lookup(&demo).await.unwrap().unwrap().password_hash.unwrap().starts_with("hash "));
    store.remove(&demo).await.unwrap();
    assert_eq!(store.lookup(&demo).await.unwrap(), None);
    place.gone().await;
}

#[tokio::test]
async fn a_role_logs_in_and_its_token_is_renewed_and_replaced_before_it_expires() {
    let place = Place::shared().await;
    place.role(&place.readers(), "4s", "10s").await;
    let vault = place.connect().await;
    let first = vault.current().unwrap();
    let text = |session: &Session| session.client.settings.token.clone();
    let began = Instant::now();
    let mut renewed = false;
    let kv = super::Kv::open("[backends.secrets]", vault.clone(), &place.mount).await.unwrap();
    // Past two leases of the first token, until its longest life is nearly over.
    until("a second token", async || {
        kv.read("dropgate/nothing").await.unwrap();
        renewed |=
            Arc::ptr_eq(&first, &vault.current().unwrap()) && began.elapsed() > Duration::from_millis(4500);
        (!Arc::ptr_eq(&first, &vault.current().unwrap())).then_some(())
    })
    .await;
    assert!(renewed, "the first token outlived its lease");
    assert!(began.elapsed() < Duration::from_secs(10), "it was replaced only after its end");
    assert_ne!(text(&first), text(&vault.current().unwrap()));

    // Revoked: the next request finds out, logs in and succeeds; many at once make one login.
    let stale = vault.current().unwrap();
    token::revoke(&place.root, &text(&stale)).await.unwrap();
    let reads = (0..8).map(|_| kv.read("dropgate/nothing"));
    for read in futures::future::join_all(reads).await {
        assert!(read.unwrap().is_none());
    }
    assert!(!Arc::ptr_eq(&stale, &vault.current().unwrap()));
    let weak = Arc::downgrade(&vault);
    drop((kv, vault));
    until("the end of the session's task", async || weak.upgrade().is_none().then_some(())).await;
    place.gone().await;
}

#[tokio::test]
async fn a_token_that_was_replaced_in_its_file_is_read_again() {
    let place = Place::shared().await;
    let make = async || {
        let mut request = CreateTokenRequest::builder();
        request.policies(vec!["root".to_owned()]).ttl("1h");
        token::new(&place.root, Some(&mut request)).await.unwrap().client_token
    };
    let (old, new) = (make().await, make().await);
    place.file("token", &format!("{old}\n"));
    let backends = place.open(TOKEN, "").await.unwrap();
    token::revoke(&place.root, &old).await.unwrap();
    let error = backends.credentials.lookup(&account("demo")).await.unwrap_err();
    assert!(matches!(error, CredentialError::Rejected(_)), "{error}");
    assert!(error.to_string().contains("file:token is not valid"), "{error}");
    place.file("token", &format!("{new}\n"));
    assert_eq!(backends.credentials.lookup(&account("demo")).await.unwrap(), None);
    place.gone().await;
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_remedy() {
    let place = Place::shared().await;
    let mount = place.mount.clone();
    place.file("bad", "not-a-token");
    place.file("two", "two words");
    place.file("ca.pem", "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n");
    let all = "path \"*\" { capabilities = [\"read\"] }";
    place.role(all, "1m", "1m").await;
    let plain = format!("{mount}-v1");
    place.enable(&plain, "1").await;
    for (secrets, credentials, expected) in [
        (
            "token = 'file:bad'",
            "",
            vec!["[backends.secrets]", "the token file:bad is not valid", "vault token create"],
        ),
        ("token = 'file:two'", "", vec!["file:two does not hold one word"]),
        ("token = 'file:none'", "", vec!["file:none", "create "]),
        ("token = 'vault:a#b'", "", vec!["use env:NAME or file:PATH"]),
        ("", "", vec!["there is neither a token nor a role_id", "set token"]),
        ("role_id = 'file:role'", "", vec!["a role_id without a secret_id"]),
        (
            "role_id = 'file:role'\nsecret_id = 'file:bad'",
            "",
            vec![
                "AppRole login at approle with role_id file:role and secret_id file:bad was refused",
                "secret-id",
            ],
        ),
        (
            "role_id = 'file:role'\nsecret_id = 'file:secret'\napprole_mount = 'nowhere'",
            "",
            vec!["AppRole login at nowhere", "role/NAME/secret-id"],
        ),
        (
            "token = 'file:token'\nca_file = 'ca.pem'\nnamespace = 'a b'",
            "",
            vec!["\"a b\" is not a namespace"],
        ),
        (TOKEN, "path = 'a//b'", vec!["[backends.credentials]", "path \"a//b\" is not a path"]),
    ] {
        let said = place.refused(secrets, credentials).await;
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("not-a-token"), "{said}");
    }

    for (address, expected) in [
        ("", "there is no address"),
        ("vault", "that is not an address"),
        ("ftp://vault", "not an address of a web server"),
        ("http://a:b@127.0.0.1", "a user or password"),
        ("http://127.0.0.1/vault", "more in the address"),
    ] {
        let text = format!("[secrets]\nkind = 'vault'\naddress = '{address}'\n{TOKEN}");
        let config = toml::from_str(&text).unwrap();
        let said = Backends::open(&config, place.dir.path()).await.err().unwrap().to_string();
        assert!(said.contains(expected) && said.contains("https://vault.example.com:8200"), "{said}");
    }

    // Mounts, as the root token sees them: it may do everything, so Vault says what is there.
    let other = |mount: &str| {
        let text = format!(
            "[secrets]\nkind = 'vault'\naddress = '{}'\nmount = '{}'\n{TOKEN}\n\
             [credentials]\nkind = 'vault'\nmount = '{mount}'",
            place.address, place.mount
        );
        toml::from_str::<BackendsConfig>(&text).unwrap()
    };
    for (mount, expected) in [
        (plain.clone(), format!("vault kv enable-versioning {plain}")),
        (format!("{mount}-none"), format!("vault secrets enable -path={mount}-none -version=2 kv")),
        ("sys".to_owned(), "is a system engine, not a KV engine".to_owned()),
    ] {
        let said = Backends::open(&other(&mount), place.dir.path()).await.err().unwrap().to_string();
        assert!(said.contains(&expected) && said.contains("[backends.credentials]"), "{expected}: {said}");
    }
    sys::mount::disable(&place.root, &plain).await.unwrap();

    // A login that may read secrets, but no accounts; then accounts, but not write them.
    place.role(&format!("path \"{mount}/data/sftp/*\" {{ capabilities = [\"read\"] }}"), "1m", "1m").await;
    let said = place.refused(ROLE, "").await;
    let wanted = format!("path \"{mount}/data/dropgate/accounts/*\" {{ capabilities = [\"read\"] }}");
    assert!(said.contains(&wanted), "{said}");
    place.role(&place.readers(), "1m", "1m").await;
    let backends = place.open(ROLE, "").await.unwrap();
    backends.credentials.check().await.unwrap();
    let error = backends.credentials.put(verifiers("demo", "hash")).await.unwrap_err();
    assert!(matches!(error, CredentialError::Rejected(_)), "{error}");
    assert!(error.to_string().contains("capabilities = [\"create\", \"read\", \"update\"]"), "{error}");
    let error = backends.credentials.remove(&account("demo")).await.unwrap_err().to_string();
    assert!(error.contains(&format!("path \"{mount}/metadata/dropgate/accounts/*\"")), "{error}");
    let error = backends.secrets.resolve("vault:sftp/bank#password").await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("path \"{mount}/data/sftp/*\" {{ capabilities = [\"read\"] }}")),
        "{error}"
    );
    place.gone().await;
}

/// A server of this test's own.
struct Own {
    dir: PathBuf,
}

impl Own {
    fn start(dir: &Path) -> (Self, String, String) {
        let own = Self { dir: dir.join("services") };
        own.run("start");
        let said = own.services(&["env"]);
        let value = |names: &[&str]| {
            let found = said.lines().find_map(|line| {
                let (name, value) = line.trim_start_matches("export ").split_once('=')?;
                names.contains(&name).then(|| value.trim_matches(['\'', '"']).to_owned())
            });
            found.unwrap_or_else(|| panic!("no {names:?} in {said}"))
        };
        let address = value(&["DROPGATE_TEST_VAULT_ADDR", "DROPGATE_TEST_VAULT"]);
        let token = value(&["DROPGATE_TEST_VAULT_TOKEN"]);
        (own, address, token)
    }

    fn run(&self, verb: &str) {
        self.services(&[verb, "openbao"]);
    }

    fn services(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services");
        let mut command = Command::new(script);
        command.args(arguments).arg("--dir").arg(&self.dir);
        // It starts nothing whose address is given.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DROPGATE_TEST_") {
                command.env_remove(name);
            }
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.run("resume");
        self.run("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_only_what_it_confirmed_lately_is_served() {
    let base = tempfile::tempdir().unwrap();
    let (own, address, token) = Own::start(base.path());
    let place = Place::at(address, token).await;
    kv2::set(&place.root, &place.mount, "sftp/bank", &HashMap::from([("password", "canary")])).await.unwrap();
    let short = "cache_seconds = 4\ndeadline_seconds = 6";
    let backends = place.open(&format!("{TOKEN}\ndeadline_seconds = 6"), short).await.unwrap();
    let (store, secrets) = (backends.credentials, backends.secrets);
    let (known, removed) = (account("known"), account("removed"));
    for name in ["known", "removed", "unseen"] {
        store.put(verifiers(name, "hash")).await.unwrap();
    }
    let remember = async || {
        assert_eq!(store.lookup(&known).await.unwrap(), Some(verifiers("known", "hash")));
    };
    assert!(store.lookup(&removed).await.unwrap().is_some());
    assert_eq!(secrets.resolve("vault:sftp/bank#password").await.unwrap().expose_str(), Some("canary"));

    // Paused: connections stay open, and nothing answers. Asked once; then the remembered answer, before the deadline.
    remember().await;
    own.run("pause");
    let began = Instant::now();
    remember().await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let error = store.lookup(&account("unseen")).await.unwrap_err();
    assert!(matches!(error, CredentialError::Unavailable(_)), "{error}");
    own.run("resume");

    // Sealed: it answers that it can't.
    until("an answer after the pause", async || store.check().await.ok()).await;
    remember().await;
    // It soon unseals itself: then once more.
    let error = until("the sealed server's answer", async || {
        let _ = sys::seal(&place.root).await;
        remember().await;
        store.check().await.err().filter(|error| error.to_string().contains("is sealed"))
    })
    .await;
    assert!(matches!(error, CredentialError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("vault operator unseal"), "{error}");

    // Stopped: what was confirmed is served for so long, and not longer.
    own.run("stop");
    let error = until("the end of what is remembered", async || store.lookup(&known).await.err()).await;
    assert!(matches!(error, CredentialError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("can't be reached"), "{error}");
    assert!(store.put(verifiers("known", "other")).await.is_err());
    assert_eq!(secrets.resolve("vault:sftp/bank#password").await.unwrap().expose_str(), Some("canary"));
    let error = secrets.resolve("vault:sftp/bank#user").await.unwrap_err();
    assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
    // A process that starts now starts, and says what is the matter when it is asked.
    let late = place.open(TOKEN, "").await.unwrap();
    assert!(late.credentials.check().await.unwrap_err().to_string().contains("can't be reached"));

    // Back: everything goes on, and what was removed meanwhile by another process is gone.
    own.run("start");
    until("an answer after the restart", async || late.credentials.check().await.ok()).await;
    late.credentials.remove(&removed).await.unwrap();
    assert_eq!(store.lookup(&removed).await.unwrap(), None);
    remember().await;
    drop(own);
}
