//! The contract as data: `contract.tsv` says what each request answers at each place and in each state of an entry; here
//! every cell is walked over the wire. A cell that is missing, or answered otherwise, fails.

use anyhow::{Context as _, Result, bail, ensure};
use dropgate_integration_tests::{
    harness::{
        Gate, Setup, payload,
        sshd::{HostKeys, free_address, keypair},
    },
    raw::{Attrs, Body, Connection, Raw, Reply, Request, frame},
};
use std::{collections::BTreeMap, fmt::Write as _};

const TABLE: &str = include_str!("contract.tsv");
const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

const REQUESTS: [&str; 22] = [
    "open-write",
    "open-excl",
    "open-append",
    "open-read",
    "open-read-write",
    "stat",
    "lstat",
    "setstat-times",
    "setstat-size",
    "lsetstat-times",
    "opendir",
    "mkdir",
    "rmdir",
    "remove",
    "rename",
    "posix-rename",
    "readlink",
    "symlink",
    "hardlink",
    "statvfs",
    "realpath",
    "check-file-name",
];

/// Places whose meaning does not depend on an entry, and the path of each.
const PLACES: [(&str, &str); 13] = [
    ("root", "/"),
    ("upload", "/upload"),
    ("inbox", "/inbox"),
    ("sent", "/sent"),
    ("failed", "/failed"),
    ("user-dir", "/upload/{n}"),
    ("full-user-dir", "/upload/{n}"),
    ("sent-mirror", "/sent/{n}"),
    ("missing", "/upload/{n}"),
    ("missing-in-missing-dir", "/upload/{n}/x"),
    ("missing-sent", "/sent/{n}"),
    ("missing-inbox", "/inbox/{n}"),
    ("outside", "/{n}"),
];

/// States of an entry, and where it is asked for: `{n}` is a name of its own for every cell.
const STATES: [(&str, &str); 10] = [
    ("receiving", "/upload/{n}"),
    ("receiving-elsewhere", "/upload/{n}"),
    ("partial", "/upload/{n}"),
    ("held", "/upload/{n}.filepart"),
    ("committed", "/upload/down/{n}"),
    ("delivering", "/upload/slow/{n}"),
    ("processed", "/upload/{n}"),
    ("sent-entry", "/sent/{n}"),
    ("failed-entry", "/failed/nowhere/{n}"),
    ("deleted", "/sent/{n}"),
];

type Table = BTreeMap<(String, String), (String, String)>;

fn table() -> Result<Table> {
    let mut table = Table::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#') && !l.starts_with("request\t") && !l.is_empty())
    {
        let cells: Vec<&str> = line.split('\t').collect();
        let [request, place, answer, text] = cells[..] else { bail!("not four cells: {line:?}") };
        let before =
            table.insert((request.to_owned(), place.to_owned()), (answer.to_owned(), text.to_owned()));
        ensure!(before.is_none(), "{request} at {place} is there twice");
    }
    Ok(table)
}

/// A server where `down/` goes to a destination that refuses connections and is not tried again soon, `slow/` to one that
/// accepts them and says nothing, `nowhere/` to none, and everything else to a directory.
async fn gate(silent: std::net::SocketAddr) -> Result<Gate> {
    let scratch = dropgate_integration_tests::harness::Scratch::new(
        dropgate_integration_tests::harness::Medium::Memory,
    )?;
    let key = keypair(&scratch.join("key"))?;
    let host_key = std::fs::read_to_string(format!("{}.pub", HostKeys::shared()?.ed25519.display()))?;
    let mut config = String::from(
        "[workers]\nparallel = 200\nparallel_per_destination = 200\ndrain_seconds = 1\n[workers.retry]\nbase_seconds = 3600\nlongest_seconds = 3600\n\
         [workers.breaker]\nfailures = 100000\n[gateway.uploads]\nhandles = 1000\n\
         [gateway.listener.limits]\nnew_per_second_per_source = 10000\nnew_burst_per_source = 10000\n",
    );
    let nobody = free_address()?;
    for (name, address) in [("down", nobody), ("slow", silent)] {
        write!(
            config,
            "[[destination]]\nkind = \"sftp\"\nname = \"{name}\"\nhost = \"{}\"\nport = {}\nusername = \"u\"\nconnect_seconds = 3600\n\
             private_key = \"file:{}\"\nhost_keys = [\"{}\"]\n[[route]]\npath = \"{name}/**\"\ndestinations = [\"{name}\"]\n",
            address.ip(),
            address.port(),
            key.display(),
            host_key.trim()
        )?;
    }
    config.push_str(
        "[[destination]]\nkind = \"directory\"\nname = \"local\"\npath = \"delivered\"\ncreate = true\n\
         [[route]]\npath = \"*\"\ndestinations = [\"local\"]\n",
    );
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for dir in ["down", "slow", "nowhere"] {
        raw.call(Request::Mkdir { path: format!("/upload/{dir}").as_bytes() }).await?.ok()?;
    }
    Ok(gate)
}

/// Brings an entry called `name` into a state. What must stay alive for it is returned.
async fn arrange(
    gate: &Gate,
    raw: &mut Raw,
    place: &str,
    path: &str,
    name: &str,
) -> Result<Option<(Connection, Raw)>> {
    let upload = format!("/upload/{name}");
    let data = payload::bytes(1, 1000);
    match place {
        "user-dir" | "sent-mirror" => {
            raw.call(Request::Mkdir { path: upload.as_bytes() }).await?.ok()?;
        }
        "full-user-dir" => {
            raw.call(Request::Mkdir { path: upload.as_bytes() }).await?.ok()?;
            raw.stream(&format!("{upload}/held.filepart"), W_C_T, Attrs::none(), b"held").await?;
        }
        "receiving" => {
            let handle = raw.open(path, W_C_T, Attrs::none()).await?;
            raw.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
        }
        "receiving-elsewhere" => {
            let (connection, mut other) = gate.raw("acme").await?;
            let handle = other.open(path, W_C_T, Attrs::none()).await?;
            other.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
            return Ok(Some((connection, other)));
        }
        "partial" => {
            let handle = raw.open(path, W_C_T, Attrs::sized(2000)).await?;
            raw.call(Request::Write { handle: &handle, offset: 0, data: &data }).await?.ok()?;
            raw.call(Request::Close { handle: &handle }).await?.status()?;
            gate.upload_in("acme", path, "partial").await?;
        }
        "held" => {
            raw.stream(path, W_C_T, Attrs::none(), &data).await?;
        }
        "committed" => {
            raw.put(path, &data).await?;
            gate.event_about("delivery.deferred", path, 1).await?;
            gate.upload_in("acme", path, "committed").await?;
        }
        "delivering" => {
            raw.put(path, &data).await?;
            gate.upload_in("acme", path, "delivering").await?;
        }
        "processed" | "sent-entry" | "deleted" => {
            raw.put(&upload, &data).await?;
            gate.upload_in("acme", &upload, "processed").await?;
            if place == "deleted" {
                raw.call(Request::Remove { path: path.as_bytes() }).await?.ok()?;
            }
        }
        "failed-entry" => {
            let upload = format!("/upload/nowhere/{name}");
            raw.put(&upload, &data).await?;
            gate.upload_in("acme", &upload, "failed").await?;
        }
        _ => {}
    }
    Ok(None)
}

async fn ask(raw: &mut Raw, request: &str, path: &str) -> Result<Reply> {
    let bytes = path.as_bytes();
    let beside = match path.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/renamed-{}", name.trim_end_matches(".filepart")),
        None => "renamed".to_owned(),
    };
    let to = beside.as_bytes();
    let times = Attrs::timed(1_600_000_000, 1_600_000_000);
    let open = |flags| Request::Open { path: bytes, flags, attrs: Attrs::none() };
    let mut check = Vec::new();
    for text in [bytes, b"sha256"] {
        check.extend_from_slice(&u32::try_from(text.len())?.to_be_bytes());
        check.extend_from_slice(text);
    }
    check.extend_from_slice(&[0; 20]);
    let request = match request {
        "open-write" => open(W_C_T),
        "open-excl" => open(frame::WRITE | frame::CREAT | frame::EXCL),
        "open-append" => open(frame::WRITE | frame::CREAT | frame::APPEND),
        "open-read" => open(frame::READ),
        "open-read-write" => open(frame::READ | W_C_T),
        "stat" => Request::Stat { path: bytes },
        "lstat" => Request::Lstat { path: bytes },
        "setstat-times" => Request::Setstat { path: bytes, attrs: times },
        "setstat-size" => Request::Setstat { path: bytes, attrs: Attrs::sized(7) },
        "lsetstat-times" => Request::Lsetstat { path: bytes, attrs: times },
        "opendir" => Request::Opendir { path: bytes },
        "mkdir" => Request::Mkdir { path: bytes },
        "rmdir" => Request::Rmdir { path: bytes },
        "remove" => Request::Remove { path: bytes },
        "rename" => Request::Rename { from: bytes, to },
        "posix-rename" => Request::PosixRename { from: bytes, to },
        "readlink" => Request::Readlink { path: bytes },
        "symlink" => Request::Symlink { target: bytes, link: to },
        "hardlink" => Request::Hardlink { from: bytes, to },
        "statvfs" => Request::Statvfs { path: bytes },
        "realpath" => Request::Realpath { path: bytes },
        "check-file-name" => Request::Extended { name: b"check-file-name", data: &check },
        other => bail!("{other} is no request of the table"),
    };
    raw.call(request).await
}

fn told(reply: &Reply) -> (String, String) {
    match &reply.body {
        Body::Status(code, text) => (code.to_string(), text.clone()),
        Body::Handle(_) => ("handle".to_owned(), String::new()),
        Body::Name(_) => ("name".to_owned(), String::new()),
        Body::Attrs(_) => ("attrs".to_owned(), String::new()),
        Body::Extended(_) => ("extended".to_owned(), String::new()),
        Body::Data(_) => ("data".to_owned(), String::new()),
        Body::Version(..) => ("version".to_owned(), String::new()),
    }
}

#[test]
fn the_table_has_every_cell_and_no_other() -> Result<()> {
    let table = table()?;
    for request in REQUESTS {
        for (place, _) in PLACES.iter().chain(&STATES) {
            let cell = table.get(&(request.to_owned(), (*place).to_owned()));
            ensure!(cell.is_some_and(|(answer, _)| !answer.is_empty()), "{request} at {place} is empty");
        }
    }
    ensure!(table.len() == REQUESTS.len() * (PLACES.len() + STATES.len()), "{} cells", table.len());
    Ok(())
}

#[tokio::test]
async fn every_cell_answers_as_the_table_says() -> Result<()> {
    // Accepts and says nothing: whatever is sent there stays on its way.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let gate = gate(silent.local_addr()?).await?;
    let table = table()?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let mut wrong = String::new();
    let mut walked = 0;
    for (place, pattern) in PLACES.iter().chain(&STATES) {
        for (number, request) in REQUESTS.iter().enumerate() {
            let name = format!("{place}-{number}");
            let path = pattern.replace("{n}", &name);
            let kept = arrange(&gate, &mut raw, place, &path, &name)
                .await
                .with_context(|| format!("arranging {place} for {request}"))?;
            let reply = ask(&mut raw, request, &path).await.with_context(|| format!("{request} {path}"))?;
            let (answer, text) = told(&reply);
            let expected =
                table.get(&((*request).to_owned(), (*place).to_owned())).context("the cell is there")?;
            let is_refusal =
                !matches!(answer.as_str(), "0" | "1") && answer.chars().all(|c| c.is_ascii_digit());
            // Looking at what is not there is no act that goes on record one by one, so it has no reference.
            let looks = matches!(*request, "stat" | "lstat" | "opendir" | "check-file-name");
            let refers = text.contains("[ref ") || (looks && answer == "2");
            let explains = !is_refusal || (refers && text.len() > 20);
            if answer != expected.0 || !text.contains(&expected.1) || !explains {
                writeln!(
                    wrong,
                    "{request}\t{place}\t{answer}\t{text}\t(table: {} {})",
                    expected.0, expected.1
                )?;
            }
            if let Ok(handle) = reply.handle() {
                raw.call(Request::Close { handle: &handle }).await?;
            }
            drop(kept);
            walked += 1;
        }
    }
    println!("{walked} cells");
    ensure!(wrong.is_empty(), "the wire says otherwise:\n{wrong}");
    drop(raw);
    gate.finish().await
}
