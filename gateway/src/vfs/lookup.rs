//! Which version a name means.

use super::{Refusal, Tree};
use dropgate_backends::{UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    directory::Directory,
    inbox::InboxEntry,
    path::{Area, Place, VirtualPath},
    time::Timestamp,
    upload::{Upload, UploadState},
};
use std::time::Duration;

/// How long a delivered name keeps answering under `/upload` for any session of the account.
pub const READ_YOUR_WRITES: Duration = Duration::from_secs(60);

/// The states in which a version still occupies its name somewhere in the tree.
const LIVE: [UploadState; 9] = [
    UploadState::Receiving,
    UploadState::Closing,
    UploadState::Partial,
    UploadState::Held,
    UploadState::Committed,
    UploadState::Delivering,
    UploadState::Quarantined,
    UploadState::Processed,
    UploadState::Failed,
];

/// More live versions than this one name never has: at most one unfinished, and accepted ones until their supersession is
/// recorded.
const MAX_LIVE: usize = 64;

/// The live versions of one name, newest first.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    versions: Vec<Upload>,
}

impl Slot {
    /// The newest version that is not complete yet, or complete under a temp name.
    #[must_use]
    pub fn unfinished(&self) -> Option<&Upload> {
        self.versions.iter().find(|u| u.state.is_unfinished())
    }
    /// The current accepted version, if it still lies in `/upload`.
    #[must_use]
    pub fn accepted_here(&self) -> Option<&Upload> {
        self.versions.iter().find(|u| u.state.is_accepted()).filter(|u| u.state.area() == Some(Area::Upload))
    }
    /// The current version, if it lies in `area` (`/sent` or `/failed`) and was not removed there.
    #[must_use]
    pub fn settled_in(&self, area: Area) -> Option<&Upload> {
        self.versions.iter().find(|u| u.state.is_accepted()).filter(|u| u.area() == Some(area))
    }
    /// The current accepted version, wherever it lies, removed ones included.
    #[must_use]
    pub fn accepted(&self) -> Option<&Upload> {
        self.versions.iter().find(|u| u.state.is_accepted())
    }
    /// All accepted versions: what a new version takes the place of.
    pub fn all_accepted(&self) -> impl Iterator<Item = &Upload> {
        self.versions.iter().filter(|u| u.state.is_accepted())
    }
    /// The version `/upload/name` shows: the accepted one as long as it lies there, else the unfinished one.
    #[must_use]
    pub fn shown_in_upload(&self) -> Option<&Upload> {
        self.accepted_here().or_else(|| self.unfinished())
    }
}

/// What a path means.
#[derive(Clone, Debug)]
pub enum Entry {
    /// `/` or one of the four system directories.
    System,
    /// A directory the partner made.
    Directory(Directory),
    /// A version of a file.
    File(Box<Upload>),
    /// What an outside system registered in `/inbox`.
    Inbox(InboxEntry),
}

impl Tree {
    /// The live versions of the name that `path` (in any area) has under `/upload`.
    pub(crate) async fn slot(&self, path: &VirtualPath) -> Result<Slot, Refusal> {
        let versions = self
            .state
            .find(UploadQuery {
                account: Some(self.facts.account.name.clone()),
                path: Some(path.in_area(Area::Upload)),
                states: LIVE.to_vec(),
                order: UploadOrder::ByVersion,
                limit: MAX_LIVE,
                ..UploadQuery::default()
            })
            .await?;
        Ok(Slot { versions })
    }

    /// The directory row of `path` (in any area), if it shows in that area.
    pub(crate) async fn directory_row(
        &self,
        path: &VirtualPath,
        area: Area,
    ) -> Result<Option<Directory>, Refusal> {
        let row = self.state.directory(&self.facts.account.name, &path.in_area(Area::Upload)).await?;
        Ok(row.filter(|d| d.shows_in(area)))
    }

    /// Whether `path` is a directory that exists: `/`, a system directory, or one the partner made.
    pub(crate) async fn is_directory(&self, path: &VirtualPath) -> Result<bool, Refusal> {
        match path.place() {
            Place::Root | Place::System(_) => Ok(true),
            Place::Below(area) => Ok(self.directory_row(path, area).await?.is_some()),
            Place::Outside => Ok(false),
        }
    }

    /// What `path` means now.
    ///
    /// # Errors
    /// [`Refusal::NoSuchFile`] if nothing is there.
    pub async fn lookup(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        let area = match path.place() {
            Place::Root | Place::System(_) => return Ok(Entry::System),
            Place::Outside => return Err(Refusal::missing(path)),
            Place::Below(Area::Inbox) => {
                let entry = self.state.inbox_entry(&self.facts.account.name, path).await?;
                let shown = entry.filter(|entry| entry.removed_at.is_none() && entry.path == *path);
                return shown.map(Entry::Inbox).ok_or_else(|| Refusal::missing(path));
            }
            Place::Below(area) => area,
        };
        let slot = self.slot(path).await?;
        let found = match area {
            Area::Upload => slot.shown_in_upload().or_else(|| self.just_settled(path, &slot)),
            Area::Sent | Area::Failed => slot.settled_in(area),
            Area::Inbox => None,
        };
        if let Some(upload) = found {
            return Ok(Entry::File(Box::new(upload.clone())));
        }
        match self.directory_row(path, area).await? {
            Some(directory) => Ok(Entry::Directory(directory)),
            None => Err(Refusal::missing(path)),
        }
    }

    /// Read-your-writes: clients look at a file right after its upload, and delivery may have moved it by then.
    pub(crate) fn just_settled<'s>(&self, path: &VirtualPath, slot: &'s Slot) -> Option<&'s Upload> {
        let upload = slot.accepted().filter(|u| u.deleted_at.is_none())?;
        let recent = upload.settled_at.is_some_and(|at| Timestamp::now().since(at) < READ_YOUR_WRITES);
        (recent || self.remembers(path)).then_some(upload)
    }
}
