//! Where the database file may lie. SQLite's locks and its shared-memory index need a file system that every process sees
//! the same way: on a network file system two hosts would both believe that they hold the lock.

use super::failure::OpenFailure;
use std::path::Path;

/// File systems that are refused, by the magic number that `statfs` reports (`linux/magic.h` and the projects' own).
const NETWORK: [(u64, &str); 15] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd3, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x786f_4256, "vboxsf"),
];

/// FUSE can be anything; it works or fails by what is behind it.
const FUSE: u64 = 0x6573_5546;

/// Refuses a directory on a network file system.
pub(super) fn check(file: &Path) -> Result<(), OpenFailure> {
    let directory = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let about = rustix::fs::statfs(directory).map_err(|e| {
        OpenFailure::new(
            format!("{}: {e}", directory.display()),
            "create the directory, or set the key to another place",
        )
    })?;
    let magic = about.f_type.cast_unsigned() & 0xffff_ffff;
    if let Some(name) = network_name(magic) {
        return Err(OpenFailure::new(
            format!("it lies on a network file system ({name}), where SQLite can't lock safely"),
            "put the data directory on a local disk",
        ));
    }
    if magic == FUSE {
        tracing::warn!(
            file = %file.display(),
            "the data directory lies on a FUSE file system: make sure that no other host mounts it"
        );
    }
    Ok(())
}

fn network_name(magic: u64) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number_and_local_ones_pass() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
        // ext4, xfs, btrfs, tmpfs, overlayfs
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
            assert_eq!(network_name(local), None);
        }
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("dropgate.db")).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = check(&dir.path().join("no/such/dropgate.db")).unwrap_err();
        assert!(error.what.contains("no/such") && error.remedy.contains("create the directory"), "{error:?}");
    }
}
