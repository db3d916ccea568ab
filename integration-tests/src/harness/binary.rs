//! Finds the real program. It is never replaced by anything.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `dropgate` to test: `DROPGATE_BIN`, or the one beside this test's own build, brought up to date with
/// `cargo build -p dropgate` once a process, so that an old one is never tested.
///
/// # Errors
/// If it can't be built or found.
pub fn dropgate() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}")));
    match found {
        Ok(path) => Ok(path.clone()),
        Err(e) => bail!("{e}"),
    }
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DROPGATE_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "DROPGATE_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    build(&["-p", "dropgate"], "dropgate")
}

/// An example of this package: the one in `DROPGATE_EXAMPLES`, or brought up to date.
///
/// # Errors
/// If it can't be found or built.
pub fn example(name: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("DROPGATE_EXAMPLES") {
        let path = PathBuf::from(directory).join(name);
        ensure!(path.is_file(), "{} is not there: DROPGATE_EXAMPLES leads nowhere", path.display());
        return Ok(path);
    }
    build(&["-p", env!("CARGO_PKG_NAME"), "--example", name], &format!("examples/{name}"))
}

fn build(what: &[&str], file: &str) -> Result<PathBuf> {
    let profile = profile_dir()?;
    let what_for_people = what.join(" ");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet"]).args(what).current_dir(workspace()?);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    let built = build.output().with_context(|| format!("running cargo build {what_for_people}"))?;
    ensure!(
        built.status.success(),
        "cargo build {what_for_people} failed:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let path = profile.join(file);
    ensure!(path.is_file(), "{} is not there after cargo build {what_for_people}", path.display());
    Ok(path)
}

/// `target/debug` or `target/release`: where this very program was built to.
///
/// # Errors
/// If this program does not lie in a target directory.
pub fn profile_dir() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dir = me.parent().context("no parent")?;
    let dir = if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.parent().context("no parent")?
    } else {
        dir
    };
    Ok(dir.to_owned())
}

/// The root of the checkout.
///
/// # Errors
/// Never, in a checkout.
pub fn workspace() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?.to_owned())
}
