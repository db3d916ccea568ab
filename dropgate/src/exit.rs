//! What the process ends with.

use std::{fmt, process::ExitCode};

/// The command line or the config is wrong: nothing was begun.
const USAGE: u8 = 2;
/// It was right, but could not be done.
const FAILED: u8 = 1;

/// Wrong usage: the process ends with code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints what went wrong on standard error and says how to end.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader has seen enough (`dropgate uploads list | head`).
        return ExitCode::SUCCESS;
    }
    let mut said = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some causes repeat themselves in the text above them.
        if said.contains(&text) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&text);
    }
    let lines = said.lines().map(|line| format!("dropgate: {}\n", crate::logging::escape(line)));
    eprint!("{}", lines.collect::<String>());
    let usage = error.chain().any(|cause| cause.is::<Usage>() || cause.is::<crate::config::Problems>());
    ExitCode::from(if usage { USAGE } else { FAILED })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
