//! Takes one client through all cases at a gate of its own, and looks at the gate after each.

mod look;
mod uploads;

use super::{Answer, Case, Cell, Client, Row, Said, Step, Words};
use crate::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, clients::Desk, payload},
};
use anyhow::{Result, bail, ensure};
use std::path::PathBuf;

/// The account that all clients log in as.
pub const ACCOUNT: &str = "acme";

/// Larger than this is refused: a little more than the largest good file.
const LARGEST: usize = 21_000_000;

/// What a client's own words remark in the table.
const OWN_WORDS: &str = "shows words of its own in place of the server's sentence";

/// A client at work.
struct Trial<'a, C> {
    client: &'a C,
    gate: &'a Gate,
    desk: &'a Desk,
    ledger: Ledger,
}

/// A gate and a desk for one client.
pub struct Stand {
    /// The gate.
    pub gate: Gate,
    /// Where the client runs.
    pub desk: Desk,
}

impl Stand {
    /// Starts the gate.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn open() -> Result<Self> {
        let config = format!("[gateway.uploads]\nmax_bytes = {LARGEST}\n");
        let gate = Gate::start(Setup::default().config(config).accounts(&[ACCOUNT])).await?;
        let desk = Desk::new(&gate, ACCOUNT)?;
        Ok(Self { gate, desk })
    }

    /// Tries every case, and checks every invariant at the end.
    ///
    /// # Errors
    /// If a case does not hold; the message names all that don't.
    pub async fn row<C: Client>(&self, client: &C) -> Result<Row> {
        let trial = Trial { client, gate: &self.gate, desk: &self.desk, ledger: Ledger::in_memory() };
        let mut row = Row { client: client.name(), cells: Vec::new() };
        let mut failures = Vec::new();
        for case in Case::ALL {
            match trial.cell(case).await {
                Ok(cell) => row.cells.push((case, cell)),
                Err(e) => failures.push(format!("{}: {e:#}", case.heading())),
            }
        }
        ensure!(failures.is_empty(), "{} fails in {}", row.client, failures.join("\n\n"));
        verify(&self.gate, &trial.ledger).await?;
        Ok(row)
    }
}

impl<C: Client> Trial<'_, C> {
    async fn cell(&self, case: Case) -> Result<Cell> {
        match case {
            Case::Put => self.put().await,
            Case::Empty => self.sized("/upload/empty", 0).await,
            Case::Large => self.sized("/upload/large.bin", 20 << 20).await,
            Case::Overwrite => self.overwrite().await,
            Case::Times => self.times().await,
            Case::Resume => self.resume().await,
            Case::Tree => self.tree().await,
            Case::Rename => self.rename().await,
            Case::Stat => self.stat().await,
            Case::List => self.list().await,
            Case::Names => self.names().await,
            Case::AtOnce => self.at_once().await,
            Case::Sync => self.sync().await,
            Case::Get => self.get().await,
            Case::Remove => self.remove().await,
            Case::Bad => self.bad().await,
        }
    }

    /// A local file with bytes that follow from its name and length.
    fn file(&self, name: &str, length: usize) -> Result<(PathBuf, Vec<u8>)> {
        let seed = name.bytes().fold(length as u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        let (path, data) = (self.desk.local(name), payload::bytes(seed, length));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &data)?;
        Ok((path, data))
    }

    /// A step that must go well, or that the client can't do.
    async fn good(&self, step: Step<'_>) -> Result<Result<String, &'static str>> {
        match self.client.take(step).await? {
            Answer::Ended(Said { ok: true, text }) => Ok(Ok(text)),
            Answer::Ended(Said { ok: false, text }) => bail!("{step:?} failed: {text}"),
            Answer::Cannot(why) => Ok(Err(why)),
        }
    }

    /// A step that must fail, with this sentence of the gate, or that the client can't do.
    async fn refused(&self, step: Step<'_>, sentence: &str) -> Result<Cell> {
        match self.client.take(step).await? {
            Answer::Ended(Said { ok: true, text }) => bail!("{step:?} went well: {text}"),
            Answer::Ended(Said { ok: false, text }) => {
                let (words, cell) = match self.client.words() {
                    Words::OfTheGate => (sentence, Cell::Yes),
                    Words::Own(words) => (words, Cell::In("yes", Some(OWN_WORDS))),
                };
                ensure!(text.contains(words), "{step:?} was refused without {words:?}: {text}");
                Ok(cell)
            }
            Answer::Cannot(why) => Ok(Cell::Cannot(why)),
        }
    }
}
