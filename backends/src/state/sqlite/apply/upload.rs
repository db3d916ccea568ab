//! The record of an upload, with the columns that queries ask for.

use super::{super::fault::Outcome, check_revision, document};
use crate::state::{MOST_COUNTED, StateError};
use bytes::Bytes;
use dropgate_schemas::{
    id::{InstanceId, UploadId},
    upload::{BlobRef, Upload, UploadState},
};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params, params_from_iter};

/// An upload, ready to be written.
pub(in super::super) struct Row {
    /// The record with its new revision.
    upload: Upload,
    /// What it is based on.
    revision: u64,
    doc: String,
    dir_key: String,
    owners: Vec<u8>,
    inline: Option<Bytes>,
    audited: bool,
}

/// What is stored and decides what may be written.
struct Stored {
    id: i64,
    revision: u64,
    state: UploadState,
    path_key: String,
    area: Option<String>,
    deleted: bool,
    owners: Vec<u8>,
    version: u32,
    digest: Option<[u8; 32]>,
    blob: Option<[u8; 16]>,
    opened_at: i64,
    bytes: Option<i64>,
}

impl Row {
    pub(super) fn new(mut upload: Upload, inline: Option<Bytes>, audited: bool) -> Result<Self, StateError> {
        let revision = upload.revision;
        upload.revision += 1;
        Ok(Self {
            doc: document(&upload)?,
            dir_key: upload.path.parent().key().to_owned(),
            owners: owners(&upload),
            revision,
            upload,
            inline,
            audited,
        })
    }

    pub(super) fn write(&self, db: &Connection) -> Outcome<u64> {
        let stored = self.stored(db)?;
        let what = || format!("upload {}", self.upload.upload_id);
        check_revision(what, self.revision, stored.as_ref().map(|s| s.revision))?;
        let before = stored.as_ref().map(|s| s.state);
        if before != Some(self.upload.state) {
            self.check_arrow(before)?;
        }
        self.check_version(db, stored.as_ref())?;
        let id = match &stored {
            None => self.insert(db)?,
            Some(stored) => self.update(db, stored)?,
        };
        self.write_owners(db, id, stored.as_ref())?;
        self.count(db, stored.as_ref())?;
        if let Some(bytes) = &self.inline {
            db.prepare_cached(
                "INSERT INTO inline_content (upload, bytes) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET bytes = excluded.bytes",
            )?
            .execute((id, bytes.as_ref()))?;
        }
        Ok(self.upload.revision)
    }

    fn stored(&self, db: &Connection) -> Outcome<Option<Stored>> {
        let mut statement = db.prepare_cached(
            "SELECT id, revision, state, path_key, area, deleted, owners, version, sha256, blob, opened_at, bytes
             FROM uploads WHERE upload_id = ?1",
        )?;
        let stored = statement
            .query_row([key(self.upload.upload_id)], |row| {
                Ok((
                    Stored {
                        id: row.get(0)?,
                        revision: row.get(1)?,
                        state: UploadState::Aborted,
                        path_key: row.get(3)?,
                        area: row.get(4)?,
                        deleted: row.get(5)?,
                        owners: row.get(6)?,
                        version: row.get(7)?,
                        digest: row.get(8)?,
                        blob: row.get(9)?,
                        opened_at: row.get(10)?,
                        bytes: row.get(11)?,
                    },
                    row.get::<_, String>(2)?,
                ))
            })
            .optional()?;
        let Some((stored, state)) = stored else { return Ok(None) };
        Ok(Some(Stored { state: state.parse().map_err(StateError::Corrupt)?, ..stored }))
    }

    /// A state is left along an arrow only, and never without an entry in the trail.
    fn check_arrow(&self, before: Option<UploadState>) -> Result<(), StateError> {
        let (id, after) = (self.upload.upload_id, self.upload.state);
        if let Some(before) = before
            && !before.may_become(after)
        {
            return Err(StateError::Rejected(format!("upload {id} is {before} and can't become {after}")));
        }
        if !self.audited {
            return Err(StateError::Rejected(format!(
                "upload {id} would become {after} without an audit entry: no state changes without one"
            )));
        }
        Ok(())
    }

    /// A number is given to one version of a path only.
    fn check_version(&self, db: &Connection, stored: Option<&Stored>) -> Outcome<()> {
        let (account, path, version) = (&self.upload.account, &self.upload.path, self.upload.version);
        let mut statement = db.prepare_cached(
            "SELECT upload_id FROM uploads WHERE account = ?1 AND path_key = ?2 AND version = ?3 AND id <> ?4",
        )?;
        let other: Option<[u8; 16]> = statement
            .query_row(params![account.as_str(), path.key(), version, stored.map_or(0, |s| s.id)], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(other) = other {
            let other = UploadId::from_uuid(uuid::Uuid::from_bytes(other));
            return Err(StateError::Conflict {
                what: format!("version {version} of {path} of account {account}"),
                why: format!("it is upload {other}"),
            }
            .into());
        }
        Ok(())
    }

    fn insert(&self, db: &Connection) -> Outcome<i64> {
        let upload = &self.upload;
        let mut statement = db.prepare_cached(
            "INSERT INTO uploads (upload_id, account, partner, path_key, dir_key, name_key, version, state, area, deleted,
                                  owners, sha256, blob, opened_at, updated_at, revision, answered, doc, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?;
        Ok(statement.insert(params![
            key(upload.upload_id),
            upload.account.as_str(),
            upload.partner.as_str(),
            upload.path.key(),
            self.dir_key,
            upload.path.name_key(),
            upload.version,
            upload.state.as_str(),
            self.area(),
            upload.deleted_at.is_some(),
            self.owners,
            digest(upload),
            blob(upload),
            upload.opened_at.millis(),
            upload.updated_at.millis(),
            upload.revision,
            upload.answered,
            self.doc,
            counted(upload),
        ])?)
    }

    /// SQLite writes every index that a column of the SET list is part of, also where the value stays: so the columns
    /// that have an index are left out where they don't change.
    fn update(&self, db: &Connection, stored: &Stored) -> Outcome<i64> {
        let upload = &self.upload;
        let deleted = upload.deleted_at.is_some();
        let (path_key, name_key, state) = (upload.path.key(), upload.path.name_key(), upload.state.as_str());
        let (updated_at, opened_at) = (upload.updated_at.millis(), upload.opened_at.millis());
        let (area, digest, blob, bytes) = (self.area(), digest(upload), blob(upload), counted(upload));
        let mut columns: Vec<(&str, &dyn ToSql)> = vec![
            ("deleted", &deleted),
            ("owners", &self.owners),
            ("updated_at", &updated_at),
            ("revision", &upload.revision),
            ("doc", &self.doc),
        ];
        let moved = stored.path_key != path_key;
        if moved {
            columns.extend([
                ("path_key", &path_key as &dyn ToSql),
                ("dir_key", &self.dir_key),
                ("name_key", &name_key),
            ]);
        }
        let mut changed = |is: bool, name, value| {
            if is {
                columns.push((name, value));
            }
        };
        changed(moved || stored.version != upload.version, "version", &upload.version);
        changed(stored.state != upload.state, "state", &state);
        changed(stored.area.as_deref() != area, "area", &area);
        changed(stored.digest != digest, "sha256", &digest);
        changed(stored.blob != blob, "blob", &blob);
        changed(upload.answered, "answered", &upload.answered);
        changed(stored.opened_at != opened_at, "opened_at", &opened_at);
        changed(stored.bytes != bytes, "bytes", &bytes);
        let set: Vec<String> = columns.iter().map(|(name, _)| format!("{name} = ?")).collect();
        let values = columns.iter().map(|(_, value)| *value).chain([&stored.id as &dyn ToSql]);
        db.prepare_cached(&format!("UPDATE uploads SET {} WHERE id = ?", set.join(", ")))?
            .execute(params_from_iter(values))?;
        Ok(stored.id)
    }

    fn write_owners(&self, db: &Connection, id: i64, stored: Option<&Stored>) -> Outcome<()> {
        let before = stored.map_or(&[][..], |s| &s.owners);
        if before == self.owners {
            return Ok(());
        }
        for owner in before.chunks(16).filter(|owner| !self.owners.chunks(16).any(|o| o == *owner)) {
            db.prepare_cached("DELETE FROM upload_owners WHERE owner = ?1 AND upload = ?2")?
                .execute((owner, id))?;
        }
        for owner in self.owners.chunks(16).filter(|owner| !before.chunks(16).any(|o| o == *owner)) {
            db.prepare_cached("INSERT INTO upload_owners (owner, upload) VALUES (?1, ?2)")?
                .execute((owner, id))?;
        }
        Ok(())
    }

    fn count(&self, db: &Connection, stored: Option<&Stored>) -> Outcome<()> {
        let before = stored.filter(|s| !s.deleted).map(|s| s.state);
        let after = self.upload.deleted_at.is_none().then_some(self.upload.state);
        if before == after {
            return Ok(());
        }
        for (state, by) in [(before, -1), (after, 1)] {
            if let Some(state) = state {
                db.prepare_cached(
                    "INSERT INTO upload_counts (state, n) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                )?
                .execute((state.as_str(), by))?;
            }
        }
        Ok(())
    }

    fn area(&self) -> Option<&'static str> {
        self.upload.area().map(dropgate_schemas::path::Area::name)
    }
}

fn key(id: UploadId) -> [u8; 16] {
    *id.uuid().as_bytes()
}

/// The gateway that receives it and the workers that hold a delivery of it, each once, one id behind the other.
fn owners(upload: &Upload) -> Vec<u8> {
    let claims = upload.deliveries.iter().filter(|d| d.state.is_claimed()).filter_map(|d| d.owner);
    let mut all: Vec<InstanceId> = upload.owner.into_iter().chain(claims).collect();
    all.sort_unstable();
    all.dedup();
    all.iter().flat_map(|id| *id.uuid().as_bytes()).collect()
}

/// The blob that holds its bytes, or is being filled with them.
fn blob(upload: &Upload) -> Option<[u8; 16]> {
    let id = match &upload.blob {
        Some(BlobRef::Stored { blob }) => *blob,
        Some(BlobRef::Inline) | None => upload.staged.as_ref()?.blob.as_ref()?.blob,
    };
    Some(*id.uuid().as_bytes())
}

fn digest(upload: &Upload) -> Option<[u8; 32]> {
    upload.sha256.map(|digest| digest.0)
}

/// Its bytes, as far as they count for a quota.
fn counted(upload: &Upload) -> Option<i64> {
    let size = upload.size.filter(|_| upload.state != UploadState::Aborted)?;
    i64::try_from(size.min(MOST_COUNTED)).ok()
}
