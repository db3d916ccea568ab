//! Directories that partners make. A directory is a row of the state store, mirrored under `/sent` and `/failed`.

use super::{Refusal, Tree, lookup::Entry};
use dropgate_backends::{StateError, UploadQuery};
use dropgate_schemas::{
    audit::{Action, AuditResult},
    change::{Change, Durability, Subject},
    directory::Directory,
    path::{Area, Place, VirtualPath},
    time::Timestamp,
};

impl Tree {
    /// MKDIR.
    ///
    /// # Errors
    /// If it exists, is not below `/upload`, or its parent does not exist.
    pub async fn make_directory(&self, path: VirtualPath) -> Result<(), Refusal> {
        match path.place() {
            Place::Below(Area::Upload) => {}
            Place::Root | Place::System(_) => return Err(Refusal::failure(format!("{path} exists already"))),
            Place::Below(_) | Place::Outside => {
                return Err(Refusal::denied("directories can be made below /upload only"));
            }
        }
        if !self.is_directory(&path.parent()).await? {
            return Err(Refusal::NoSuchFile(format!(
                "the directory {} does not exist: make it first",
                path.parent()
            )));
        }
        match self.lookup(&path).await {
            Ok(Entry::File(_) | Entry::Inbox(_)) => {
                return Err(Refusal::failure(format!("{path} exists already and is a file")));
            }
            Ok(Entry::System | Entry::Directory(_)) => {
                return Err(Refusal::failure(format!("{path} exists already")));
            }
            Err(Refusal::NoSuchFile(_)) => {}
            Err(other) => return Err(other),
        }
        let account = &self.facts.account.name;
        let now = Timestamp::now();
        let directory = match self.state.directory(account, &path).await? {
            // One that was removed before: it comes back, with its mirrors.
            Some(old) => Directory {
                path: path.clone(),
                in_upload: true,
                in_sent: true,
                in_failed: true,
                updated_at: now,
                ..old
            },
            None => Directory {
                account: account.clone(),
                path: path.clone(),
                revision: 0,
                in_upload: true,
                in_sent: true,
                in_failed: true,
                created_at: now,
                updated_at: now,
            },
        };
        match self.write_directory(directory, Action::DirectoryMake, "MKDIR").await {
            Err(StateError::Conflict { .. }) => Err(Refusal::failure(format!("{path} exists already"))),
            other => Ok(other?),
        }
    }

    /// RMDIR. The directory goes from `/upload`; its mirrors stay as long as they list something.
    ///
    /// # Errors
    /// If it is not one the partner made under `/upload`, or is not empty there.
    pub async fn remove_directory(&self, path: VirtualPath) -> Result<(), Refusal> {
        match path.place() {
            Place::Below(Area::Upload) => {}
            Place::Root | Place::System(_) => {
                return Err(Refusal::denied(format!("{path} belongs to the server and can't be removed")));
            }
            Place::Below(_) => {
                return Err(Refusal::denied(
                    "directories are removed below /upload; their mirrors follow by themselves",
                ));
            }
            Place::Outside => return Err(Refusal::missing(&path)),
        }
        let directory = match self.lookup(&path).await? {
            Entry::Directory(directory) => directory,
            Entry::File(_) | Entry::Inbox(_) => {
                return Err(Refusal::failure(format!("{path} is a file, not a directory")));
            }
            Entry::System => return Err(Refusal::denied(format!("{path} belongs to the server"))),
        };
        if self.lists_something(&path, Area::Upload).await? {
            return Err(Refusal::failure(format!("{path} is not empty")));
        }
        let updated = Directory {
            in_upload: false,
            in_sent: self.lists_something(&path, Area::Sent).await?,
            in_failed: self.lists_something(&path, Area::Failed).await?,
            updated_at: Timestamp::now(),
            ..directory
        };
        Ok(self.write_directory(updated, Action::DirectoryRemove, "RMDIR").await?)
    }

    /// After the last entry of a mirror was removed: takes away the mirror of a directory that is gone from `/upload`.
    pub(crate) async fn tidy_mirror(&self, path: &VirtualPath, area: Area) -> Result<(), Refusal> {
        let Some(directory) = self.directory_row(path, area).await? else { return Ok(()) };
        if directory.in_upload || self.lists_something(path, area).await? {
            return Ok(());
        }
        let updated = match area {
            Area::Sent => Directory { in_sent: false, ..directory },
            Area::Failed => Directory { in_failed: false, ..directory },
            Area::Upload | Area::Inbox => return Ok(()),
        };
        match self
            .write_directory(
                Directory { updated_at: Timestamp::now(), ..updated },
                Action::DirectoryRemove,
                "REMOVE",
            )
            .await
        {
            // Somebody made it again meanwhile: it stays.
            Err(StateError::Conflict { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    async fn lists_something(&self, path: &VirtualPath, area: Area) -> Result<bool, Refusal> {
        let account = &self.facts.account.name;
        let directory = path.in_area(Area::Upload);
        if !self.state.directories(account, &directory, area, None, 1).await?.is_empty() {
            return Ok(true);
        }
        let query = UploadQuery {
            account: Some(account.clone()),
            directory: Some(directory),
            area: Some(area),
            limit: 1,
            ..UploadQuery::default()
        };
        Ok(!self.state.find(query).await?.is_empty())
    }

    async fn write_directory(
        &self,
        directory: Directory,
        action: Action,
        request: &str,
    ) -> Result<(), StateError> {
        let mut entry = self.facts.entry(action, AuditResult::Ok);
        entry.request = Some(request.to_owned());
        entry.subject = Some(directory.path.to_string());
        self.state
            .apply(Change {
                subject: Subject::Directory(directory),
                audit: vec![entry],
                outbox: vec![],
                durability: Durability::Durable,
            })
            .await
            .map(|_| ())
    }
}
