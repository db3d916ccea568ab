//! Places of the tree and states of an entry there: how each comes about, and what requests answer then.

use super::{Cell, check_refusal, requests, told};
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, gate::SETTLE, payload, until::until_true},
    raw::{Attrs, Connection, Raw, Request, frame},
};

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

/// A column of the table.
pub(super) struct Place {
    pub(super) name: &'static str,
    /// Where it is asked for: `{n}` is a name of its own for every cell.
    path: &'static str,
    /// For partners.
    pub(super) words: &'static str,
    /// State in which the upload behind it must be before anything is asked.
    state: Option<&'static str>,
}

const fn place(name: &'static str, path: &'static str, words: &'static str) -> Place {
    Place { name, path, words, state: None }
}

impl Place {
    const fn once(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }

    /// Where the file is put from which it comes about.
    fn upload(&self, name: &str) -> String {
        match self.name {
            "failed-entry" => format!("/upload/nowhere/{name}"),
            "sent-entry" | "deleted" => format!("/upload/{name}"),
            _ => self.path.replace("{n}", name),
        }
    }
}

pub(super) const ALL: [Place; 27] = [
    place("root", "/", "`/`"),
    place("upload", "/upload", "`/upload`"),
    place("inbox", "/inbox", "`/inbox`"),
    place("sent", "/sent", "`/sent`"),
    place("failed", "/failed", "`/failed`"),
    place("user-dir", "/upload/{n}", "empty directory below `/upload`"),
    place("full-user-dir", "/upload/{n}", "directory below `/upload` with a file in it"),
    place("sent-mirror", "/sent/{n}", "mirror of a directory in `/sent`"),
    place("missing", "/upload/{n}", "free name in `/upload`"),
    place("missing-in-missing-dir", "/upload/{n}/x", "name in a directory that does not exist"),
    place("bad-name", "/upload/{n}.", "name that breaks a naming rule"),
    place("missing-sent", "/sent/{n}", "missing name in `/sent`"),
    place("missing-inbox", "/inbox/{n}", "missing name in `/inbox`"),
    place("inbox-entry", "/inbox/{n}", "entry of `/inbox`"),
    place("outside", "/{n}", "name beside the four directories"),
    place("receiving", "/upload/{n}", "being uploaded by this session"),
    place("receiving-elsewhere", "/upload/{n}", "being uploaded by another session"),
    place("partial", "/upload/{n}", "interrupted upload").once("partial"),
    place("held", "/upload/{n}.filepart", "complete under its temp name").once("held"),
    place("accepted", "/upload/{n}", "accepted, not looked at by a worker yet").once("committed"),
    place("committed", "/upload/down/{n}", "accepted, waiting for another try at its destination")
        .once("committed"),
    place("delivering", "/upload/slow/{n}", "accepted, being delivered").once("delivering"),
    place("quarantined", "/upload/slow/{n}", "accepted, kept back for the operator").once("quarantined"),
    place("processed", "/upload/{n}", "delivered, asked for where it was put").once("processed"),
    place("sent-entry", "/sent/{n}", "delivered, in `/sent`").once("processed"),
    place("failed-entry", "/failed/nowhere/{n}", "failed, in `/failed`").once("failed"),
    place("deleted", "/sent/{n}", "delivered, removed from `/sent`").once("processed"),
];

/// One cell to walk.
struct Step {
    request: &'static str,
    name: String,
    path: String,
}

/// A step for every request.
fn steps(place: &Place) -> Vec<Step> {
    let step = |(number, asked): (usize, &requests::Asked)| {
        let name = format!("{}-{number}", place.name);
        Step { request: asked.name, path: place.path.replace("{n}", &name), name }
    };
    requests::ALL.iter().enumerate().map(step).collect()
}

/// Brings about `quarantined`: kills the worker while it delivers what the place is about. A worker that is started then
/// finds that its former self died on all of it, which is once too often by the config. Leaves none running.
pub(super) async fn quarantine(gate: &mut Gate) -> Result<()> {
    let place = ALL.iter().find(|place| place.name == "quarantined").context("the place is in the table")?;
    let steps = steps(place);
    let (_connection, mut raw) = gate.raw("acme").await?;
    for step in &steps {
        raw.put(&place.upload(&step.name), &payload::bytes(1, 1000)).await?;
    }
    wait(gate, place, &steps, "delivering").await?;
    gate.kill_role("worker")?;
    gate.launch_role("worker").await?;
    wait(gate, place, &steps, "quarantined").await?;
    gate.kill_role("worker")
}

/// Brings about the place once for every request, asks all of them at once, and collects what they are answered.
pub(super) async fn walk(gate: &Gate, place: &Place) -> Result<Vec<Cell>> {
    let (_connection, mut raw) = gate.raw("acme").await?;
    let steps = steps(place);
    let mut elsewhere = None;
    for step in &steps {
        arrange(gate, &mut raw, &mut elsewhere, place, step)
            .await
            .with_context(|| format!("arranging for {}", step.request))?;
    }
    if let Some(state) = place.state {
        wait(gate, place, &steps, state).await?;
    }
    let mut sent = Vec::new();
    for step in &steps {
        if place.name == "deleted" {
            raw.call(Request::Remove { path: step.path.as_bytes() }).await?.ok()?;
        }
        requests::prepare(&mut raw, step.request, &step.path).await?;
        sent.push(requests::send(&mut raw, step.request, &step.path).await?);
    }
    let mut cells = Vec::new();
    for (step, id) in steps.iter().zip(sent) {
        let reply = raw.reply_to(id).await.with_context(|| format!("{} {}", step.request, step.path))?;
        let target = requests::target(step.request, &step.path);
        let whole = [(step.path.as_str(), "PATH"), (target.as_str(), "TARGET")];
        let (answer, text) = told(&reply, &whole, &step.name);
        let cell = Cell { request: step.request.to_owned(), place: place.name.to_owned(), answer, text };
        check_refusal(&cell, &reply)?;
        cells.push(cell);
        if let Ok(handle) = reply.handle() {
            raw.call(Request::Close { handle: &handle }).await?;
        }
    }
    drop(elsewhere);
    Ok(cells)
}

/// Brings about what the client's side of a place is. A second session stays in `elsewhere`.
async fn arrange(
    gate: &Gate,
    raw: &mut Raw,
    elsewhere: &mut Option<(Connection, Raw)>,
    place: &Place,
    Step { name, path, .. }: &Step,
) -> Result<()> {
    let upload = place.upload(name);
    let data = payload::bytes(1, 1000);
    match place.name {
        "user-dir" | "full-user-dir" | "sent-mirror" => {
            let dir = format!("/upload/{name}");
            raw.call(Request::Mkdir { path: dir.as_bytes() }).await?.ok()?;
            if place.name == "full-user-dir" {
                raw.stream(&format!("{dir}/held.filepart"), W_C_T, Attrs::none(), b"held").await?;
            }
        }
        "inbox-entry" => {
            let path = path.as_str();
            gate.cli.run(&["inbox", "add", "--account", "acme", "--path", path, "--size", "1000"]).await?;
        }
        "receiving" => {
            let handle = raw.open(path, W_C_T, Attrs::none()).await?;
            raw.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
        }
        "receiving-elsewhere" => {
            if elsewhere.is_none() {
                *elsewhere = Some(gate.raw("acme").await?);
            }
            let (_connection, other) = elsewhere.as_mut().context("another session")?;
            let handle = other.open(path, W_C_T, Attrs::none()).await?;
            other.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
        }
        "partial" => {
            let handle = raw.open(path, W_C_T, Attrs::sized(2000)).await?;
            raw.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
            raw.call(Request::Close { handle: &handle }).await?.refused(4)?;
        }
        "held" => {
            raw.stream(path, W_C_T, Attrs::none(), &data).await?;
        }
        // See [`quarantine`].
        "quarantined" => {}
        _ if place.state.is_some() => {
            raw.put(&upload, &data).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Waits until every upload that the place is about is in `state`.
async fn wait(gate: &Gate, place: &Place, steps: &[Step], state: &str) -> Result<()> {
    let paths: Vec<String> = steps.iter().map(|step| place.upload(&step.name)).collect();
    until_true(SETTLE, &format!("all of {} to be {state}", place.name), || async {
        let rows = gate.uploads().await?;
        let there = rows.iter().filter(|row| paths.contains(&row.path) && row.state == state);
        // Waiting for another try only after the first one.
        let tried = |row: &&_| place.name != "committed" || was_tried(row);
        let count = there.filter(tried).count();
        ensure!(count <= paths.len(), "{count} versions");
        Ok(count == paths.len())
    })
    .await
}

fn was_tried(row: &dropgate_integration_tests::harness::records::UploadRow) -> bool {
    row.deliveries.iter().any(|delivery| delivery["state"] == "retry_wait")
}
