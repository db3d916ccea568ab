//! What queries mean, said naively over a plain list.

use crate::state::{UploadOrder, UploadQuery};
use dropgate_schemas::{
    path::VirtualPath,
    upload::{BlobRef, Upload},
};
use std::cmp::Reverse;

/// The uploads of `all` that the query asks for, in its order.
#[must_use]
pub fn find(all: &[Upload], query: &UploadQuery) -> Vec<Upload> {
    let mut found: Vec<Upload> = all.iter().filter(|upload| matches(query, upload)).cloned().collect();
    match &query.order {
        UploadOrder::NewestFirst => found.sort_by_key(|u| Reverse(u.upload_id)),
        UploadOrder::Before(id) => {
            found.retain(|u| u.upload_id < *id);
            found.sort_by_key(|u| Reverse(u.upload_id));
        }
        UploadOrder::ByName => found.sort_by(by_name),
        UploadOrder::ByNameAfter(name) => {
            found.retain(|u| u.path.name_key() > name.as_str());
            found.sort_by(by_name);
        }
        UploadOrder::ByVersion => found.sort_by_key(|u| Reverse(u.version)),
    }
    found.truncate(query.limit);
    found
}

fn by_name(a: &Upload, b: &Upload) -> std::cmp::Ordering {
    a.path.name_key().cmp(b.path.name_key()).then(b.version.cmp(&a.version))
}

fn matches(query: &UploadQuery, upload: &Upload) -> bool {
    let claimed_by = |owner| upload.deliveries.iter().any(|d| d.state.is_claimed() && d.owner == Some(owner));
    let blob = match &upload.blob {
        Some(BlobRef::Stored { blob }) => Some(*blob),
        _ => upload.staged.as_ref().and_then(|s| s.blob.as_ref()).map(|b| b.blob),
    };
    query.account.as_ref().is_none_or(|account| upload.account == *account)
        && query.partner.as_ref().is_none_or(|partner| upload.partner == *partner)
        && query.path.as_ref().is_none_or(|path| upload.path == *path)
        && query.directory.as_ref().is_none_or(|directory| upload.path.parent() == *directory)
        && query.under.as_ref().is_none_or(|directory| is_below(&upload.path, directory))
        && (query.states.is_empty() || query.states.contains(&upload.state))
        && query.area.is_none_or(|area| upload.area() == Some(area))
        && query.owner.is_none_or(|owner| upload.owner == Some(owner) || claimed_by(owner))
        && query.sha256.is_none_or(|digest| upload.sha256 == Some(digest))
        && query.blob.is_none_or(|id| blob == Some(id))
        && query.since.is_none_or(|since| upload.opened_at >= since)
        && query.until.is_none_or(|until| upload.opened_at < until)
        && query.updated_before.is_none_or(|before| upload.updated_at < before)
}

fn is_below(path: &VirtualPath, directory: &VirtualPath) -> bool {
    let mut above = path.parent();
    loop {
        if above == *directory {
            return true;
        }
        if above == VirtualPath::root() {
            return false;
        }
        above = above.parent();
    }
}
