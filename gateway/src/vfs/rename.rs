//! RENAME: of a complete temp name to its final name it is the acceptance; of an accepted file that nobody delivers yet it
//! is only a new name.

use super::{Refusal, Tree, lookup::Slot, naming::TempNames, remove::SUPERSEDE_INTENT};
use dropgate_schemas::{
    path::{Area, Place, VirtualPath},
    time::Timestamp,
    upload::{Upload, UploadState},
};

/// What a RENAME comes to.
#[derive(Debug)]
pub enum RenameDecision {
    /// The temp name becomes the final name: accept it, in place of the versions in the target's slot.
    Accept {
        /// The held upload.
        held: Box<Upload>,
        /// What lies under the final name.
        target: Slot,
    },
    /// A held upload gets another temp name.
    MoveHeld(Box<Upload>),
    /// An accepted upload that no worker holds gets another name.
    MoveAccepted {
        /// The upload.
        upload: Box<Upload>,
        /// What lies under the new name.
        target: Slot,
    },
    /// The source is the target.
    Nothing,
    /// The version that would be replaced is being delivered: wait a moment, then ask again.
    WaitForDelivery,
    /// The source is still received. If its CLOSE is under way, wait for that, then ask again.
    NotClosed(Box<Upload>),
}

impl Tree {
    /// Decides a RENAME; `replace` is `posix-rename`.
    ///
    /// # Errors
    /// Why it is not possible.
    pub async fn decide_rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        replace: bool,
        temp_names: &TempNames,
    ) -> Result<RenameDecision, Refusal> {
        for path in [from, to] {
            match path.place() {
                Place::Below(Area::Upload) => {}
                Place::Root | Place::System(_) => {
                    return Err(Refusal::denied(format!(
                        "{path} belongs to the server and can't be renamed"
                    )));
                }
                Place::Below(_) | Place::Outside => {
                    return Err(Refusal::denied("files can be renamed below /upload only"));
                }
            }
        }
        if from.parent() != to.parent() {
            return Err(Refusal::denied(
                "files can be renamed within their directory only: upload into the other directory instead",
            ));
        }
        let source = self.slot(from).await?;
        let Some(upload) = source.shown_in_upload() else {
            if self.directory_row(from, Area::Upload).await?.is_some() {
                return Err(Refusal::Unsupported(
                    "directories can't be renamed: make a new one and upload into it".to_owned(),
                ));
            }
            if self.just_settled(from, &source).is_some() {
                return Err(Refusal::failure(format!(
                    "{from} was delivered already and can't be renamed any more"
                )));
            }
            return Err(Refusal::missing(from));
        };
        if from == to {
            return Ok(RenameDecision::Nothing);
        }
        if self.directory_row(to, Area::Upload).await?.is_some() {
            return Err(Refusal::failure(format!("{to} is a directory")));
        }
        let target = self.slot(to).await?;
        let upload = Box::new(upload.clone());
        let to_temp = temp_names.is_temp(to.name_key());
        match upload.state {
            // Of a small file the record does not say that its CLOSE came: whoever receives it knows.
            UploadState::Closing | UploadState::Receiving => Ok(RenameDecision::NotClosed(upload)),
            UploadState::Partial => {
                Err(Refusal::failure(format!("{from} is not complete: resume it, or upload it again")))
            }
            UploadState::Held if to_temp => {
                if target.shown_in_upload().is_some() {
                    return Err(Refusal::failure(format!("{to} exists already")));
                }
                Ok(RenameDecision::MoveHeld(upload))
            }
            UploadState::Held => {
                let intended = upload.supersede_intent.as_ref().is_some_and(|intent| {
                    intent.target == *to && Timestamp::now().since(intent.at) < SUPERSEDE_INTENT
                });
                Self::check_target(to, &target, replace || intended)?;
                if target.accepted().is_some_and(Upload::is_claimed) {
                    return Ok(RenameDecision::WaitForDelivery);
                }
                Ok(RenameDecision::Accept { held: upload, target })
            }
            UploadState::Committed | UploadState::Delivering | UploadState::Quarantined => {
                if upload.is_claimed() {
                    return Err(Refusal::failure(format!(
                        "{from} is being delivered and can't be renamed any more"
                    )));
                }
                if to_temp {
                    return Err(Refusal::failure(format!(
                        "{from} was accepted: it can't go back to a temporary name"
                    )));
                }
                Self::check_target(to, &target, replace)?;
                if target.accepted().is_some_and(Upload::is_claimed) {
                    return Ok(RenameDecision::WaitForDelivery);
                }
                Ok(RenameDecision::MoveAccepted { upload, target })
            }
            UploadState::Processed | UploadState::Failed | UploadState::Aborted | UploadState::Superseded => {
                Err(Refusal::missing(from))
            }
        }
    }

    /// Whether the name `to` may be taken.
    fn check_target(to: &VirtualPath, target: &Slot, replace: bool) -> Result<(), Refusal> {
        if let Some(unfinished) = target.unfinished()
            && matches!(unfinished.state, UploadState::Receiving | UploadState::Closing)
        {
            return Err(Refusal::failure(format!("{to} is being uploaded: wait until that is done")));
        }
        let Some(accepted) = target.accepted() else { return Ok(()) };
        // What was delivered lies in /sent and does not stand in the way, unless the client still sees it here.
        let in_the_way = accepted.state.area() == Some(Area::Upload);
        if in_the_way && !replace {
            return Err(Refusal::failure(format!(
                "{to} exists already: remove it first, or use a renaming that replaces"
            )));
        }
        Ok(())
    }
}
