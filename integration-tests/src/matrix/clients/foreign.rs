//! Libraries of other languages, each behind a small program in `integration-tests/clients` that takes a step as its
//! command line.

use crate::{
    harness::{
        cli::Outcome,
        clients::{Desk, installed},
        gate::password,
    },
    matrix::{Answer, Client, Step, Words},
};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// A program that knows the steps by name. What its library has nothing for is `cannot`.
pub struct Foreign<'a> {
    /// Where it runs.
    pub desk: &'a Desk,
    /// Its name in the table.
    pub name: &'static str,
    /// The program and its first arguments.
    pub program: PathBuf,
    /// The arguments before the step.
    pub arguments: Vec<String>,
    /// More environment.
    pub env: Vec<(&'static str, PathBuf)>,
    /// What a refusal looks like.
    pub words: Words,
    /// Whether it says that an upload went well only after the answer to CLOSE.
    pub waits_for_close: bool,
    /// Steps that its library does not have, by name, and why.
    pub cannot: &'static [(&'static str, &'static str)],
}

/// Where the programs lie.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

impl<'a> Foreign<'a> {
    /// A script for Python.
    ///
    /// # Errors
    /// If Python's libraries are not installed.
    pub fn python(desk: &'a Desk, name: &'static str, script: &str) -> Result<Self> {
        let arguments = vec!["-B".to_owned(), format!("{SOURCES}/python/{script}")];
        Ok(Self::new(desk, name, installed("python/bin/python3")?, arguments))
    }

    /// A script for Node.js.
    ///
    /// # Errors
    /// If Node.js' libraries are not installed.
    pub fn node(desk: &'a Desk, name: &'static str, script: &str) -> Result<Self> {
        let arguments = vec![format!("{SOURCES}/node/{script}")];
        let client = Self::new(desk, name, installed("node/bin/node")?, arguments);
        // It would look for libraries beside the script.
        Ok(Self { env: vec![("NODE_PATH", installed("node/node_modules")?)], ..client })
    }

    /// The program in Go.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn go(desk: &'a Desk, name: &'static str) -> Result<Self> {
        let client = Self::new(desk, name, installed("go/client")?, Vec::new());
        Ok(Self { words: Words::Own("permission denied"), ..client })
    }

    /// The program in Java, with one of its libraries.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn java(desk: &'a Desk, name: &'static str, library: &str) -> Result<Self> {
        let built = installed("java/target")?.display().to_string();
        let arguments = ["-cp", &format!("{built}/classes:{built}/dependency/*"), "Main", library];
        Ok(Self::new(desk, name, PathBuf::from("java"), arguments.map(ToOwned::to_owned).to_vec()))
    }

    /// The file system.
    #[must_use]
    pub fn sshfs(desk: &'a Desk) -> Self {
        let client = Self::new(desk, "sshfs", PathBuf::from("sh"), vec![format!("{SOURCES}/sshfs/sshfs.sh")]);
        Self {
            words: Words::Own("ermission denied"),
            waits_for_close: false,
            cannot: &[
                ("sync", "has no such mode"),
                ("resume", "what copies to it decides; `cp` begins anew"),
            ],
            ..client
        }
    }

    fn new(desk: &'a Desk, name: &'static str, program: PathBuf, arguments: Vec<String>) -> Self {
        let cannot = &[("sync", "has no such mode")];
        Self {
            desk,
            name,
            program,
            arguments,
            env: Vec::new(),
            words: Words::OfTheGate,
            waits_for_close: true,
            cannot,
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A step as such programs take it.
fn words(step: Step<'_>) -> (&'static str, Vec<String>) {
    match step {
        Step::Put { local, remote } => ("put", vec![text(local), remote.to_owned()]),
        Step::PutWithTimes { local, remote } => ("put-with-times", vec![text(local), remote.to_owned()]),
        Step::PutRenamed { local, remote } => ("put-renamed", vec![text(local), remote.to_owned()]),
        Step::PutAndStat { local, remote } => ("put-and-stat", vec![text(local), remote.to_owned()]),
        Step::Resume { local, remote } => ("resume", vec![text(local), remote.to_owned()]),
        Step::PutTree { local, remote } => ("put-tree", vec![text(local), remote.to_owned()]),
        Step::PutAtOnce { files } => {
            ("put-at-once", files.iter().flat_map(|(local, remote)| [text(local), remote.clone()]).collect())
        }
        Step::Sync { local, remote } => ("sync", vec![text(local), remote.to_owned()]),
        Step::List { remote } => ("list", vec![remote.to_owned()]),
        Step::Get { remote, local } => ("get", vec![remote.to_owned(), text(local)]),
        Step::Remove { remote } => ("remove", vec![remote.to_owned()]),
    }
}

impl Client for Foreign<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn words(&self) -> Words {
        self.words
    }

    fn waits_for_close(&self) -> bool {
        self.waits_for_close
    }

    async fn take(&self, step: Step<'_>) -> Result<Answer> {
        let (name, rest) = words(step);
        if let Some((_, why)) = self.cannot.iter().find(|(step, _)| *step == name) {
            return Ok(Answer::Cannot(why));
        }
        Ok(self.run(&[&[name.to_owned()], rest.as_slice()].concat()).await?.into())
    }
}

impl Foreign<'_> {
    /// Runs the program with more arguments.
    ///
    /// # Errors
    /// If it can't be run or takes too long.
    pub async fn run(&self, more: &[String]) -> Result<Outcome> {
        let desk = self.desk;
        desk.run(&self.program, |command| {
            command.args(&self.arguments).args(more);
            command.env("GATE_HOST", desk.server.ip().to_string());
            command.env("GATE_PORT", desk.server.port().to_string());
            command.env("GATE_USER", &desk.account).env("GATE_PASSWORD", password(&desk.account));
            command.env("GATE_KEY", &desk.key).env("GATE_KNOWN_HOSTS", desk.known_hosts());
            command.envs(self.env.iter().cloned());
        })
        .await
    }
}
