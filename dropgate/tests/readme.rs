//! The README claims nothing without a test: every test it names is there, and so is every command.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What stands between backticks, line by line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "data" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_and_counter_that_the_readme_names_exists() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let mut code = String::new();
    sources(&workspace(), &mut code);
    // Names of tests are sentences: nothing else has so many underscores.
    let named: Vec<&str> =
        quoted(&readme).filter(|word| word.matches('_').count() >= 3 && !word.contains(' ')).collect();
    assert!(named.len() >= 20, "{named:?}");
    let is_there = |name: &&str| match name.strip_prefix("dropgate_").and_then(|m| m.strip_suffix("_total")) {
        // A counter: the name that it is shown under.
        Some(_) => code.contains(&format!("\"{}\"", name.trim_end_matches("_total"))),
        None => code.contains(&format!("fn {name}(")),
    };
    let missing: Vec<&str> = named.into_iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "the README names tests or counters that are not there: {missing:?}");
}

#[test]
fn every_command_that_the_readme_shows_exists() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let mut checked = 0;
    for command in quoted(&readme).filter_map(|text| text.strip_prefix("dropgate ")) {
        let words: Vec<&str> = command.split_whitespace().take_while(|word| !word.starts_with('-')).collect();
        let subcommands: Vec<&str> =
            words.into_iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect();
        let help =
            Command::new(env!("CARGO_BIN_EXE_dropgate")).args(&subcommands).arg("--help").output().unwrap();
        assert!(help.status.success(), "dropgate {command}");
        let help = String::from_utf8(help.stdout).unwrap();
        for option in command.split_whitespace().filter(|word| word.starts_with("--") && *word != "--version")
        {
            assert!(help.contains(option), "dropgate {command}: {option} is not an option");
        }
        checked += 1;
    }
    assert!(checked >= 10);
}
