//! Everything that can be seen from outside once the system has come to rest. Read without the product's code: by
//! command, by SQL, from files and over SFTP.

use crate::{
    harness::{
        Gate, payload,
        records::{self, UploadRow},
        until::until,
    },
    raw::{Connection, Login, Transport},
};
use anyhow::{Context as _, Result, ensure};
use rusqlite::OpenFlags;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

/// How long the system may take to come to rest.
const REST: Duration = Duration::from_secs(120);

/// What must be gone from the outbox at rest. A job that waits for its time belongs to an upload that is still in flight, or
/// is a doorbell that nobody answers any more; an event or a superseding that was put off must still happen.
const DUE: &str = "(kind <> 'job' OR not_before IS NULL)";

/// One version as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The whole record.
    pub doc: Value,
    /// Content that is kept with the record.
    pub inline: Option<Stored>,
}

/// Bytes found somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How many.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// What one account sees: name below the directory -> size, by directory.
pub type Listing = BTreeMap<String, BTreeMap<String, u64>>;

/// The state of a system at rest.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// `uploads list --json`.
    pub told: Vec<UploadRow>,
    /// The records, by upload id.
    pub versions: BTreeMap<String, Version>,
    /// Files below the delivered directory, by `<partner>/<account>/<path>`.
    pub delivered: BTreeMap<String, Stored>,
    /// Blob files, by file name.
    pub blobs: BTreeMap<String, Stored>,
    /// `events.ndjson`, in its order.
    pub published: Vec<Value>,
    /// The event log in the database, by position.
    pub logged: Vec<(u64, Value)>,
    /// Kinds of outbox entries that must still be handled.
    pub outbox: Vec<String>,
    /// Audit entries as stored, in order.
    pub audit: Vec<Vec<u8>>,
    /// Listings over SFTP, by account; accounts that were not looked at are missing.
    pub listings: BTreeMap<String, Listing>,
}

impl Version {
    /// A text field of the record.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        records::text(&self.doc, field)
    }
    /// Number of this version of its path.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.doc.get("version").and_then(Value::as_u64).unwrap_or(0)
    }
    /// Bytes, once complete.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.doc.get("size").and_then(Value::as_u64)
    }
    /// The deliveries.
    pub fn deliveries(&self) -> impl Iterator<Item = &Value> {
        self.doc.get("deliveries").and_then(Value::as_array).into_iter().flatten()
    }
}

impl Evidence {
    /// Waits until every accepted upload is in a final state, every event is published and nothing is due, then looks.
    ///
    /// # Errors
    /// If that does not happen in time.
    pub async fn gather_at_rest(gate: &Gate) -> Result<Self> {
        let database = gate.data().join("dropgate.db");
        until(REST, "the system to come to rest", || async {
            let connection = open(&database)?;
            let in_flight: i64 = connection.query_row(
                "SELECT count(*) FROM uploads WHERE state IN ('committed', 'delivering', 'closing')",
                [],
                |row| row.get(0),
            )?;
            let due: i64 =
                connection
                    .query_row(&format!("SELECT count(*) FROM outbox WHERE {DUE}"), [], |row| row.get(0))?;
            let logged: i64 = connection.query_row("SELECT count(*) FROM event_log", [], |row| row.get(0))?;
            let published: BTreeSet<_> =
                gate.events()?.iter().map(|e| records::text(e, "id").to_owned()).collect();
            ensure!(
                in_flight == 0 && due == 0 && i64::try_from(published.len()) == Ok(logged),
                "{in_flight} in flight, {due} outbox entries due, {} of {logged} events published",
                published.len()
            );
            Ok(Some(()))
        })
        .await?;
        let mut evidence = Self::read(gate.data())?;
        evidence.told = gate.uploads().await?;
        let accounts: BTreeSet<_> =
            evidence.versions.values().map(|v| v.text("account").to_owned()).collect();
        for account in accounts {
            let login = gate.login(&account);
            let listing = Self::listing(gate.sftp()?, &login).await;
            let listing = listing.with_context(|| format!("listing as {account}"))?;
            evidence.listings.insert(account, listing);
        }
        Ok(evidence)
    }

    /// Blob files that belong to no record that may still need them.
    #[must_use]
    pub fn orphans(&self) -> Vec<&str> {
        let needed: BTreeSet<&str> = self
            .versions
            .values()
            .filter(|v| v.text("state") != "aborted")
            .flat_map(|v| [v.doc.pointer("/blob/blob"), v.doc.pointer("/staged/blob/blob")])
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is_needed = |file: &str| needed.iter().any(|id| file.contains(id));
        self.blobs.keys().map(String::as_str).filter(|file| !is_needed(file)).collect()
    }

    /// What an account sees over SFTP.
    ///
    /// # Errors
    /// If it can't be listed, or a name is listed twice.
    pub async fn listing(server: SocketAddr, login: &Login) -> Result<Listing> {
        let connection = Connection::open(server, login, &Transport::default()).await?;
        let mut raw = connection.sftp().await?;
        raw.init(3).await?;
        let mut listing = Listing::new();
        for area in ["/upload", "/sent", "/failed"] {
            let mut names = BTreeMap::new();
            let mut directories = vec![String::new()];
            while let Some(directory) = directories.pop() {
                for entry in raw.list(&format!("{area}{directory}")).await? {
                    let name = entry.text();
                    if name == "." || name == ".." {
                        continue;
                    }
                    let path = format!("{directory}/{name}");
                    if entry.attrs.permissions.is_some_and(|mode| mode & 0o170_000 == 0o040_000) {
                        directories.push(path);
                    } else {
                        let before = names.insert(path.clone(), entry.attrs.size.unwrap_or(u64::MAX));
                        ensure!(before.is_none(), "{area}{path} is listed twice");
                    }
                }
            }
            listing.insert(area.to_owned(), names);
        }
        Ok(listing)
    }

    /// What can be read from a data directory alone.
    ///
    /// # Errors
    /// If something can't be read.
    pub fn read(data: &Path) -> Result<Self> {
        let connection = open(&data.join("dropgate.db"))?;
        let mut evidence =
            Self { published: records::events(&data.join("events.ndjson"))?, ..Self::default() };
        let mut uploads = connection.prepare(
            "SELECT u.doc, i.bytes FROM uploads u LEFT JOIN inline_content i ON i.upload = u.id ORDER BY u.id",
        )?;
        let mut rows = uploads.query([])?;
        while let Some(row) = rows.next()? {
            let doc: Value = serde_json::from_str(&row.get::<_, String>(0)?)?;
            let inline = row
                .get::<_, Option<Vec<u8>>>(1)?
                .map(|bytes| Stored { size: bytes.len() as u64, sha256: payload::sha256(&bytes) });
            evidence.versions.insert(records::text(&doc, "upload_id").to_owned(), Version { doc, inline });
        }
        let mut log = connection.prepare("SELECT position, doc FROM event_log ORDER BY position")?;
        let mut rows = log.query([])?;
        while let Some(row) = rows.next()? {
            evidence.logged.push((
                u64::try_from(row.get::<_, i64>(0)?)?,
                serde_json::from_str(&row.get::<_, String>(1)?)?,
            ));
        }
        let mut outbox = connection.prepare(&format!("SELECT kind FROM outbox WHERE {DUE} ORDER BY id"))?;
        evidence.outbox = outbox.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut audit = connection.prepare("SELECT canonical FROM audit ORDER BY position")?;
        evidence.audit = audit.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        walk(&data.join("delivered"), "", &mut evidence.delivered)?;
        let mut blobs = BTreeMap::new();
        walk(&data.join("blobs"), "", &mut blobs)?;
        for (path, stored) in blobs {
            let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
            evidence.blobs.insert(name, stored);
        }
        Ok(evidence)
    }
}

fn open(database: &Path) -> Result<rusqlite::Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(database, flags)
        .with_context(|| database.display().to_string())?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Stored>) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| dir.display().to_string()),
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found)?;
        } else {
            let (size, sha256) = payload::digest_file(&entry.path())?;
            found.insert(name, Stored { size, sha256 });
        }
    }
    Ok(())
}
