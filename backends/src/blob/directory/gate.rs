//! Who may write an unsealed blob.
//!
//! A successor takes over a blob while its predecessor may still be in the middle of a write, on another thread or in a
//! process that hangs. Renaming the file does not stop the predecessor, for it has the file open. So, within a process, all
//! writers of a blob share one open file behind a lock and show the token they were given: taking over gives out a new
//! token, and waits for a write that is under way. Between processes the open file is locked (`flock`) for as
//! long as its process lives: a blob can't be taken from a process that lives.

use super::{failed, layout::Layout};
use crate::{
    blob::BlobError,
    durable::{sync_data, sync_directory},
};
use dropgate_schemas::id::BlobId;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The blobs that writers of this process have open.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<BlobId, Arc<Gate>>>);

/// One unsealed blob.
#[derive(Debug)]
struct Gate {
    blob: BlobId,
    file: File,
    owner: Mutex<Owner>,
}

#[derive(Debug)]
struct Owner {
    /// What the present writer shows, or [`NOBODY`].
    token: u64,
    epoch: u64,
    path: PathBuf,
    /// Whether the directory was synced since the file was made.
    name_is_durable: bool,
}

const FIRST_TOKEN: u64 = 1;
/// Nobody is let in any more: sealed or deleted.
const NOBODY: u64 = 0;

/// A writer's hold on a blob; the last one of a blob closes the file.
#[derive(Debug)]
pub(super) struct Hold {
    // None only while it is being dropped.
    gate: Option<Arc<Gate>>,
    gates: Arc<Gates>,
    token: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn conflict(blob: BlobId, what: &str) -> BlobError {
    BlobError::Conflict { blob, what: what.to_owned() }
}

impl Gates {
    fn hold(self: &Arc<Self>, gate: Arc<Gate>, token: u64) -> Hold {
        Hold { gate: Some(gate), gates: self.clone(), token }
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        layout: &Layout,
        blob: BlobId,
        epoch: u64,
    ) -> Result<Hold, BlobError> {
        let begun = || conflict(blob, "it was begun already");
        if lock(&self.0).contains_key(&blob) {
            return Err(begun());
        }
        if layout.sealed(blob).exists() {
            return Err(conflict(blob, "it is sealed already"));
        }
        let path = layout.unsealed(blob, epoch);
        let file = match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(begun()),
            Err(e) => return Err(failed(&path, &e)),
        };
        claim(&file, blob, &path)?;
        let gate = Arc::new(Gate::new(blob, file, epoch, path.clone()));
        match lock(&self.0).entry(blob) {
            Entry::Vacant(vacant) => vacant.insert(gate.clone()),
            Entry::Occupied(_) => {
                remove(&path)?;
                return Err(begun());
            }
        };
        Ok(self.hold(gate, FIRST_TOKEN))
    }

    /// The open gate of a blob, or the one opened anew.
    fn enter(self: &Arc<Self>, layout: &Layout, blob: BlobId) -> Result<Hold, BlobError> {
        let known = || lock(&self.0).get(&blob).cloned();
        if let Some(gate) = known() {
            return Ok(self.hold(gate, NOBODY));
        }
        match Gate::find(layout, blob) {
            Ok(gate) => {
                let gate = lock(&self.0).entry(blob).or_insert_with(|| Arc::new(gate)).clone();
                Ok(self.hold(gate, NOBODY))
            }
            // Another thread of this process may have been quicker: then the two share the gate.
            Err(error) => known().map(|gate| self.hold(gate, NOBODY)).ok_or(error),
        }
    }

    pub(super) fn resume(
        self: &Arc<Self>,
        layout: &Layout,
        blob: BlobId,
        length: u64,
        epoch: u64,
    ) -> Result<Hold, BlobError> {
        let mut hold = self.enter(layout, blob)?;
        hold.token = hold.gate()?.take_over(layout, length, epoch)?;
        Ok(hold)
    }

    pub(super) fn delete(self: &Arc<Self>, layout: &Layout, blob: BlobId) -> Result<(), BlobError> {
        let gate = lock(&self.0).get(&blob).cloned();
        if let Some(gate) = gate {
            let hold = self.hold(gate, NOBODY);
            lock(&hold.gate()?.owner).token = NOBODY;
        }
        let sealed = layout.sealed(blob);
        if remove(&sealed)? {
            return Ok(());
        }
        let unsealed = layout.find_unsealed(blob).map_err(|e| failed(&sealed, &e))?;
        for path in unsealed.values() {
            remove(path)?;
        }
        // Sealed between the two looks.
        remove(&sealed)?;
        Ok(())
    }
}

fn remove(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(path, &e)),
    }
}

/// Keeps other processes out.
fn claim(file: &File, blob: BlobId, path: &Path) -> Result<(), BlobError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(conflict(blob, "another process that lives is writing it")),
        Err(TryLockError::Error(e)) => Err(failed(path, &e)),
    }
}

impl Gate {
    /// Opens the unsealed file that a writer of the past left.
    fn find(layout: &Layout, blob: BlobId) -> Result<Self, BlobError> {
        let sealed = layout.sealed(blob);
        let found = layout.find_unsealed(blob).map_err(|e| failed(&sealed, &e))?;
        let Some((epoch, path)) = found.into_iter().next_back() else {
            return Err(match sealed.exists() {
                true => conflict(blob, "it is sealed already"),
                false => BlobError::NotFound(blob),
            });
        };
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(conflict(blob, "another process took it over just now"));
            }
            Err(e) => return Err(failed(&path, &e)),
        };
        claim(&file, blob, &path)?;
        // Before it was locked, another process may have taken it over and died, or sealed it.
        if !path.exists() {
            return Err(conflict(blob, "another process took it over just now"));
        }
        Ok(Self::new(blob, file, epoch, path))
    }

    const fn new(blob: BlobId, file: File, epoch: u64, path: PathBuf) -> Self {
        Self {
            blob,
            file,
            owner: Mutex::new(Owner { token: FIRST_TOKEN, epoch, path, name_is_durable: false }),
        }
    }

    /// Lets the owner of `epoch` in and everybody else out; gives out the new token.
    fn take_over(&self, layout: &Layout, length: u64, epoch: u64) -> Result<u64, BlobError> {
        let mut owner = lock(&self.owner);
        if owner.token == NOBODY {
            return Err(conflict(self.blob, "it was sealed or deleted meanwhile"));
        }
        if owner.epoch > epoch {
            return Err(conflict(self.blob, "an owner of a later epoch has it"));
        }
        let size = self.file.metadata().map_err(|e| failed(&owner.path, &e))?.len();
        if size < length {
            let what = format!("{length} bytes were recorded as durable and {size} are there");
            return Err(BlobError::Corrupt { blob: self.blob, what });
        }
        // The older writer is out before anything is changed.
        owner.token += 1;
        let path = layout.unsealed(self.blob, epoch);
        if path != owner.path {
            // Should a power cut take this back, the file is found under its older name.
            fs::rename(&owner.path, &path).map_err(|e| failed(&owner.path, &e))?;
            owner.path = path;
            owner.epoch = epoch;
        }
        self.file.set_len(length).map_err(|e| failed(&owner.path, &e))?;
        Ok(owner.token)
    }
}

impl Hold {
    fn gate(&self) -> Result<&Gate, BlobError> {
        self.gate.as_deref().ok_or_else(|| BlobError::Unavailable("the writer is gone".to_owned()))
    }

    pub(super) fn blob(&self) -> Result<BlobId, BlobError> {
        self.gate().map(|gate| gate.blob)
    }

    /// The file, if this writer still owns it; nobody takes it over until the guard is dropped.
    fn enter<'a>(&self, gate: &'a Gate) -> Result<MutexGuard<'a, Owner>, BlobError> {
        let owner = lock(&gate.owner);
        if owner.token == self.token {
            Ok(owner)
        } else {
            Err(conflict(gate.blob, "another owner took it over, sealed or deleted it"))
        }
    }

    pub(super) fn write(&self, block: &[u8], offset: u64) -> Result<(), BlobError> {
        let gate = self.gate()?;
        let owner = self.enter(gate)?;
        gate.file.write_all_at(block, offset).map_err(|e| failed(&owner.path, &e))
    }

    /// Syncs what was written, whoever owns it.
    pub(super) fn sync(&self) -> Result<(), BlobError> {
        let gate = self.gate()?;
        let path = lock(&gate.owner).path.clone();
        sync_data(&gate.file, &path);
        Ok(())
    }

    /// Makes what this writer wrote durable, and the name it is under, and makes sure that it is still the owner.
    pub(super) fn sync_owned(&self) -> Result<(), BlobError> {
        self.sync()?;
        let mut owner = self.enter(self.gate()?)?;
        if !owner.name_is_durable {
            sync_branch(&owner.path)?;
            owner.name_is_durable = true;
        }
        Ok(())
    }

    pub(super) fn seal(&self, size: u64) -> Result<(), BlobError> {
        let gate = self.gate()?;
        // Most of the work, before others are kept waiting.
        self.sync()?;
        let mut owner = self.enter(gate)?;
        let stored = gate.file.metadata().map_err(|e| failed(&owner.path, &e))?.len();
        if stored != size {
            let what = format!("{size} bytes were to be sealed and {stored} are there");
            return Err(BlobError::Corrupt { blob: gate.blob, what });
        }
        let sealed = owner.path.with_extension("");
        match fs::rename(&owner.path, &sealed) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(conflict(gate.blob, "another process deleted it"));
            }
            Err(e) => return Err(failed(&owner.path, &e)),
        }
        owner.token = NOBODY;
        sync_branch(&sealed)
    }
}

fn sync_branch(file: &Path) -> Result<(), BlobError> {
    let branch = file.parent().unwrap_or(file);
    sync_directory(branch).map_err(|e| failed(branch, &e))
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut gates = lock(&self.gates.0);
        // The file is closed, and with it unlocked, before another can look for the gate.
        let Some(gate) = self.gate.take() else { return };
        if Arc::strong_count(&gate) == 2 {
            gates.remove(&gate.blob);
        }
        drop(gate);
        drop(gates);
    }
}

#[cfg(test)]
impl Gates {
    /// How many blobs are open.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
