//! The cases that upload something good.

use super::{ACCOUNT, Trial};
use crate::{
    harness::{gate::SETTLE, records, until::until},
    matrix::{Cell, Client, Step},
    raw::{Attrs, Request, frame},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

/// How much of the 8 MiB had arrived.
const ARRIVED: usize = 5 << 20;

/// Bytes of an upload that are not its own: key exchange, login, frames.
const AROUND: usize = 1 << 20;

/// What a client that does not wait for CLOSE remarks in the table.
const NO_ANSWER: &str = "says that all is well before CLOSE is answered: look into `/sent`";

/// Names beside plain ones: what users, shells, URLs and file systems stumble over.
const ODD: [&str; 8] = [
    "two  words.txt",
    "quote'd \"name\".csv",
    "*?[x]{a,b}.txt",
    "a;b|c&d$HOME`e`!.dat",
    "#hash%41+plus@at=.txt",
    "-rf",
    "Ünïcödé – ж – 漢字 – 🦀.csv",
    // Decomposed, as macOS writes it.
    "Zu\u{308}rich.xml",
];

impl<C: Client> Trial<'_, C> {
    pub(super) async fn put(&self) -> Result<Cell> {
        let (local, data) = self.file("put.bin", 70_000)?;
        let remote = "/upload/put.bin";
        if let Err(why) = self.uploaded(Step::Put { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let row = self.gate.upload(ACCOUNT, remote).await?;
        let evidence = records::text(&Value::Object(row.rest), "evidence").to_owned();
        let known = ["close-only", "fsetstat-size", "declared-size", "renamed-from-temp"];
        let how = known.into_iter().find(|k| *k == evidence);
        let how = how.with_context(|| format!("evidence {evidence:?}"))?;
        Ok(Cell::In(how, (!self.client.waits_for_close()).then_some(NO_ANSWER)))
    }

    pub(super) async fn sized(&self, remote: &str, length: usize) -> Result<Cell> {
        let (local, data) = self.file(&format!("sized-{length}"), length)?;
        cell(self.uploaded(Step::Put { local: &local, remote }, remote, &data).await?)
    }

    pub(super) async fn overwrite(&self) -> Result<Cell> {
        let remote = "/upload/again.csv";
        for length in [60_000, 150_000] {
            let (local, data) = self.file(&format!("again-{length}"), length)?;
            if let Err(why) = self.uploaded(Step::Put { local: &local, remote }, remote, &data).await? {
                return Ok(Cell::Cannot(why));
            }
        }
        let versions = self.versions(remote).await?;
        ensure!(versions == 2, "{versions} versions");
        Ok(Cell::Yes)
    }

    pub(super) async fn times(&self) -> Result<Cell> {
        let (local, data) = self.file("timed.txt", 5_000)?;
        let remote = "/upload/timed.txt";
        set_modified(&local, 1_600_000_001)?;
        if let Err(why) = self.uploaded(Step::PutWithTimes { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let (_connection, mut raw) = self.gate.raw(ACCOUNT).await?;
        let shown = raw.call(Request::Stat { path: b"/sent/timed.txt" }).await?.attrs()?;
        ensure!(shown.times.map(|(_, modified)| modified) == Some(1_600_000_001), "{shown:?}");
        Ok(Cell::Yes)
    }

    pub(super) async fn resume(&self) -> Result<Cell> {
        let (local, data) = self.file("resumed.bin", 8 << 20)?;
        let remote = "/upload/resumed.bin";
        let partial = self.client.partial(remote);
        let (connection, mut raw) = self.gate.raw(ACCOUNT).await?;
        let flags = frame::WRITE | frame::CREAT | frame::TRUNC;
        let handle = raw.open(&partial, flags, Attrs::none()).await?;
        let arrived = data.get(..ARRIVED).context("a file that is larger")?;
        let ids = raw.write_all(&handle, 0, arrived, 32 * 1024).await?;
        raw.all_ok(&ids).await?;
        raw.call(Request::Fsync { handle: &handle }).await?.ok()?;
        connection.valve.cut();
        self.gate.upload_in(ACCOUNT, &partial, "partial").await?;

        let before =
            self.over(|sessions| sessions.iter().any(|b| (ARRIVED..ARRIVED + AROUND).contains(b))).await?;
        if let Err(why) = self.uploaded(Step::Resume { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let after = self.over(|sessions| sessions.len() > before.len()).await?;
        let sent = after.iter().sum::<usize>() - before.iter().sum::<usize>();
        ensure!(sent < data.len() - ARRIVED + AROUND, "{sent} bytes were sent to resume");
        // All is there already. Some then leave it alone, others ask for what is refused: either way nothing happens.
        self.client.take(Step::Resume { local: &local, remote }).await?;
        let versions = self.versions(remote).await?;
        ensure!(versions == 1, "a resume of nothing made {versions} versions");
        Ok(Cell::Yes)
    }

    pub(super) async fn tree(&self) -> Result<Cell> {
        let local = self.desk.local("tree");
        let files = self.write_tree("tree", "/upload/tree")?;
        let step = Step::PutTree { local: &local, remote: "/upload/tree" };
        cell(self.uploaded_all(step, &files).await?)
    }

    pub(super) async fn rename(&self) -> Result<Cell> {
        let (local, data) = self.file("renamed.bin", 150_000)?;
        let remote = "/upload/renamed.bin";
        if let Err(why) = self.uploaded(Step::PutRenamed { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let row = self.gate.upload(ACCOUNT, remote).await?;
        ensure!(
            records::text(&Value::Object(row.rest.clone()), "evidence") == "renamed-from-temp",
            "{row:?}"
        );
        let rows = self.gate.uploads().await?;
        let others: Vec<_> = rows.iter().filter(|u| u.path.contains("renamed") && u.path != remote).collect();
        ensure!(others.is_empty(), "the temp name has a record of its own: {others:?}");
        Ok(Cell::Yes)
    }

    pub(super) async fn names(&self) -> Result<Cell> {
        for (number, name) in ODD.into_iter().enumerate() {
            // The local name is a plain one: what a shell makes of names is not the matter here.
            let (local, data) = self.file(&format!("odd-{number}"), 1_000 + number)?;
            let remote = format!("/upload/{name}");
            let step = Step::Put { local: &local, remote: &remote };
            if let Err(why) = self.uploaded(step, &remote, &data).await.with_context(|| name.to_owned())? {
                return Ok(Cell::Cannot(why));
            }
        }
        Ok(Cell::Yes)
    }

    pub(super) async fn at_once(&self) -> Result<Cell> {
        let mut files = Vec::new();
        let mut contents = BTreeMap::new();
        for number in 0..4 {
            let (local, data) = self.file(&format!("at-once-{number}"), 2_000_000 + number)?;
            let remote = format!("/upload/at-once-{number}");
            contents.insert(remote.clone(), data);
            files.push((local, remote));
        }
        cell(self.uploaded_all(Step::PutAtOnce { files: &files }, &contents).await?)
    }

    pub(super) async fn sync(&self) -> Result<Cell> {
        let local = self.desk.local("sync");
        let files = self.write_tree("sync", "/upload/sync")?;
        let step = Step::Sync { local: &local, remote: "/upload/sync" };
        // Old enough that the next change is later by any clock and rounding.
        set_all_modified(&local, 1_600_000_000)?;
        if let Err(why) = self.uploaded_all(step, &files).await? {
            return Ok(Cell::Cannot(why));
        }
        let changed = "/upload/sync/a.txt";
        let (_, data) = self.file("sync/a.txt", 4_321)?;
        let mut lines = vec![self.ledger.begin(ACCOUNT, changed, &data)?];
        // It may well send the others again too: what was delivered is no longer in /upload.
        for (path, data) in files.iter().filter(|(path, _)| *path != changed) {
            lines.push(self.ledger.begin(ACCOUNT, path, data)?);
        }
        if let Err(why) = self.good(step).await? {
            return Ok(Cell::Cannot(why));
        }
        let first = lines.first().copied().context("a line")?;
        self.ledger.acknowledge(first)?;
        self.gate.settled().await?;
        ensure!(self.versions(changed).await? == 2, "the change did not arrive");
        let mut again = 0;
        for path in files.keys().filter(|path| *path != changed) {
            again += self.versions(path).await? - 1;
        }
        match again {
            0 => Ok(Cell::In("sends changes", None)),
            2 => Ok(Cell::In(
                "sends all",
                Some("delivered files are no longer in `/upload`: it sends them again, as new versions"),
            )),
            some => anyhow::bail!("{some} of the 2 files that had not changed were sent again"),
        }
    }

    /// Three files in three directories, by their paths at the gate.
    fn write_tree(&self, name: &str, remote: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for (below, length) in [("a.txt", 1_234), ("sub/b.bin", 70_000), ("sub/deep/c.bin", 300_000)] {
            let (_, data) = self.file(&format!("{name}/{below}"), length)?;
            files.insert(format!("{remote}/{below}"), data);
        }
        Ok(files)
    }

    /// A step that uploads one file: one more version, of these bytes, delivered, with one event.
    pub(super) async fn uploaded(
        &self,
        step: Step<'_>,
        path: &str,
        data: &[u8],
    ) -> Result<Result<String, &'static str>> {
        self.uploaded_all(step, &BTreeMap::from([(path.to_owned(), data.to_owned())])).await
    }

    /// [`Self::uploaded`] for several files.
    async fn uploaded_all(
        &self,
        step: Step<'_>,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Result<String, &'static str>> {
        let mut lines = Vec::new();
        let mut before = Vec::new();
        for (path, data) in files {
            before.push(self.versions(path).await?);
            lines.push(self.ledger.begin(ACCOUNT, path, data)?);
        }
        let said = self.good(step).await?;
        if said.is_err() {
            return Ok(said);
        }
        lines.into_iter().try_for_each(|line| self.ledger.acknowledge(line))?;
        if !self.client.waits_for_close() {
            for (path, before) in files.keys().zip(&before) {
                until(SETTLE, path, || async { Ok((self.versions(path).await? > *before).then_some(())) })
                    .await?;
            }
        }
        self.gate.settled().await?;
        for ((path, data), before) in files.iter().zip(before) {
            let versions = self.versions(path).await?;
            ensure!(versions == before + 1, "{path}: {versions} versions after {before}");
            let row = self.gate.upload(ACCOUNT, path).await?;
            let digest = crate::harness::payload::sha256(data);
            ensure!(
                row.state == "processed" && row.sha256.as_ref() == Some(&digest),
                "{row:?}, not {digest}"
            );
        }
        Ok(said)
    }

    /// Accepted versions of a path; each has told of itself in one event.
    pub(super) async fn versions(&self, path: &str) -> Result<usize> {
        let rows = self.gate.uploads().await?;
        let accepted = rows.iter().filter(|u| u.path == path && u.is_accepted()).count();
        let events = self.gate.event_about("upload.received", path, accepted).await?.len();
        ensure!(events == accepted, "{events} events about {accepted} versions of {path}");
        Ok(accepted)
    }

    /// Bytes that each session so far has sent to the gate, once all are over and `known`: the trail tells of sessions a
    /// moment after they are over.
    async fn over(&self, known: impl Fn(&[usize]) -> bool) -> Result<Vec<usize>> {
        let of = |entries: &[Value], action: &str| -> Vec<Value> {
            let is = |e: &&Value| records::text(e, "action") == action && records::text(e, "result") == "ok";
            entries.iter().filter(is).cloned().collect()
        };
        until(Duration::from_secs(30), "all sessions to be over", || async {
            let entries = self.gate.audit(&["--account", ACCOUNT]).await?;
            let (begun, over) = (of(&entries, "session.login"), of(&entries, "session.disconnect"));
            let bytes = |e: &Value| records::text(e.get("detail")?, "received_bytes").parse().ok();
            let bytes: Vec<usize> = over.iter().filter_map(bytes).collect();
            ensure!(begun.len() == bytes.len() && known(&bytes), "{} sessions, {bytes:?}", begun.len());
            Ok(Some(bytes))
        })
        .await
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every case ends in a result")]
fn cell(said: Result<String, &'static str>) -> Result<Cell> {
    Ok(said.map_or_else(Cell::Cannot, |_| Cell::Yes))
}

fn set_modified(path: &Path, seconds: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(std::fs::File::options().write(true).open(path)?.set_modified(time)?)
}

fn set_all_modified(directory: &Path, seconds: u64) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_all_modified(&entry.path(), seconds)?;
        } else {
            set_modified(&entry.path(), seconds)?;
        }
    }
    Ok(())
}
