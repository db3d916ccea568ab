//! Files that must survive a power cut.
//!
//! A sync that fails ends the process: the kernel may have dropped the pages and will call the next sync a success, so
//! going on would mean to acknowledge what is not there. After the restart everything is read back from what is on disk.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Makes the content of `file` durable. `path` is for the last words should it fail.
pub(crate) fn sync_data(file: &File, path: &Path) {
    if let Err(error) = file.sync_data() {
        die(&error, path);
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    if let Err(error) = directory.sync_all() {
        die(&error, path);
    }
    Ok(())
}

/// The end of the process, after a sync of `path` failed.
pub(crate) fn die(error: &io::Error, path: &Path) -> ! {
    tracing::error!(%error, path = %path.display(), "fsync failed: what was written may be lost, so the process ends");
    // The log may go through a queue that an abort does not empty.
    let _ = writeln!(
        io::stderr(),
        "dropgate: fsync of {} failed: {error}: what was written may be lost, so the process ends. \
         Check the disk, then start again: everything that was acknowledged is recovered from what is on it.",
        path.display()
    );
    std::process::abort()
}

/// Makes a directory and those above it, for this user only, durably if it was missing.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        Some(_) | None => Ok(()),
    }
}

/// Puts a file in the place of another, durably and at once: a reader sees the old content or the new one. Readable by this
/// user only. One process at a time: the caller holds a lock. What a crash leaves of it is removed the next time.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    remove(&new)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    sync_data(&file, &new);
    std::fs::rename(&new, path)?;
    sync_directory(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Whether files can be made in a directory.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(".probe");
    File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    // Another process may probe at the same time.
    remove(&path)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _};

    #[test]
    fn a_replaced_file_has_the_new_content_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one").unwrap();
        std::fs::write(dir.path().join("f.new"), "left over from a crash, and longer").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    // Run by the next test in a process of its own.
    #[test]
    #[ignore = "ends the process"]
    fn syncs_what_cannot_be_synced() {
        sync_data(&File::open("/dev/null").unwrap(), Path::new("/dev/null"));
    }

    #[test]
    fn a_failed_fsync_ends_the_process_and_says_why() {
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durable::tests::syncs_what_cannot_be_synced", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("fsync of /dev/null failed"), "{said}");
    }
}
