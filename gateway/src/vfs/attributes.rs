//! SETSTAT: what clients say of a file is kept and answered, never interpreted.

use super::{Refusal, Tree, lookup::Entry};
use crate::sftp::attrs::{Attrs, PERMISSION_BITS};
use dropgate_backends::StateError;
use dropgate_schemas::{
    audit::{Action, AuditResult},
    change::{Change, Durability, Subject},
    path::{Area, Place, VirtualPath},
    time::Timestamp,
    upload::{Attributes, Upload, UploadState},
};

/// A worker may change the record between our read and our write; so often we read again.
const TRIES: usize = 5;

/// What a SETSTAT comes to.
#[derive(Debug)]
pub enum SetDecision {
    /// Done.
    Done,
    /// A session is receiving it: whoever writes its record beside that session would cut it off.
    Receiving(Box<Upload>),
}

impl Tree {
    /// SETSTAT and LSETSTAT of a name: records mode, owner and times.
    ///
    /// # Errors
    /// If the name does not exist, or nothing about it can be changed.
    pub async fn set_attributes(&self, path: &VirtualPath, attrs: &Attrs) -> Result<SetDecision, Refusal> {
        for _ in 0..TRIES {
            let upload = match self.lookup(path).await? {
                // Clients set times and modes of directories they made; there is nothing to keep.
                Entry::System | Entry::Directory(_) => return Ok(SetDecision::Done),
                Entry::Inbox(_) => {
                    return Err(Refusal::denied(format!(
                        "{path} was registered by the operator and can't be changed from here"
                    )));
                }
                Entry::File(upload) => upload,
            };
            if matches!(upload.state, UploadState::Receiving | UploadState::Closing) {
                return Ok(SetDecision::Receiving(upload));
            }
            if upload.state == UploadState::Failed || path.place() == Place::Below(Area::Failed) {
                return Err(Refusal::denied(format!(
                    "{path} failed and is kept as it is: upload it again under /upload"
                )));
            }
            if let Some(size) = attrs.size
                && size != upload.visible_size()
            {
                let state = if upload.state.is_accepted() { "was accepted with" } else { "has" };
                return Err(Refusal::failure(format!(
                    "{path} {state} {} bytes: only what is being written can get another size",
                    upload.visible_size()
                )));
            }
            let merged = merge(upload.attributes, attrs);
            if merged == upload.attributes {
                return Ok(SetDecision::Done);
            }
            match self.write_attributes(*upload, merged).await {
                Err(StateError::Conflict { .. }) => {}
                other => return Ok(other.map(|()| SetDecision::Done)?),
            }
        }
        Err(Refusal::Conflict)
    }

    async fn write_attributes(&self, upload: Upload, attributes: Attributes) -> Result<(), StateError> {
        let mut entry = self.facts.entry(Action::UploadSetstat, AuditResult::Ok);
        entry.request = Some("SETSTAT".to_owned());
        entry.subject = Some(upload.path.to_string());
        entry.upload = Some(upload.upload_id);
        let upload = Upload { attributes, updated_at: Timestamp::now(), ..upload };
        let change = Change {
            subject: Subject::Upload { upload: Box::new(upload), inline: None },
            audit: vec![entry],
            outbox: vec![],
            durability: Durability::Visible,
        };
        self.state.apply(change).await.map(|_| ())
    }
}

/// What was known, with what the client says now on top.
#[must_use]
pub fn merge(known: Attributes, said: &Attrs) -> Attributes {
    Attributes {
        permissions: said.permissions.map(|p| p & PERMISSION_BITS).or(known.permissions),
        uid: said.owner.map(|(uid, _)| uid).or(known.uid),
        gid: said.owner.map(|(_, gid)| gid).or(known.gid),
        atime: said.times.map(|(atime, _)| atime).or(known.atime),
        mtime: said.times.map(|(_, mtime)| mtime).or(known.mtime),
    }
}
