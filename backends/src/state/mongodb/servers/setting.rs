//! A database of its own for each test, removed afterwards.

use crate::state::{
    StateStore,
    mongodb::{failure::OpenFailure, open, open::Settings},
};
use mongodb::{Client, Database};
use std::{sync::Arc, time::Duration};

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
