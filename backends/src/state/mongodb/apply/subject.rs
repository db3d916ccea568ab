//! What is stored of each kind of subject: the record, and beside it what queries ask for.

use super::{Database, Outcome, Prepared, Target};
use crate::state::{
    StateError,
    mongodb::document::{date, write},
};
use bytes::Bytes;
use dropgate_schemas::{
    account::{Account, AccountName},
    directory::Directory,
    id::{BlobId, InstanceId},
    inbox::InboxEntry,
    path::VirtualPath,
    token::Token,
    upload::{BlobRef, Upload},
};
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};

impl Prepared {
    pub(super) fn about_upload(self, mut upload: Upload, inline: Option<Bytes>) -> Result<Self, StateError> {
        let revision = upload.revision;
        upload.revision += 1;
        let mut fields = doc! {
            "record": write(&upload)?,
            "keys": keys(&upload.path),
            "opened_at": date(upload.opened_at),
            "updated_at": date(upload.updated_at),
            "deleted": upload.deleted_at.is_some(),
        };
        let owners = owners(&upload);
        let mut absent = Vec::new();
        let mut maybe = |name: &'static str, value: Option<Bson>| match value {
            Some(value) => drop(fields.insert(name, value)),
            None => absent.push(name),
        };
        maybe("area", upload.area().map(|area| area.name().into()));
        maybe("blob", blob(&upload).map(|id| id.to_string().into()));
        maybe("owners", (!owners.is_empty()).then(|| owners.into()));
        if let Some(bytes) = inline {
            fields.insert("inline", Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() });
        }
        // Once set it stays, whatever a later record says: it is set without a revision.
        if upload.answered {
            fields.insert("answered", true);
        }
        if revision == 0 {
            absent.clear();
        }
        Ok(Self {
            target: Target::Uploads,
            id: upload.upload_id.to_string(),
            what: format!("upload {}", upload.upload_id),
            revision,
            state: Some(upload.state),
            fields,
            absent,
            ..self
        })
    }

    pub(super) fn about_directory(self, mut directory: Directory) -> Result<Self, StateError> {
        let revision = directory.revision;
        directory.revision += 1;
        Ok(Self {
            target: Target::Directories,
            id: path_id(&directory.account, &directory.path),
            what: format!("directory {} of account {}", directory.path, directory.account),
            revision,
            fields: doc! { "record": write(&directory)?, "keys": keys(&directory.path) },
            ..self
        })
    }

    pub(super) fn about_account(self, mut account: Account) -> Result<Self, StateError> {
        let revision = account.revision;
        account.revision += 1;
        Ok(Self {
            target: Target::Accounts,
            id: account.name.to_string(),
            what: format!("account {}", account.name),
            revision,
            fields: doc! { "record": write(&account)? },
            ..self
        })
    }

    pub(super) fn about_inbox(self, mut entry: InboxEntry) -> Result<Self, StateError> {
        let revision = entry.revision;
        entry.revision += 1;
        Ok(Self {
            target: Target::Inbox,
            id: path_id(&entry.account, &entry.path),
            what: format!("entry {} of account {}", entry.path, entry.account),
            revision,
            fields: doc! {
                "record": write(&entry)?, "keys": keys(&entry.path), "shown": entry.removed_at.is_none(),
            },
            ..self
        })
    }

    pub(super) fn about_token(self, mut token: Token) -> Result<Self, StateError> {
        let revision = token.revision;
        token.revision += 1;
        Ok(Self {
            target: Target::Tokens,
            id: token.id.to_string(),
            what: format!("token {}", token.id),
            revision,
            fields: doc! { "record": write(&token)? },
            ..self
        })
    }

    /// Who has the number of this version, if somebody else has.
    pub(super) async fn taken(&self, db: &Database) -> Outcome<Option<StateError>> {
        if self.target != Target::Uploads {
            return Ok(None);
        }
        let field = |of: &str, name: &str| {
            let of = self.fields.get_document(of).ok();
            of.and_then(|of| of.get(name)).cloned().unwrap_or(Bson::Null)
        };
        let (account, version) = (field("record", "account"), field("record", "version"));
        let same = doc! {
            "record.account": account.clone(), "keys.path": field("keys", "path"), "record.version": version.clone(),
            "_id": { "$ne": &self.id },
        };
        let other = db
            .uploads
            .find_one(same)
            .projection(doc! { "_id": 1 })
            .read_concern(mongodb::options::ReadConcern::local());
        let Some(other) = db.command(other.into_future()).await? else { return Ok(None) };
        let path = field("record", "path");
        let text = |value: &Bson| value.as_str().unwrap_or_default().to_owned();
        Ok(Some(StateError::Conflict {
            what: format!("version {version} of {} of account {}", text(&path), text(&account)),
            why: format!("it is upload {}", other.get_str("_id").unwrap_or_default()),
        }))
    }
}

/// Names can't hold a slash, and every path begins with one.
pub(in super::super) fn path_id(account: &AccountName, path: &VirtualPath) -> String {
    format!("{account}{}", path.key())
}

fn keys(path: &VirtualPath) -> Document {
    doc! { "path": path.key(), "directory": path.parent().key(), "name": path.name_key() }
}

/// The gateway that receives it and the workers that hold a delivery of it, each once.
fn owners(upload: &Upload) -> Vec<String> {
    let claims = upload.deliveries.iter().filter(|d| d.state.is_claimed()).filter_map(|d| d.owner);
    let mut all: Vec<InstanceId> = upload.owner.into_iter().chain(claims).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|id| id.to_string()).collect()
}

/// The blob that holds its bytes, or is being filled with them.
fn blob(upload: &Upload) -> Option<BlobId> {
    Some(match &upload.blob {
        Some(BlobRef::Stored { blob }) => *blob,
        Some(BlobRef::Inline) | None => upload.staged.as_ref()?.blob.as_ref()?.blob,
    })
}
