//! OPEN: from the tree's decision to a handle that takes bytes.

use super::{
    OpenUpload, UploadContext,
    commit::{Committer, TRIES},
    open_file::{Beginning, NewFile, OpenFile, refusal},
    recovery::orphan,
};
use crate::{
    sftp::{attrs::Attrs, request::open_flags},
    vfs::{
        Refusal,
        attributes::merge,
        open::{OpenDecision, OpenPlan, already_accepted},
    },
};
use dropgate_backends::{StateError, instance::OWNER_TTL};
use dropgate_schemas::{
    audit::Action,
    change::Durability,
    id::UploadId,
    path::VirtualPath,
    time::Timestamp,
    upload::{Attributes, BlobRef, Upload, UploadState},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an OPEN, or a RENAME onto the name, waits for a delivery to settle, or for an old handle to be cleared away.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// What an OPEN asks for, and what it may have.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    attrs: &'a Attrs,
    append: bool,
    room: Option<u64>,
}

impl Committer {
    /// OPEN for writing.
    ///
    /// # Errors
    /// Why it may not be opened.
    pub async fn open(&self, path: VirtualPath, flags: u32, attrs: &Attrs) -> Result<Arc<OpenFile>, Refusal> {
        let append = flags & open_flags::APPEND != 0 && flags & open_flags::TRUNC == 0;
        let deadline = Instant::now() + WAIT;
        let mut conflicts = 0;
        loop {
            match self.tree.decide_open(&path, flags).await? {
                OpenDecision::Go(plan) => {
                    self.storage.may_begin()?;
                    let room = self.room_for(&plan, attrs.size).await?;
                    match self.start(&path, plan, Wanted { attrs, append, room }).await {
                        Err(Refusal::Conflict) if conflicts < TRIES => conflicts += 1,
                        other => return other,
                    }
                }
                OpenDecision::Occupied(upload) => self.clear(&upload, deadline).await?,
                OpenDecision::Delivering(_) => {
                    if Instant::now() >= deadline || self.draining.is_cancelled() {
                        return Err(Refusal::failure(format!(
                            "{path} is being delivered: try again in a moment"
                        )));
                    }
                    self.backends.state.changed(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Takes an upload from a handle that may lose it. On return the name should be looked at again.
    async fn clear(&self, upload: &Upload, deadline: Instant) -> Result<(), Refusal> {
        let in_use = || Self::in_use(&upload.path);
        if let Some(file) = self.live.get(upload.upload_id) {
            if file.may_be_taken() {
                file.interrupt(self, "continued by another session of the account").await;
                return Ok(());
            }
            // A CLOSE ends by itself, and so does the clean-up after a lost connection.
            if !file.is_closing() || Instant::now() >= deadline {
                return Err(in_use());
            }
        } else if upload.owner == Some(self.facts.instance) {
            // Ours, but not open: about to be registered or cleared away, or left behind by a failed clean-up.
            if Instant::now() >= deadline {
                return Ok(orphan(self.backends.state.as_ref(), upload.clone(), &self.facts.node).await?);
            }
        } else if upload.owner.is_none_or(|owner| self.liveness.is_dead(owner, OWNER_TTL)) {
            return Ok(orphan(self.backends.state.as_ref(), upload.clone(), &self.facts.node).await?);
        } else {
            return Err(in_use());
        }
        self.backends.state.changed(Duration::from_millis(100)).await;
        Ok(())
    }

    async fn start(
        &self,
        path: &VirtualPath,
        plan: OpenPlan,
        wanted: Wanted<'_>,
    ) -> Result<Arc<OpenFile>, Refusal> {
        let Wanted { attrs, append, room } = wanted;
        match plan {
            OpenPlan::Create { over, truncate } => self.create(path, over, truncate, wanted).await,
            OpenPlan::Restart(upload) => {
                let old = upload.staged.as_ref().and_then(|s| s.blob.as_ref()).map(|b| b.blob);
                let old = old.or(match upload.blob {
                    Some(BlobRef::Stored { blob }) => Some(blob),
                    Some(BlobRef::Inline) | None => None,
                });
                let record = self.receive(*upload, path, attrs, false).await?;
                self.delete_later(old.into_iter().collect());
                let bytes = OpenUpload::fresh(self.upload_context(record.epoch, room));
                Ok(self.register(NewFile {
                    record,
                    bytes,
                    beginning: Beginning::Free,
                    declared_at_open: attrs.size,
                    complete_before: None,
                    resumed: false,
                    keeps: None,
                }))
            }
            OpenPlan::Continue(upload) if upload.state == UploadState::Held => {
                self.reopen_held(*upload, wanted).await
            }
            OpenPlan::Continue(upload) => {
                let Some(staged) = upload.staged.clone() else { return Err(Refusal::Conflict) };
                let record = self.receive(*upload, path, attrs, true).await?;
                let bytes = OpenUpload::resume(self.upload_context(record.epoch, room), staged)
                    .map_err(|e| refusal(&e))?;
                Ok(self.register(NewFile {
                    record,
                    beginning: end(append, bytes.received()),
                    bytes,
                    declared_at_open: attrs.size,
                    complete_before: None,
                    resumed: true,
                    keeps: None,
                }))
            }
        }
    }

    async fn create(
        &self,
        path: &VirtualPath,
        over: Option<Box<Upload>>,
        truncate: bool,
        Wanted { attrs, append, room }: Wanted<'_>,
    ) -> Result<Arc<OpenFile>, Refusal> {
        let account = &self.facts.account;
        let mut attributes = merge(Attributes::default(), attrs);
        if let Some(over) = &over {
            // The mode in an OPEN is for a new file; sshfs sends 0 when it opens one that exists.
            attributes.permissions = over.attributes.permissions;
        }
        let version = self.backends.state.highest_version(&account.name, path).await?.saturating_add(1);
        let now = Timestamp::now();
        let upload = Upload {
            upload_id: UploadId::new(),
            account: account.name.clone(),
            partner: account.partner.clone(),
            path: path.clone(),
            opened_as: path.clone(),
            version,
            state: UploadState::Receiving,
            revision: 0,
            epoch: 1,
            owner: Some(self.facts.instance),
            client: self.facts.client(),
            opened_at: now,
            updated_at: now,
            received_at: None,
            settled_at: None,
            deleted_at: None,
            attributes,
            declared_size: attrs.size,
            staged: None,
            blob: None,
            size: None,
            sha256: None,
            content_type: None,
            evidence: None,
            receipt_id: None,
            answered: false,
            reason: None,
            supersede_intent: None,
            supersedes: None,
            superseded_by: None,
            retry_of: None,
            generation: 0,
            deliveries: vec![],
        };
        let mut entry = self.entry(Action::UploadOpen, "OPEN", &upload, UploadState::Receiving);
        entry.before = None;
        let record = self.write_or_conflict(upload, entry).await?;
        let bytes = OpenUpload::fresh(self.upload_context(record.epoch, room));
        let beginning = match &over {
            Some(over) => {
                Beginning::Whole { shown: over.visible_size(), append, refusal: already_accepted(path) }
            }
            None => Beginning::Free,
        };
        Ok(self.register(NewFile {
            record,
            bytes,
            beginning,
            declared_at_open: attrs.size,
            complete_before: None,
            resumed: false,
            keeps: over.filter(|_| !truncate).map(|u| *u),
        }))
    }

    /// Makes this session the owner of an unfinished record.
    async fn receive(
        &self,
        upload: Upload,
        path: &VirtualPath,
        attrs: &Attrs,
        keep: bool,
    ) -> Result<Upload, Refusal> {
        let before = upload.state;
        let receiving = Upload {
            path: path.clone(),
            state: UploadState::Receiving,
            epoch: upload.epoch.saturating_add(1),
            owner: Some(self.facts.instance),
            client: self.facts.client(),
            updated_at: Timestamp::now(),
            attributes: merge(upload.attributes, attrs),
            declared_size: attrs.size,
            staged: upload.staged.clone().filter(|_| keep),
            blob: None,
            size: None,
            sha256: None,
            content_type: None,
            evidence: None,
            supersede_intent: None,
            ..upload
        };
        let mut entry = self.entry(
            if keep { Action::UploadResume } else { Action::UploadOpen },
            "OPEN",
            &receiving,
            before,
        );
        entry.size = keep.then(|| receiving.visible_size());
        self.write_or_conflict(receiving, entry).await
    }

    /// OPEN without TRUNC of a file that is complete under its temp name. Nothing changes until bytes are written: a
    /// client that finds it complete only closes and renames it.
    async fn reopen_held(
        &self,
        upload: Upload,
        Wanted { attrs, append, room }: Wanted<'_>,
    ) -> Result<Arc<OpenFile>, Refusal> {
        let size = upload.visible_size();
        let complete_before = upload.size.zip(upload.sha256);
        let content = match upload.blob {
            Some(BlobRef::Inline) => self.backends.state.inline(upload.upload_id).await?,
            Some(BlobRef::Stored { .. }) | None => None,
        };
        let path = upload.path.clone();
        let epoch = upload.epoch.saturating_add(1);
        let (bytes, beginning) = match content {
            Some(content) => {
                (OpenUpload::resume_inline(self.upload_context(epoch, room), &content), end(append, size))
            }
            None => {
                let refusal = Refusal::failure(format!(
                    "{path} is complete with {size} bytes: rename it to its final name, or upload it again from the start"
                ));
                (
                    OpenUpload::fresh(self.upload_context(epoch, room)),
                    Beginning::Whole { shown: size, append, refusal },
                )
            }
        };
        let before = upload.state;
        let held = Upload {
            epoch,
            client: self.facts.client(),
            updated_at: Timestamp::now(),
            attributes: merge(upload.attributes, attrs),
            ..upload
        };
        let entry = self.entry(Action::UploadResume, "OPEN", &held, before);
        let record = self.write_or_conflict(held, entry).await?;
        Ok(self.register(NewFile {
            record,
            bytes,
            beginning,
            declared_at_open: attrs.size,
            complete_before,
            resumed: false,
            keeps: None,
        }))
    }

    /// The first byte came for a file that was complete under its temp name: it is being received again.
    pub(super) async fn reopen(&self, file: &OpenFile) -> Result<(), Refusal> {
        let mut record = file.record().lock().await;
        let receiving = Upload {
            state: UploadState::Receiving,
            owner: Some(self.facts.instance),
            updated_at: Timestamp::now(),
            blob: None,
            size: None,
            sha256: None,
            content_type: None,
            evidence: None,
            supersede_intent: None,
            ..record.clone()
        };
        let entry = self.entry(Action::UploadOpen, "WRITE", &receiving, record.state);
        *record = self.write_or_conflict(receiving, entry).await?;
        Ok(())
    }

    async fn write_or_conflict(
        &self,
        upload: Upload,
        entry: dropgate_schemas::audit::AuditEntry,
    ) -> Result<Upload, Refusal> {
        match self.write(upload, None, vec![entry], vec![], Durability::Visible).await {
            Err(StateError::Conflict { .. } | StateError::NotFound(_)) => Err(Refusal::Conflict),
            other => Ok(other?),
        }
    }

    fn register(&self, new: NewFile) -> Arc<OpenFile> {
        let id = new.record.upload_id;
        let file = OpenFile::new(new);
        self.live.add(id, Arc::clone(&file));
        file
    }

    fn upload_context(&self, epoch: u64, quota_left: Option<u64>) -> UploadContext {
        UploadContext {
            store: Arc::clone(&self.backends.blob),
            budgets: self.budgets.clone(),
            options: Arc::clone(&self.options),
            detector: Arc::clone(&self.detector),
            quota_left,
            epoch,
        }
    }
}

/// Where an unfinished upload of `from` bytes goes on.
fn end(append: bool, from: u64) -> Beginning {
    if append { Beginning::End { from } } else { Beginning::Free }
}
