//! The dropgate program: parses the command line, reads the config, starts roles or runs one command.

mod cli;
mod commands;
mod config;
mod exit;
mod logging;
mod since;
mod start;
mod table;

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Cli, Command, Global, Start};
use dropgate_backends::Role;
use start::Roles;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Run(start) => roles(Roles::All, &start, global),
        Command::Gateway(start) => roles(Roles::One(Role::Gateway), &start, global),
        Command::Worker(start) => roles(Roles::One(Role::Worker), &start, global),
        Command::Ops(start) => roles(Roles::One(Role::Ops), &start, global),
        Command::Config(command) => one_command(commands::config::run(&command, global)),
        Command::Hostkey(command) => one_command(commands::hostkey::run(command, global)),
        Command::Account(command) => one_command(commands::account::run(command, global)),
        Command::Inbox(command) => one_command(commands::inbox::run(command, global)),
        Command::Uploads(command) => one_command(commands::uploads::run(command, global)),
        Command::Audit(command) => one_command(commands::audit::run(command, global)),
        Command::Token(command) => one_command(commands::token::run(command, global)),
        Command::Detect(command) => one_command(commands::detect::run(command, global)),
        Command::Status(json) => one_command(commands::status::run(json, global)),
    }
}

/// Roles use every processor.
fn roles(roles: Roles, start: &Start, global: &Global) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().context("the async runtime can't be started")?;
    let ended = runtime.block_on(start::run(roles, start, global));
    // What still blocks on a disk must not keep the process.
    runtime.shutdown_background();
    ended
}

/// A command is one thing after another.
fn one_command(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("the async runtime can't be started")?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}
