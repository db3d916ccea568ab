//! OPEN: may this name be written now, and onto which record?

use super::{Refusal, Tree};
use crate::sftp::request::open_flags;
use dropgate_schemas::{
    path::{Area, Place, VirtualPath},
    upload::{Upload, UploadState},
};

/// What an OPEN may do.
#[derive(Debug)]
pub enum OpenDecision {
    /// Go on.
    Go(OpenPlan),
    /// Somebody is writing this upload: it can be taken over, or not.
    Occupied(Box<Upload>),
    /// The accepted version is being delivered: wait a moment.
    Delivering(Box<Upload>),
}

/// Onto which record the bytes go.
#[derive(Debug)]
pub enum OpenPlan {
    /// A new version of the name.
    Create {
        /// The accepted version that STAT shows under this name: the bytes must start at 0.
        over: Option<Box<Upload>>,
        /// The client asked for an empty file. If it did not, that version stays unless something is written.
        truncate: bool,
    },
    /// The unfinished version that is there already starts again from 0.
    Restart(Box<Upload>),
    /// The unfinished version goes on where it is, or starts again: the first WRITE decides.
    Continue(Box<Upload>),
}

impl Tree {
    /// Decides an OPEN of `path` with the flags of the wire.
    ///
    /// # Errors
    /// Why it may not be opened for writing.
    pub async fn decide_open(&self, path: &VirtualPath, flags: u32) -> Result<OpenDecision, Refusal> {
        if flags & open_flags::WRITE == 0 {
            return Err(Refusal::denied("files can't be downloaded here: this server only takes uploads"));
        }
        match path.place() {
            Place::Below(Area::Upload) => {}
            Place::Root | Place::System(_) => return Err(Refusal::failure(format!("{path} is a directory"))),
            Place::Below(_) | Place::Outside => {
                return Err(Refusal::denied(format!(
                    "upload into /upload, for example to /upload/{}",
                    path.name()
                )));
            }
        }
        if !self.is_directory(&path.parent()).await? {
            return Err(Refusal::NoSuchFile(format!(
                "the directory {} does not exist: make it first",
                path.parent()
            )));
        }
        let slot = self.slot(path).await?;
        let shown = slot.shown_in_upload();
        if shown.is_none() && self.directory_row(path, Area::Upload).await?.is_some() {
            return Err(Refusal::failure(format!("{path} is a directory")));
        }
        if flags & open_flags::EXCL != 0 && flags & open_flags::CREAT != 0 && shown.is_some() {
            return Err(Refusal::failure(format!("{path} exists already")));
        }
        if flags & open_flags::CREAT == 0 && shown.is_none() && slot.accepted().is_none() {
            return Err(Refusal::missing(path));
        }
        if let Some(unfinished) = slot.unfinished() {
            let unfinished = Box::new(unfinished.clone());
            return Ok(match unfinished.state {
                UploadState::Receiving | UploadState::Closing => OpenDecision::Occupied(unfinished),
                _ if flags & open_flags::TRUNC != 0 => OpenDecision::Go(OpenPlan::Restart(unfinished)),
                // Next to an accepted version STAT shows that one, so a client can't mean to continue this one.
                _ if slot.accepted_here().is_some() => OpenDecision::Go(OpenPlan::Restart(unfinished)),
                _ => OpenDecision::Go(OpenPlan::Continue(unfinished)),
            });
        }
        let Some(accepted) = slot.accepted() else {
            return Ok(OpenDecision::Go(OpenPlan::Create { over: None, truncate: true }));
        };
        if accepted.is_claimed() {
            return Ok(OpenDecision::Delivering(Box::new(accepted.clone())));
        }
        let truncate = flags & open_flags::TRUNC != 0;
        // Whoever neither creates nor truncates means the file that was delivered, however long ago: with nothing written
        // no empty version may take its place.
        let changed = flags & (open_flags::CREAT | open_flags::TRUNC) == 0;
        let known = || Some(accepted).filter(|a| changed && a.deleted_at.is_none());
        let over = slot.accepted_here().or_else(|| self.just_settled(path, &slot)).or_else(known);
        Ok(OpenDecision::Go(OpenPlan::Create { over: over.cloned().map(Box::new), truncate }))
    }
}

/// The answer to a resume onto a name that was accepted.
#[must_use]
pub fn already_accepted(path: &VirtualPath) -> Refusal {
    Refusal::failure(format!(
        "{path} was accepted already and can't be continued: upload it whole to replace it"
    ))
}
