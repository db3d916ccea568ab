//! The tree against a simple reference: random requests of two sessions, lost connections, deaths of the gateway, steps of
//! worker and relay, each answer compared. `DROPGATE_MODEL_SEQUENCES` is their number, `DROPGATE_MODEL_SEED` repeats a run.

mod handle;
mod reference;

use crate::client::{self, Client, Gate, Got, string};
use dropgate_backends::{UploadQuery, state::UploadOrder};
use dropgate_gateway::{
    ingest::{LiveUploads, recover},
    sftp::attrs::Attrs,
};
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, OutboxKind, OutboxMessage, Subject},
    digest::Sha256,
    reason::{Reason, ReasonCode},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner},
};
use reference::{Expected, Place, Reference};
use sha2::Digest as _;
use std::{cell::RefCell, collections::HashMap, sync::Arc};

/// Sequences of a normal run.
const SEQUENCES: u32 = 2000;
/// A gate serves so many sequences, each with an account of its own, before its stores are made anew.
const SEQUENCES_OF_A_GATE: u32 = 250;
const SESSIONS: usize = 2;
const SLOTS: usize = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    write: bool,
    create: bool,
    truncate: bool,
    excl: bool,
    append: bool,
}

impl Flags {
    fn on_the_wire(self) -> u32 {
        let of = |set: bool, bit: u32| if set { bit } else { 0 };
        of(!self.write, 1)
            | of(self.write, client::WRITE)
            | of(self.create, client::CREAT)
            | of(self.truncate, client::TRUNC)
            | of(self.excl, client::EXCL)
            | of(self.append, client::APPEND)
    }
}

/// Where a WRITE begins.
#[derive(Clone, Copy, Debug)]
enum Offset {
    Start,
    /// Behind the bytes that are there without a gap.
    End,
    At(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Open { session: usize, slot: usize, path: &'static str, flags: Flags, size: Option<u64> },
    Write { session: usize, slot: usize, offset: Offset, length: usize },
    Fstat { session: usize, slot: usize },
    SetHandle { session: usize, slot: usize, size: Option<u64>, mtime: Option<u32> },
    Close { session: usize, slot: usize },
    Stat { session: usize, path: &'static str },
    SetPath { session: usize, path: &'static str, size: Option<u64>, mtime: Option<u32> },
    List { session: usize, path: &'static str },
    Remove { session: usize, path: &'static str },
    Mkdir { session: usize, path: &'static str },
    Rmdir { session: usize, path: &'static str },
    Rename { session: usize, from: &'static str, to: &'static str, replace: bool },
    Disconnect { session: usize },
    Restart,
    Deliver { path: &'static str, well: bool },
    Supersede,
}

/// Files, directories and names of both, so few that requests meet.
const NAMES: [&str; 7] = [
    "/upload/a",
    "/upload/a.filepart",
    "/upload/b",
    "/upload/b.filepart",
    "/upload/d",
    "/upload/d/a",
    "/upload/d/a.filepart",
];
const ELSEWHERE: [&str; 14] = [
    "/",
    "/upload",
    "/sent",
    "/failed",
    "/inbox",
    "/sent/a",
    "/sent/b",
    "/sent/d",
    "/sent/d/a",
    "/failed/a",
    "/failed/d",
    "/failed/d/a",
    "/inbox/a",
    "/etc",
];

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => prop::sample::select(&NAMES[..]), 1 => prop::sample::select(&ELSEWHERE[..])]
}

fn anywhere() -> impl Strategy<Value = &'static str> {
    prop_oneof![prop::sample::select(&NAMES[..]), prop::sample::select(&ELSEWHERE[..])]
}

fn size() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 1 => (0..12_u64).prop_map(Some)]
}

fn flags() -> impl Strategy<Value = Flags> {
    let chance = |of: f64| prop::bool::weighted(of);
    (chance(0.97), chance(0.9), chance(0.5), chance(0.1), chance(0.1))
        .prop_map(|(write, create, truncate, excl, append)| Flags { write, create, truncate, excl, append })
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0..SESSIONS, 0..SLOTS);
    let session = || 0..SESSIONS;
    let mtime = || prop::option::of(1..1000_u32);
    let offset = prop_oneof![
        2 => Just(Offset::Start),
        5 => Just(Offset::End),
        2 => (0..12_u64).prop_map(Offset::At)
    ];
    prop_oneof![
        12 => (at(), name(), flags(), size())
            .prop_map(|((session, slot), path, flags, size)| Step::Open { session, slot, path, flags, size }),
        14 => (at(), offset, 1..6_usize)
            .prop_map(|((session, slot), offset, length)| Step::Write { session, slot, offset, length }),
        2 => at().prop_map(|(session, slot)| Step::Fstat { session, slot }),
        2 => (at(), size(), mtime())
            .prop_map(|((session, slot), size, mtime)| Step::SetHandle { session, slot, size, mtime }),
        10 => at().prop_map(|(session, slot)| Step::Close { session, slot }),
        5 => (session(), anywhere()).prop_map(|(session, path)| Step::Stat { session, path }),
        2 => (session(), anywhere(), size(), mtime())
            .prop_map(|(session, path, size, mtime)| Step::SetPath { session, path, size, mtime }),
        3 => (session(), anywhere()).prop_map(|(session, path)| Step::List { session, path }),
        5 => (session(), anywhere()).prop_map(|(session, path)| Step::Remove { session, path }),
        4 => (session(), name()).prop_map(|(session, path)| Step::Mkdir { session, path }),
        2 => (session(), name()).prop_map(|(session, path)| Step::Rmdir { session, path }),
        7 => (session(), name(), name(), any::<bool>())
            .prop_map(|(session, from, to, replace)| Step::Rename { session, from, to, replace }),
        2 => session().prop_map(|session| Step::Disconnect { session }),
        1 => Just(Step::Restart),
        4 => (prop::sample::select(&NAMES[..]), prop::bool::weighted(0.7))
            .prop_map(|(path, well)| Step::Deliver { path, well }),
        3 => Just(Step::Supersede),
    ]
}

/// Steps as they come, and among them whole uploads: by chance alone few sequences come as far as an acceptance.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let upload = (0..SESSIONS, 0..SLOTS, name(), 0..6_usize).prop_map(|(session, slot, path, length)| {
        let flags = Flags { write: true, create: true, truncate: true, excl: false, append: false };
        let open = Step::Open { session, slot, path, flags, size: None };
        let write = Step::Write { session, slot, offset: Offset::Start, length };
        let close = Step::Close { session, slot };
        if length == 0 { vec![open, close] } else { vec![open, write, close] }
    });
    let part = prop_oneof![5 => step().prop_map(|step| vec![step]), 1 => upload];
    prop::collection::vec(part, 1..30).prop_map(|parts| parts.concat())
}

fn sha256(content: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(content).into())
}

/// The gateway and the reference, side by side.
struct Run<'g> {
    gate: &'g mut Gate,
    clients: Vec<Client>,
    handles: HashMap<(usize, usize), Vec<u8>>,
    reference: Reference,
    written: u8,
}

impl<'g> Run<'g> {
    async fn begin(gate: &'g mut Gate, number: u32) -> Self {
        gate.account.name = format!("m{number}").parse().unwrap();
        let clients = vec![gate.client().await, gate.client().await];
        Self { gate, clients, handles: HashMap::new(), reference: Reference::default(), written: 0 }
    }

    /// Takes a step on both sides and tells what each says, if it is a request.
    async fn step(&mut self, step: &Step) -> Option<(Expected, Got)> {
        let reference = &mut self.reference;
        match *step {
            Step::Open { session, slot, path, flags, size } => {
                let expected = reference.open(session, slot, path, flags, size);
                if expected == Expected::Unasked {
                    return None;
                }
                let client = &mut self.clients[session];
                let id = client.send_open(path, flags.on_the_wire(), size).await;
                let got = client.reply(id).await;
                if let Got::Handle(name) = &got {
                    self.handles.insert((session, slot), name.clone());
                }
                Some((expected, got))
            }
            Step::Write { session, slot, offset, length } => {
                let at = (session, slot);
                let end = reference.handles.get(&at).map_or(0, |handle| handle.content.len() as u64);
                let offset = match offset {
                    Offset::Start => 0,
                    Offset::End => end,
                    Offset::At(offset) => offset,
                };
                // No two WRITEs are alike, so that no two files are.
                let data: Vec<u8> = (0..length)
                    .map(|_| {
                        self.written = self.written.wrapping_add(1);
                        self.written
                    })
                    .collect();
                let expected = reference.write(at, offset, &data);
                let handle = self.handle(at);
                let got = self.clients[session].write(&handle, offset, &data).await;
                Some((expected, got))
            }
            Step::Fstat { session, slot } => {
                let expected = reference.fstat((session, slot));
                let handle = string(&self.handle((session, slot)));
                Some((expected, self.clients[session].ask(8, &handle).await))
            }
            Step::SetHandle { session, slot, size, mtime } => {
                let expected = reference.set_handle((session, slot), size, mtime);
                let fields = [string(&self.handle((session, slot))), attributes(size, mtime)].concat();
                self.asked(session, expected, 10, &fields).await
            }
            Step::Close { session, slot } => {
                let expected = reference.close((session, slot));
                let handle = self.handle((session, slot));
                self.handles.remove(&(session, slot));
                Some((expected, self.clients[session].close(&handle).await))
            }
            Step::Stat { session, path } => {
                let expected = reference.stat(session, path);
                Some((expected, self.clients[session].stat(path).await))
            }
            Step::SetPath { session, path, size, mtime } => {
                let expected = reference.set_path(session, path, size, mtime);
                let fields = [string(path.as_bytes()), attributes(size, mtime)].concat();
                self.asked(session, expected, 9, &fields).await
            }
            Step::List { session, path } => {
                let expected = reference.list(path);
                let client = &mut self.clients[session];
                Some(match expected {
                    Expected::Names(_) => {
                        let names = client.list(path).await;
                        (expected, Got::Names(names.into_iter().map(|name| (name, String::new())).collect()))
                    }
                    refused => (refused, client.ask(11, &string(path.as_bytes())).await),
                })
            }
            Step::Remove { session, path } => {
                let expected = reference.remove(path);
                Some((expected, self.clients[session].remove(path).await))
            }
            Step::Mkdir { session, path } => {
                let expected = reference.mkdir(path);
                Some((expected, self.clients[session].mkdir(path).await))
            }
            Step::Rmdir { session, path } => {
                let expected = reference.rmdir(path);
                Some((expected, self.clients[session].rmdir(path).await))
            }
            Step::Rename { session, from, to, replace } => {
                let expected = reference.rename(from, to, replace);
                let client = &mut self.clients[session];
                let fields = [string(from.as_bytes()), string(to.as_bytes())].concat();
                let got = match replace {
                    true => client.extended("posix-rename@openssh.com", &fields).await,
                    false => client.ask(18, &fields).await,
                };
                Some((expected, got))
            }
            Step::Disconnect { session } => {
                reference.disconnect(session);
                self.handles.retain(|at, _| at.0 != session);
                let next = self.gate.client().await;
                std::mem::replace(&mut self.clients[session], next).disconnect().await;
                None
            }
            Step::Restart => {
                reference.restart();
                self.restart().await;
                None
            }
            Step::Deliver { path, well } => {
                let place = if well { Place::Sent } else { Place::Failed };
                if reference.deliver(path, place) {
                    self.deliver(path, well).await;
                }
                None
            }
            Step::Supersede => {
                reference.supersede();
                self.supersede().await;
                None
            }
        }
    }

    async fn asked(
        &mut self,
        session: usize,
        expected: Expected,
        kind: u8,
        fields: &[u8],
    ) -> Option<(Expected, Got)> {
        if expected == Expected::Unasked {
            return None;
        }
        Some((expected, self.clients[session].ask(kind, fields).await))
    }

    /// The handle on the wire; one that never was, where none is open.
    fn handle(&self, at: (usize, usize)) -> Vec<u8> {
        self.handles.get(&at).cloned().unwrap_or_else(|| vec![0xff; 4])
    }

    /// The process is gone without a word, and its successor looks at what it left.
    async fn restart(&mut self) {
        // As if the second had passed after which an answer counts as received: what comes of lost answers is not asked here.
        let ids: Vec<_> = self.uploads().await.into_iter().map(|upload| upload.upload_id).collect();
        self.gate.backends.state.mark_answered(&ids).await.unwrap();
        self.clients.clear();
        self.handles.clear();
        self.gate.ingest.live = Arc::new(LiveUploads::default());
        let (instance, node) = self.gate.instance();
        recover(self.gate.backends.state.as_ref(), instance, &node).await.unwrap();
        for _ in 0..SESSIONS {
            self.clients.push(self.gate.client().await);
        }
    }

    async fn deliver(&self, path: &str, well: bool) {
        let here = |upload: &Upload| upload.path.as_str() == path && upload.state == UploadState::Committed;
        let found = self.uploads().await.into_iter().filter(here).max_by_key(|upload| upload.version);
        let mut upload = found.expect("the reference has it");
        if !well {
            upload.reason = Some(Reason::new(ReasonCode::NoRoute, "no route"));
        }
        let state = if well { UploadState::Processed } else { UploadState::Failed };
        self.gate.settle(upload, state).await;
    }

    /// What the relay does with versions that another one took the place of.
    async fn supersede(&self) {
        let state = &self.gate.backends.state;
        for entry in state.outbox_due(OutboxKind::Supersede, Timestamp::now(), 1000).await.unwrap() {
            let OutboxMessage::Supersede { older } = entry.message else { continue };
            let upload = state.upload(older).await.unwrap().unwrap();
            if upload.state != UploadState::Superseded {
                let by = Actor::System { id: "test".into() };
                let superseded =
                    Upload { state: UploadState::Superseded, superseded_by: entry.upload, ..upload };
                let change = Change {
                    subject: Subject::Upload { upload: Box::new(superseded), inline: None },
                    audit: vec![AuditEntry::new(Action::UploadSupersede, by, AuditResult::Ok)],
                    outbox: vec![],
                    durability: Durability::Visible,
                };
                state.apply(change).await.unwrap();
            }
            state.outbox_done(&[entry.id]).await.unwrap();
        }
    }

    async fn uploads(&self) -> Vec<Upload> {
        let query = UploadQuery {
            account: Some(self.gate.account.name.clone()),
            order: UploadOrder::NewestFirst,
            limit: 1000,
            ..UploadQuery::default()
        };
        self.gate.backends.state.find(query).await.unwrap()
    }

    /// What is stored as accepted, and not superseded, is what the reference holds, byte for byte.
    async fn end(self) -> Result<(), TestCaseError> {
        let state = |place: Place| match place {
            Place::Upload => UploadState::Committed,
            Place::Sent => UploadState::Processed,
            Place::Failed => UploadState::Failed,
        };
        let mut expected: Vec<_> = self
            .reference
            .files()
            .map(|(path, file)| {
                (path.clone(), state(file.place).to_string(), file.deleted, file.content.clone())
            })
            .collect();
        let mut stored = Vec::new();
        let current = |state: UploadState| state.is_accepted() && state != UploadState::Superseded;
        for upload in self.uploads().await.into_iter().filter(|upload| current(upload.state)) {
            let content = self.gate.content(&upload).await;
            stored.push((
                upload.path.to_string(),
                upload.state.to_string(),
                upload.deleted_at.is_some(),
                content,
            ));
        }
        expected.sort();
        stored.sort();
        for client in self.clients {
            client.disconnect().await;
        }
        prop_assert_eq!(stored, expected, "stored and expected");
        Ok(())
    }
}

fn attributes(size: Option<u64>, mtime: Option<u32>) -> Vec<u8> {
    let mut fields = Vec::new();
    Attrs { size, times: mtime.map(|mtime| (mtime, mtime)), ..Attrs::default() }.encode(&mut fields);
    fields
}

fn agree(expected: &Expected, got: &Got) -> bool {
    match (expected, got) {
        (Expected::Status(code), Got::Status(is, _)) => code == is,
        (Expected::Said(text), Got::Status(reference::OK, said)) => said.starts_with(text),
        (Expected::Handle, Got::Handle(_)) => true,
        (Expected::Directory, Got::Attrs { mode, .. }) => mode & 0o170_000 == 0o040_000,
        (Expected::File { size, mtime }, Got::Attrs { size: is, mode, mtime: when }) => {
            size == is && mode & 0o170_000 == 0o100_000 && mtime.is_none_or(|mtime| mtime == *when)
        }
        (Expected::Names(names), Got::Names(is)) => names.iter().eq(is.iter().map(|(name, _)| name)),
        _ => false,
    }
}

async fn sequence(gate: &mut Gate, number: u32, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut run = Run::begin(gate, number).await;
    for (at, step) in steps.iter().enumerate() {
        if let Some((expected, got)) = run.step(step).await {
            prop_assert!(
                agree(&expected, &got),
                "step {at}, {step:?}: the reference says {expected:?}, the gateway {got:?}"
            );
        }
    }
    run.supersede().await;
    run.reference.supersede();
    run.end().await
}

fn from_environment<N: std::str::FromStr>(name: &str) -> Option<N> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().ok().unwrap_or_else(|| panic!("{name} is no number: {text}")))
}

#[test]
fn the_tree_agrees_with_a_simple_reference() {
    let sequences = from_environment("DROPGATE_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let seed = from_environment("DROPGATE_MODEL_SEED").unwrap_or_else(rand::random::<u64>);
    let config = Config {
        cases: sequences,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (gate, number) = (RefCell::new(None), RefCell::new(0_u32));
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let (mut gate, mut number) = (gate.borrow_mut(), number.borrow_mut());
        if *number % SEQUENCES_OF_A_GATE == 0 {
            *gate = Some(runtime.block_on(Gate::start()));
        }
        *number += 1;
        runtime.block_on(sequence(gate.as_mut().unwrap(), *number, &steps))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            panic!("DROPGATE_MODEL_SEED={seed} finds: {why}\nafter shrinking: {steps:#?}")
        }
        Err(TestError::Abort(why)) => panic!("DROPGATE_MODEL_SEED={seed}: {why}"),
    }
}
