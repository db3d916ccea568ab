//! The contract as data: `contract/table.tsv` says what each request answers at each place, in each state of an entry and
//! on each kind of handle; here every cell is walked over the wire. A cell that is missing, or answered otherwise, fails.
//! `docs/contract.md`, the table for partners, is made from it.
//!
//! `UPDATE_CONTRACT=1 cargo test -p dropgate-integration-tests --test e2e contract::` writes both anew; read the diff before
//! you commit it: partners have built on what is there.

mod handles;
mod page;
mod places;
mod requests;
mod table;

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    harness::{
        Gate, Medium, Scratch, Setup,
        sshd::{HostKeys, free_address, keypair},
    },
    raw::{Body, Reply, Request},
};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{fmt::Write as _, net::SocketAddr};
use table::{Cell, Table};

/// Places that are walked at the same time, each over a session of its own.
const AT_ONCE: usize = 6;

/// A server where `down/` goes to a destination that refuses connections and is not tried again soon, `slow/` to one that
/// accepts them and says nothing, `nowhere/` to none, and everything else to a directory. A delivery on which a worker died
/// is kept back.
async fn gate(setup: Setup, silent: SocketAddr) -> Result<Gate> {
    let scratch = Scratch::new(Medium::Memory)?;
    let key = keypair(&scratch.join("key"))?;
    let host_key = std::fs::read_to_string(format!("{}.pub", HostKeys::shared()?.ed25519.display()))?;
    let mut config = String::from(
        "[workers]\nparallel = 200\nparallel_per_destination = 200\ndrain_seconds = 1\n[workers.retry]\nbase_seconds = 3600\nlongest_seconds = 3600\ncrashes = 1\n\
         [workers.breaker]\nfailures = 100000\n[gateway.uploads]\nhandles = 1000\n\
         [gateway.listener.limits]\nnew_per_second_per_source = 10000\nnew_burst_per_source = 10000\nsessions_per_account = 1000\n\
         sessions_per_source = 1000\n",
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
    let gate = Gate::start(setup.config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for dir in ["down", "slow", "nowhere"] {
        raw.call(Request::Mkdir { path: format!("/upload/{dir}").as_bytes() }).await?.ok()?;
    }
    Ok(gate)
}

/// What a reply says, as the table has it: its status code or kind, and its text with what differs from run to run replaced.
fn told(reply: &Reply, whole: &[(&str, &str)], name: &str) -> (String, String) {
    let kind = |kind: &str| (kind.to_owned(), String::new());
    match &reply.body {
        Body::Status(code, text) => (code.to_string(), table::plain(text, whole, (name, "NAME"))),
        Body::Handle(_) => kind("handle"),
        Body::Name(_) => kind("name"),
        Body::Attrs(_) => kind("attrs"),
        Body::Extended(_) => kind("extended"),
        Body::Data(_) => kind("data"),
        Body::Version(..) => kind("version"),
    }
}

/// Every refusal has a sentence and a reference; looking for what is not there is no act that goes on record one by one.
fn check_refusal(cell: &Cell, reply: &Reply) -> Result<()> {
    let Body::Status(code, text) = &reply.body else { return Ok(()) };
    let looks = matches!(cell.request.as_str(), "stat" | "lstat" | "opendir" | "statvfs")
        || cell.request.starts_with("check-file-name");
    let silent = *code <= 1 || (looks && *code == 2);
    ensure!(silent || text.contains("[ref "), "{} at {}: no reference in {text:?}", cell.request, cell.place);
    ensure!(*code <= 1 || text.len() > 20, "{} at {}: {text:?} explains nothing", cell.request, cell.place);
    Ok(())
}

#[tokio::test]
async fn every_cell_answers_as_the_table_says() -> Result<()> {
    // Accepts and says nothing: whatever is sent there stays on its way.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut idle = gate(Setup::default().three_roles(), silent.local_addr()?).await?;
    places::quarantine(&mut idle).await?;
    let gate = gate(Setup::default(), silent.local_addr()?).await?;
    let walks = places::ALL.iter().map(|place| {
        let gate = if matches!(place.name, "accepted" | "quarantined") { &idle } else { &gate };
        async { places::walk(gate, place).await.with_context(|| format!("at {}", place.name)) }
    });
    let mut cells: Vec<Cell> =
        futures::stream::iter(walks).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?.concat();
    cells.extend(handles::walk(&gate).await?);
    println!("{} cells", cells.len());
    let walked = Table::of(cells)?;
    if std::env::var_os("UPDATE_CONTRACT").is_some() {
        walked.write()?;
        page::write(&walked)?;
    }
    let wrong = walked.compare(&Table::read()?);
    ensure!(wrong.is_empty(), "the wire says otherwise:\n{wrong}");
    gate.finish().await?;
    idle.launch_role("worker").await?;
    idle.finish().await
}

#[test]
fn the_table_has_every_cell_and_no_other() -> Result<()> {
    let table = Table::read()?;
    let by_path = places::ALL.iter().flat_map(|p| requests::ALL.iter().map(move |r| (r.name, p.name)));
    let by_handle =
        handles::HANDLES.iter().flat_map(|h| handles::REQUESTS.iter().map(move |r| (r.name, h.name)));
    let mut count = 0;
    for (request, place) in by_path.chain(by_handle) {
        let cell = table.get(request, place);
        ensure!(cell.is_some_and(|c| !c.answer.is_empty()), "{request} at {place} is empty");
        count += 1;
    }
    ensure!(table.len() == count, "{} cells instead of {count}", table.len());
    Ok(())
}

#[test]
fn the_page_for_partners_is_made_from_the_table() -> Result<()> {
    page::compare(&Table::read()?)
}
