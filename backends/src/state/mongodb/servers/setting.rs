//! A database of its own for each test, removed afterwards.

use crate::state::{
    StateStore,
    mongodb::{failure::OpenFailure, open, open::Settings},
};
use mongodb::{Client, Database};
use std::{
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

/// The server that all tests share.
pub(super) fn shared() -> String {
    std::env::var("DROPGATE_TEST_MONGODB_URI").expect(
        "DROPGATE_TEST_MONGODB_URI is not set: run `make test-servers`, or start the server with `scripts/services start mongodb`",
    )
}

/// A database on a server.
pub(super) struct Place {
    pub(super) settings: Settings,
}

impl Place {
    /// On the shared server.
    pub(super) fn new() -> Self {
        Self::on(shared())
    }

    pub(super) fn on(uri: String) -> Self {
        let database = format!("dg_test_{}", uuid::Uuid::now_v7().simple());
        let settings = Settings {
            uri,
            database,
            prefix: "dg_".to_owned(),
            deadline: Duration::from_secs(30),
            selection: Duration::from_secs(3),
            connections_min: 0,
            connections_max: 16,
        };
        Self { settings }
    }

    pub(super) async fn open(&self) -> Arc<dyn StateStore> {
        self.try_open().await.unwrap()
    }

    pub(super) async fn try_open(&self) -> Result<Arc<dyn StateStore>, OpenFailure> {
        open(&self.settings).await
    }

    /// The database as any other program sees it.
    pub(super) async fn raw(&self) -> Database {
        Client::with_uri_str(&self.settings.uri).await.unwrap().database(&self.settings.database)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (uri, database) = (self.settings.uri.clone(), self.settings.database.clone());
        // On a thread with a runtime of its own: the test's may be at its end.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let drop = async {
                    let client = Client::with_uri_str(&uri).await?;
                    client.database(&database).drop().await
                };
                let _ = tokio::time::timeout(Duration::from_secs(10), drop).await;
            });
        });
        let _ = dropping.join();
    }
}

/// Waits for a condition.
pub(super) async fn until(at_most: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + at_most;
    while !holds().await {
        assert!(Instant::now() < give_up, "not within {at_most:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A server of the test's own, in a directory of its own.
pub(super) struct Own {
    dir: tempfile::TempDir,
}

impl Own {
    pub(super) fn start() -> Self {
        let own = Self { dir: tempfile::tempdir().unwrap() };
        own.services(&["start", "mongodb"]);
        own
    }

    pub(super) fn uri(&self) -> String {
        let told = self.services(&["env", "--json", "mongodb"]);
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        told["DROPGATE_TEST_MONGODB_URI"].as_str().unwrap().to_owned()
    }

    pub(super) fn pause(&self) {
        self.services(&["pause", "mongodb"]);
    }

    pub(super) fn resume(&self) {
        self.services(&["resume", "mongodb"]);
    }

    /// With -9.
    pub(super) fn kill(&self) {
        let processes = std::fs::read(self.dir.path().join("mongodb/processes.json")).unwrap();
        let processes: serde_json::Value = serde_json::from_slice(&processes).unwrap();
        let pid = i32::try_from(processes["parts"]["server"][0].as_i64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// At the same address, with what it had stored.
    pub(super) fn restart(&self) {
        self.services(&["start", "mongodb"]);
    }

    fn services(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/services {arguments:?}: {said}");
        output.stdout
    }

    fn run(&self, arguments: &[&str]) -> std::io::Result<Output> {
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services"))
            .args(arguments)
            .arg("--dir")
            .arg(self.dir.path())
            // Else it would take the shared server for the one that is meant.
            .env_remove("DROPGATE_TEST_MONGODB_URI")
            .env_remove("DROPGATE_TEST_SERVICES")
            .output()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that stands still can't end.
        let _ = self.run(&["resume", "mongodb"]);
        let _ = self.run(&["stop", "mongodb"]);
    }
}
