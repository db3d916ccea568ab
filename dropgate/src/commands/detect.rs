//! `dropgate detect`: what files would be called if a partner uploaded them, for writing routes.

use super::account::say;
use crate::{
    cli::{Detect, Global, Start},
    config::Loaded,
    exit::Usage,
    table::Table,
};
use anyhow::{Context as _, bail};
use dropgate_gateway::ingest::content_type::{ContentTypeConfig, Detector, Edges};
use dropgate_schemas::content::ContentType;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Runs `detect`.
///
/// # Errors
/// If a file can't be read.
pub(crate) async fn run(command: Detect, global: &Global) -> anyhow::Result<()> {
    let config = Loaded::read(global, &Start::default())?.config.gateway.content_type;
    if command.model && !config.learned {
        bail!(Usage("--model needs the model: gateway.content_type.learned is false".to_owned()));
    }
    // No client waits here, and nothing else wants the processor.
    let detector = Detector::new(&ContentTypeConfig { budget_ms: 60_000, cpu_percent: 100_000, ..config });
    let mut all = Vec::new();
    for file in command.files {
        let edges = edges(&file).with_context(|| format!("{} can't be read", file.display()))?;
        let begun = Instant::now();
        let found = if command.model {
            detector.ask_model(&edges).await
        } else {
            Some(detector.detect(&edges).await)
        };
        all.push(Named { file, found, took: begun.elapsed() });
    }
    if command.json.json {
        return say(&serde_json::to_string_pretty(&all.iter().map(Named::as_json).collect::<Vec<_>>())?);
    }
    let mut table = Table::new(["FILE", "LABEL", "TYPE", "FOUND BY", "SCORE"]).right(4);
    for named in &all {
        table.row(named.cells());
    }
    say(table.to_string().trim_end())
}

struct Named {
    file: PathBuf,
    /// None where the model has too little to look at.
    found: Option<ContentType>,
    took: Duration,
}

impl Named {
    fn as_json(&self) -> Value {
        json!({ "file": self.file, "content_type": self.found, "took_ms": self.took.as_secs_f64() * 1000.0 })
    }

    fn cells(&self) -> [String; 5] {
        let file = self.file.display().to_string();
        match &self.found {
            None => [file, String::new(), String::new(), String::new(), String::new()],
            Some(found) => [
                file,
                found.label.clone(),
                found.mime.clone(),
                found.found_by.clone(),
                found.score().unwrap_or_default(),
            ],
        }
    }
}

fn edges(file: &Path) -> std::io::Result<Edges> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut edges = Edges::default();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(edges);
        }
        edges.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}
