//! The file-system calls, all of them blocking.

use crate::deliver::DeliverError;
use dropgate_schemas::digest::Sha256;
use rustix::{
    fd::{AsFd as _, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use sha2::Digest as _;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::PathBuf,
};

/// So many written bytes at most wait for the disk, so that the last sync doesn't take for ever.
const UNSYNCED: usize = 128 << 20;
/// How much is read at a time when a file is compared.
const READ: usize = 256 << 10;

/// A root and how things are made below it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) create: bool,
    pub(super) file_mode: u32,
    pub(super) directory_mode: u32,
}

/// Whether a rename may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rename {
    IfFree,
    Replace,
}

/// A file being written under its temporary name.
pub(super) struct Part<'a> {
    tree: &'a Tree,
    directory: OwnedFd,
    path: String,
    name: String,
    file: File,
    unsynced: usize,
}

impl Tree {
    /// Creates `name` in `dir`, making directories as needed. A file of that name can only be a leftover of the same claim.
    pub(super) fn create(&self, dir: &str, name: &str) -> Result<Part<'_>, DeliverError> {
        let path = join(dir, name);
        let directory = self.walk(dir, true)?.ok_or_else(|| self.error("open", dir, Errno::NOENT))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.file_mode);
        let file = rustix::fs::openat(&directory, name, flags, mode)
            .and_then(|file| rustix::fs::fchmod(&file, mode).map(|()| file))
            .map_err(|e| self.error("create", &path, e))?;
        Ok(Part { tree: self, directory, path, name: name.to_owned(), file: File::from(file), unsynced: 0 })
    }

    /// Renames within `dir` and makes that durable.
    pub(super) fn rename(&self, dir: &str, from: &str, to: &str, how: Rename) -> Result<(), Errno> {
        let directory = self.walk_raw(dir, false).map_err(|(_, e)| e)?.ok_or(Errno::NOENT)?;
        match how {
            Rename::Replace => rustix::fs::renameat(&directory, from, &directory, to)?,
            Rename::IfFree => {
                match rustix::fs::renameat_with(&directory, from, &directory, to, RenameFlags::NOREPLACE) {
                    // File systems without it: a hard link never replaces either.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        rustix::fs::linkat(&directory, from, &directory, to, AtFlags::empty())?;
                        rustix::fs::unlinkat(&directory, from, AtFlags::empty())?;
                    }
                    other => other?,
                }
            }
        }
        rustix::fs::fsync(&directory)
    }

    /// Bytes of a regular file; none if there is no such file.
    pub(super) fn size(&self, dir: &str, name: &str) -> Result<Option<u64>, DeliverError> {
        let Some(directory) = self.walk(dir, false)? else { return Ok(None) };
        match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) => Err(DeliverError::Collision(format!("{} is not a file", self.show(&join(dir, name))))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("look at", &join(dir, name), error)),
        }
    }

    /// Size and digest of a regular file, read back; none if there is no such file.
    pub(super) fn digest(&self, dir: &str, name: &str) -> Result<Option<(u64, Sha256)>, DeliverError> {
        let path = join(dir, name);
        let Some(directory) = self.walk(dir, false)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.error("open", &path, error)),
        };
        let mut hash = sha2::Sha256::new();
        let (mut buffer, mut size) = (vec![0; READ], 0_u64);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Some((size, Sha256(hash.finalize().into())))),
                Ok(n) => {
                    hash.update(buffer.get(..n).unwrap_or_default());
                    size += n as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("read", &path, &error)),
            }
        }
    }

    /// Removes a file. None there is fine.
    pub(super) fn remove(&self, dir: &str, name: &str) -> Result<(), DeliverError> {
        let Some(directory) = self.walk(dir, false)? else { return Ok(()) };
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("remove", &join(dir, name), error)),
        }
    }

    /// The directory `dir` below the root; none if it is not there and not to be made.
    fn walk(&self, dir: &str, make: bool) -> Result<Option<OwnedFd>, DeliverError> {
        self.walk_raw(dir, make).map_err(|(path, errno)| match errno {
            // With NOFOLLOW and DIRECTORY a symbolic link is "not a directory" or a loop.
            Errno::NOTDIR | Errno::LOOP => DeliverError::Denied(format!(
                "{} is not a directory, or is a symbolic link, which are not followed below the destination: remove it",
                self.show(&path)
            )),
            errno => self.error("open", &path, errno),
        })
    }

    fn walk_raw(&self, dir: &str, make: bool) -> Result<Option<OwnedFd>, (String, Errno)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = || rustix::fs::openat(CWD, &self.root, flags, Mode::empty());
        let mut at = match root() {
            Err(Errno::NOENT) if make && self.create => {
                use std::os::unix::fs::DirBuilderExt as _;
                let made =
                    std::fs::DirBuilder::new().recursive(true).mode(self.directory_mode).create(&self.root);
                made.map_err(|e| (String::new(), Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
                root()
            }
            // A root that is gone (not mounted?) is an error, not an empty destination.
            other => other,
        }
        .map_err(|e| (String::new(), e))?;
        let mut path = String::new();
        for component in dir.split('/').filter(|c| !c.is_empty()) {
            path = join(&path, component);
            let open =
                |at: &OwnedFd| rustix::fs::openat(at, component, flags | OFlags::NOFOLLOW, Mode::empty());
            at = match open(&at) {
                Ok(next) => next,
                Err(Errno::NOENT) if make => {
                    let mode = Mode::from_raw_mode(self.directory_mode);
                    match rustix::fs::mkdirat(&at, component, mode) {
                        // Somebody else was faster.
                        Err(Errno::EXIST) => {}
                        other => {
                            other.and_then(|()| rustix::fs::fsync(&at)).map_err(|e| (path.clone(), e))?
                        }
                    }
                    open(&at).map_err(|e| (path.clone(), e))?
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err((path, error)),
            };
        }
        Ok(Some(at))
    }

    /// What an error of the operating system means for a delivery.
    pub(super) fn error(&self, did: &str, path: &str, errno: Errno) -> DeliverError {
        let what = format!("can't {did} {}: {}", self.show(path), std::io::Error::from(errno));
        match errno {
            Errno::NOENT if path.is_empty() => DeliverError::Unavailable(format!(
                "{} does not exist: mount or create it, or set create = true for the destination",
                self.root.display()
            )),
            Errno::ACCESS | Errno::PERM | Errno::ROFS => DeliverError::Denied(format!(
                "{what}: give the user that runs the worker the right to write there"
            )),
            Errno::NAMETOOLONG | Errno::ISDIR | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => {
                DeliverError::Denied(what)
            }
            _ => DeliverError::Unavailable(what),
        }
    }

    fn io(&self, did: &str, path: &str, error: &std::io::Error) -> DeliverError {
        self.error(did, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    fn show(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }
}

impl Part<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DeliverError> {
        self.file.write_all(bytes).map_err(|e| self.tree.io("write", &self.path, &e))?;
        self.unsynced += bytes.len();
        if self.unsynced < UNSYNCED {
            return Ok(());
        }
        self.unsynced = 0;
        rustix::fs::fdatasync(self.file.as_fd()).map_err(|e| self.tree.error("sync", &self.path, e))
    }

    /// Makes the bytes and the name durable.
    pub(super) fn sync(self) -> Result<(), DeliverError> {
        let synced = rustix::fs::fsync(self.file.as_fd()).and_then(|()| rustix::fs::fsync(&self.directory));
        synced.map_err(|errno| {
            let error = self.tree.error("sync", &self.path, errno);
            self.remove();
            error
        })
    }

    /// Takes the file away again, as far as possible: what stays is found by its name later.
    pub(super) fn remove(&self) {
        if let Err(error) = rustix::fs::unlinkat(&self.directory, self.name.as_str(), AtFlags::empty()) {
            tracing::warn!(path = %self.tree.show(&self.path), %error, "a temporary file could not be removed");
        }
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
