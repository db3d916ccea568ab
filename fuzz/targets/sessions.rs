//! Whole sessions on the real embedded stores: every request gets its answer, however the stream is cut, and what is
//! accepted was answered as accepted.
#![no_main]

use arbitrary::Arbitrary;
use client::{Client, Gate, Got, string};
use dropgate_backends::UploadQuery;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use tokio::runtime::{Builder, Runtime};

#[expect(dead_code, reason = "the client of the gateway's own tests, which use more of it")]
#[path = "../../gateway/tests/sftp/client.rs"]
mod client;
#[expect(dead_code, reason = "as above")]
#[path = "../../gateway/tests/sftp/shaky.rs"]
mod shaky;

#[derive(Arbitrary, Debug)]
enum Step {
    Open {
        path: u8,
        flags: u8,
        size: Option<u16>,
    },
    Write {
        handle: u8,
        offset: u32,
        data: Vec<u8>,
    },
    /// CLOSE, FSTAT, READDIR, READ, fsync.
    OnHandle {
        which: u8,
        handle: u8,
    },
    /// LSTAT, OPENDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT.
    OnPath {
        which: u8,
        path: u8,
    },
    Rename {
        from: u8,
        to: u8,
        replace: bool,
    },
    SetSize {
        path: u8,
        size: u16,
    },
    SetSizeOfHandle {
        handle: u8,
        size: u16,
    },
    /// A request with a number and anything behind it.
    Other {
        kind: u8,
        fields: Vec<u8>,
    },
    /// Bytes that may be no packet at all; the channel is over after them.
    Bytes(Vec<u8>),
    Reconnect,
}

#[derive(Arbitrary, Debug)]
struct Input {
    steps: Vec<Step>,
    cuts: Vec<u8>,
}

const PATHS: [&str; 14] = [
    "/upload/a",
    "/upload/b",
    "/upload/a.filepart",
    "/upload/b.filepart",
    "/upload/d",
    "/upload/d/a",
    "/upload/d/a.filepart",
    "/upload",
    "/sent/a",
    "/failed",
    "/inbox/x",
    "/",
    "/etc/passwd",
    "/upload/../a\u{202e}",
];
const INIT: u8 = 1;
const WRITE: u8 = 6;
/// More steps find nothing that fewer do not, and a run is to stay short.
const STEPS: usize = 40;
/// A gate is made anew after so many inputs, so that its stores stay small.
const INPUTS: u32 = 2000;

fn path(number: u8) -> Vec<u8> {
    string(PATHS[usize::from(number) % PATHS.len()].as_bytes())
}

/// Handles of a session are counted from 0.
fn handle(number: u8) -> Vec<u8> {
    string(&u32::from(number % 8).to_be_bytes())
}

fn size(size: u64) -> Vec<u8> {
    [&1_u32.to_be_bytes()[..], &size.to_be_bytes()].concat()
}

/// The type and the fields of a request.
fn request(step: &Step) -> Option<(u8, Vec<u8>)> {
    Some(match step {
        Step::Open { path: at, flags, size: told } => {
            let attrs = told.map_or_else(|| vec![0; 4], |told| size(u64::from(told)));
            (3, [path(*at), u32::from(*flags).to_be_bytes().to_vec(), attrs].concat())
        }
        Step::Write { handle: to, offset, data } => {
            let offset = u64::from(*offset % 300).to_be_bytes().to_vec();
            (WRITE, [handle(*to), offset, string(data)].concat())
        }
        Step::OnHandle { which, handle: of } => match which % 5 {
            0 => (4, handle(*of)),
            1 => (8, handle(*of)),
            2 => (12, handle(*of)),
            3 => (5, [handle(*of), vec![0; 12]].concat()),
            _ => (200, [string(b"fsync@openssh.com"), handle(*of)].concat()),
        },
        Step::OnPath { which, path: at } => {
            (*[7, 11, 13, 14, 15, 16, 17].get(usize::from(which % 7))?, [path(*at), vec![0; 4]].concat())
        }
        Step::Rename { from, to, replace: false } => (18, [path(*from), path(*to)].concat()),
        Step::Rename { from, to, replace: true } => {
            (200, [string(b"posix-rename@openssh.com"), path(*from), path(*to)].concat())
        }
        Step::SetSize { path: at, size: to } => (9, [path(*at), size(u64::from(*to))].concat()),
        Step::SetSizeOfHandle { handle: of, size: to } => (10, [handle(*of), size(u64::from(*to))].concat()),
        Step::Other { kind, fields } => (*kind, fields.clone()),
        Step::Bytes(_) | Step::Reconnect => return None,
    })
}

struct Run<'g> {
    gate: &'g Gate,
    client: Client,
    open: bool,
    id: u32,
    accepted: usize,
    cuts: std::vec::IntoIter<u8>,
}

impl Run<'_> {
    async fn step(&mut self, step: &Step) {
        let Some((kind, fields)) = request(step) else {
            match step {
                Step::Bytes(bytes) if self.open => {
                    let _ = self.client.feed(bytes).await;
                    self.open = false;
                }
                _ => {
                    std::mem::replace(&mut self.client, self.gate.client().await).disconnect().await;
                    self.open = true;
                }
            }
            return;
        };
        if !self.open {
            return;
        }
        self.id += 1;
        let packet = string(&[&[kind][..], &self.id.to_be_bytes(), &fields].concat());
        if self.feed(&packet).await {
            // Only a second INIT is without a number, and that ends the channel.
            assert_ne!(kind, INIT);
            let got = self.client.reply(self.id).await;
            self.accepted +=
                usize::from(matches!(got, Got::Status(0, text) if text.starts_with("accepted ")));
        } else {
            let well_formed = !matches!(step, Step::Other { .. });
            assert!(!well_formed, "the channel was closed after {step:?}");
            self.open = false;
        }
    }

    /// In pieces; false if the engine closes the channel.
    async fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let at = self.cuts.next().map_or(bytes.len(), |cut| usize::from(cut).clamp(1, bytes.len()));
            let (piece, rest) = bytes.split_at(at);
            if self.client.feed(piece).await.is_err() {
                return false;
            }
            bytes = rest;
        }
        true
    }
}

struct Place {
    runtime: Runtime,
    gate: Option<Gate>,
    inputs: u32,
}

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place {
        runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        gate: None,
        inputs: 0,
    });
}

fuzz_target!(|input: Input| {
    PLACE.with_borrow_mut(|place| {
        if place.inputs % INPUTS == 0 {
            place.gate = Some(place.runtime.block_on(Gate::start()));
        }
        place.inputs += 1;
        let gate = place.gate.as_mut().expect("there is one");
        gate.account.name = format!("f{}", place.inputs).parse().expect("a name");
        place.runtime.block_on(async {
            let client = gate.client().await;
            let mut run = Run { gate, client, open: true, id: 0, accepted: 0, cuts: input.cuts.into_iter() };
            for step in input.steps.iter().take(STEPS) {
                run.step(step).await;
            }
            let (gate, answered) = (run.gate, run.accepted);
            run.client.disconnect().await;
            let account = Some(gate.account.name.clone());
            let query = UploadQuery { account, limit: 1000, ..UploadQuery::default() };
            let uploads = gate.backends.state.find(query).await.expect("the store answers");
            let accepted = uploads.iter().filter(|upload| upload.state.is_accepted()).count();
            assert!(accepted <= answered, "{accepted} accepted, {answered} answered so");
        });
    });
});
