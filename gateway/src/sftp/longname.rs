//! Entries as clients see them: attributes, and the line that `ls -l` shows.

use super::{
    attrs::{Attrs, DIRECTORY, PERMISSION_BITS, REGULAR},
    reply::NameEntry,
};
use crate::vfs::{listing::Listed, lookup::Entry};
use dropgate_schemas::{
    inbox::InboxEntry,
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// Permissions of a directory.
const DIRECTORY_MODE: u32 = DIRECTORY | 0o755;
/// What directories tell as their size, as most file systems do.
const DIRECTORY_SIZE: u64 = 4096;
/// `ls` shows the year instead of the time for files older than about six months.
const RECENT: Duration = Duration::from_secs(180 * 24 * 3600);

/// Attributes of a directory that was last changed at `at`.
pub(super) fn directory_attrs(at: Timestamp) -> Attrs {
    let seconds = seconds(at);
    Attrs {
        size: Some(DIRECTORY_SIZE),
        owner: None,
        permissions: Some(DIRECTORY_MODE),
        times: Some((seconds, seconds)),
    }
}

/// Attributes of a file.
pub(super) fn file_attrs(upload: &Upload) -> Attrs {
    let seconds = seconds(upload.received_at.unwrap_or(upload.opened_at));
    let said = upload.attributes;
    let mtime = said.mtime.unwrap_or(seconds);
    Attrs {
        size: Some(upload.visible_size()),
        owner: None,
        permissions: Some(REGULAR | (said.permissions.unwrap_or(0o644) & PERMISSION_BITS)),
        times: Some((said.atime.unwrap_or(mtime), mtime)),
    }
}

/// Attributes of what was registered in `/inbox`: there is nothing to write or to read.
fn inbox_attrs(entry: &InboxEntry) -> Attrs {
    let seconds = seconds(entry.registered_at);
    Attrs {
        size: Some(entry.size),
        owner: None,
        permissions: Some(REGULAR | 0o444),
        times: Some((seconds, seconds)),
    }
}

/// Attributes of whatever a path means.
pub(super) fn entry_attrs(entry: &Entry, now: Timestamp) -> Attrs {
    match entry {
        Entry::System => directory_attrs(now),
        Entry::Directory(directory) => directory_attrs(directory.updated_at),
        Entry::File(upload) => file_attrs(upload),
        Entry::Inbox(entry) => inbox_attrs(entry),
    }
}

/// A line of a listing.
pub(super) fn name_entry(listed: &Listed, account: &str, now: Timestamp) -> NameEntry {
    match listed {
        Listed::System(name) => line(name, directory_attrs(now), account, "system", now),
        Listed::Directory(directory) => {
            line(directory.path.name(), directory_attrs(directory.updated_at), account, "directory", now)
        }
        Listed::File(upload) => {
            let routed = upload.current_deliveries().next().map(|d| d.destination.as_str());
            let group = match (upload.state, &upload.reason) {
                (UploadState::Failed, Some(reason)) => reason.code.as_str(),
                (state, _) => state.as_str(),
            };
            line(upload.path.name(), file_attrs(upload), routed.unwrap_or(account), group, now)
        }
        Listed::Inbox(entry) => line(entry.path.name(), inbox_attrs(entry), account, "inbox", now),
    }
}

fn line(name: &str, attrs: Attrs, owner: &str, group: &str, now: Timestamp) -> NameEntry {
    let mode = attrs.permissions.unwrap_or(0);
    let kind = if mode & DIRECTORY != 0 { 'd' } else { '-' };
    let mtime = attrs.times.map_or(0, |(_, mtime)| mtime);
    let when = Timestamp::from_millis(i64::from(mtime).saturating_mul(1000));
    let format = if now.since(when) < RECENT && when <= now.plus(Duration::from_secs(3600)) {
        "%b %e %H:%M"
    } else {
        "%b %e  %Y"
    };
    let date = when.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).strftime(format);
    let size = attrs.size.unwrap_or(0);
    let longname = format!("{kind}{} 1 {owner:<8} {group:<8} {size:>12} {date} {name}", rwx(mode));
    NameEntry { name: name.to_owned(), longname, attrs }
}

fn rwx(mode: u32) -> String {
    (0..9_u32)
        .rev()
        .zip("rwxrwxrwx".chars())
        .map(|(bit, c)| if mode & (1 << bit) != 0 { c } else { '-' })
        .collect()
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.seconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_looks_like_ls() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let entry = line(
            "a b.csv",
            Attrs {
                size: Some(42),
                owner: None,
                permissions: Some(0o100640),
                times: Some((0, seconds(now))),
            },
            "acme",
            "committed",
            now,
        );
        assert_eq!(entry.longname, "-rw-r----- 1 acme     committed           42 Mar  1 12:00 a b.csv");
        let old = line("x", directory_attrs(Timestamp::from_millis(0)), "acme", "directory", now);
        assert_eq!(old.longname, "drwxr-xr-x 1 acme     directory         4096 Jan  1  1970 x");
    }
}
