//! Which file a blob is in.

use crate::durable;
use dropgate_schemas::id::BlobId;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes what is missing of the directories.
    pub(super) fn prepare(root: PathBuf) -> io::Result<Self> {
        durable::make_directory(&root)?;
        let mut made = false;
        for byte in 0..=u8::MAX {
            let branch = root.join(format!("{byte:02x}"));
            if !branch.is_dir() {
                fs::create_dir(&branch)?;
                made = true;
            }
        }
        if made {
            durable::sync_directory(&root)?;
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The sub-directory of a blob. Ids begin with the time, so it goes by the last byte, which is random.
    pub(super) fn branch(&self, blob: BlobId) -> PathBuf {
        self.root.join(format!("{:02x}", branch_of(blob)))
    }

    pub(super) fn sealed(&self, blob: BlobId) -> PathBuf {
        self.branch(blob).join(blob.to_string())
    }

    pub(super) fn unsealed(&self, blob: BlobId, epoch: u64) -> PathBuf {
        self.branch(blob).join(format!("{blob}.{epoch:016x}"))
    }

    /// The unsealed files of a blob with their epochs: one, unless a crash or a hand interfered.
    pub(super) fn find_unsealed(&self, blob: BlobId) -> io::Result<BTreeMap<u64, PathBuf>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.branch(blob))? {
            let entry = entry?;
            if let Some((id, Some(epoch))) = parse(&entry.file_name())
                && id == blob
            {
                found.insert(epoch, entry.path());
            }
        }
        Ok(found)
    }

    /// Blobs by sub-directory and id, last written more than `older_than` ago.
    pub(super) fn list(
        &self,
        older_than: Duration,
        after: Option<BlobId>,
        limit: usize,
    ) -> io::Result<Vec<BlobId>> {
        let now = SystemTime::now();
        let mut listed = Vec::new();
        for byte in after.map_or(0, branch_of)..=u8::MAX {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(self.root.join(format!("{byte:02x}")))? {
                let entry = entry?;
                match parse(&entry.file_name()) {
                    Some((blob, _)) if branch_of(blob) == byte => names.insert(blob, entry.path()),
                    // Not ours.
                    Some(_) | None => continue,
                };
            }
            for (blob, path) in names {
                if listed.len() >= limit {
                    return Ok(listed);
                }
                if after.is_some_and(|a| branch_of(a) == byte && blob <= a) {
                    continue;
                }
                let written = match fs::metadata(&path).and_then(|m| m.modified()) {
                    Ok(written) => written,
                    // Sealed, taken over or deleted since: then it isn't old.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                if now.duration_since(written).is_ok_and(|age| age >= older_than) {
                    listed.push(blob);
                }
            }
        }
        Ok(listed)
    }
}

fn branch_of(blob: BlobId) -> u8 {
    let [.., last] = blob.uuid().into_bytes();
    last
}

/// The blob a file name belongs to, and its epoch if it is not sealed.
fn parse(name: &OsStr) -> Option<(BlobId, Option<u64>)> {
    let name = name.to_str()?;
    match name.split_once('.') {
        None => Some((name.parse().ok()?, None)),
        Some((id, epoch)) => Some((id.parse().ok()?, Some(u64::from_str_radix(epoch, 16).ok()?))),
    }
}
