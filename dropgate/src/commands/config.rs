//! `dropgate config`: what is wrong with the settings, and what is in effect.

use crate::{
    cli::{ConfigCommand, Global, Json, Start},
    config::{Loaded, print, print_json},
};
use std::io::Write as _;

/// Runs `config check` or `config print`.
///
/// # Errors
/// Every problem of the settings.
pub(crate) fn run(command: &ConfigCommand, global: &Global) -> anyhow::Result<()> {
    let loaded = Loaded::read(global, &Start::default())?;
    let mut out = std::io::stdout().lock();
    match command {
        ConfigCommand::Check => {
            let what =
                global.config.as_ref().map_or("the embedded defaults".into(), |f| f.display().to_string());
            writeln!(out, "{what}: no problems")?;
        }
        ConfigCommand::Print(Json { json: false }) => write!(out, "{}", print(&loaded.config)?)?,
        ConfigCommand::Print(Json { json: true }) => {
            writeln!(out, "{}", serde_json::to_string_pretty(&print_json(&loaded.config)?)?)?;
        }
    }
    Ok(())
}
