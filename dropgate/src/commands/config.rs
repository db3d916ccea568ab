//! `dropgate config`: what is wrong with the settings, and what is in effect.

use super::{account::say, open::Open};
use crate::{
    cli::{ConfigCommand, Global, Json, Start},
    config::{Loaded, Problem, Problems, print, print_json},
};
use anyhow::bail;
use dropgate_workers::config::{check_accounts, or_embedded};

/// Runs `config check` or `config print`.
///
/// # Errors
/// Every problem of the settings.
pub(crate) async fn run(command: &ConfigCommand, global: &Global) -> anyhow::Result<()> {
    let loaded = Loaded::read(global, &Start::default())?;
    match command {
        ConfigCommand::Check => check(&loaded, global).await,
        ConfigCommand::Print(Json { json: false }) => say(print(&loaded.config)?.trim_end()),
        ConfigCommand::Print(Json { json: true }) => {
            say(&serde_json::to_string_pretty(&print_json(&loaded.config)?)?)
        }
    }
}

/// Looks at the accounts as well, where there are some: an upload that no route takes fails.
async fn check(loaded: &Loaded, global: &Global) -> anyhow::Result<()> {
    let config = &loaded.config;
    let name =
        global.config.as_ref().map_or("the embedded defaults".into(), |file| file.display().to_string());
    if config.data_dir.exists() {
        let open = Open::existing(global).await?;
        let accounts = open.accounts().await;
        open.close().await;
        let (_, routes) = or_embedded(config.destination.clone(), config.route.clone())?;
        let problems = check_accounts(&routes, &accounts?);
        if !problems.is_empty() {
            let placed: Vec<Problem> = problems.into_iter().map(|problem| loaded.placed(problem)).collect();
            bail!(Problems::from(placed));
        }
    }
    say(&format!("{name}: no problems"))
}
