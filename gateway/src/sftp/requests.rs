//! What each request comes to. Decisions are the tree's, bytes are ingest's; here they become replies.

use super::{
    ProtocolEnd,
    frame::{MAX_PACKET, MAX_WRITE},
    handles::Handle,
    lanes::Lane,
    longname::{entry_attrs, name_entry},
    reply::{NameEntry, Reply, string},
    request::Body,
    session::{Refused, Session},
    status::Status,
};
use crate::{
    ingest::{CloseAnswer, OpenFile, RenameAnswer},
    sftp::attrs::{Attrs, PERMISSION_BITS, REGULAR},
    vfs::{Refusal, lookup::Entry, remove::RemoveDecision},
};
use dropgate_schemas::{path::VirtualPath, time::Timestamp, upload::UploadState};
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::Mutex as AsyncMutex;

/// Lines of a listing in one reply.
const PAGE: usize = 100;

type Answer = Result<Reply, Refused>;

impl Session {
    /// Starts a request. What can be answered without a backend is answered at once, in the order of arrival; the rest
    /// runs beside further requests.
    pub(super) async fn dispatch(self: &Arc<Self>, id: u32, body: Body<'_>) -> Result<(), ProtocolEnd> {
        let request = body.name();
        match body {
            Body::Realpath { path } => self.at_once(id, request, self.realpath(path)),
            Body::Limits => self.at_once(id, request, Ok(self.limits_reply())),
            Body::VendorId { vendor, product, version } => {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                self.facts.set_software(&format!("{} {} {}", text(vendor), text(product), text(version)));
                self.at_once(id, request, Ok(Reply::Status(Status::ok())))
            }
            Body::Read { handle } => {
                let why = if self.handle(handle).is_some() {
                    Refusal::denied("files can't be downloaded here: this server only takes uploads")
                } else {
                    Refusal::BadHandle
                };
                self.at_once(id, request, Err(why.into()))
            }
            Body::Readlink | Body::Symlink => self.at_once(
                id,
                request,
                Err(Refusal::Unsupported("there are no links on this server".to_owned()).into()),
            ),
            Body::UnknownExtended { name } => {
                let name = String::from_utf8_lossy(name).chars().take(64).collect::<String>();
                self.at_once(
                    id,
                    request,
                    Err(Refusal::Unsupported(format!("this server does not know {name:?}")).into()),
                )
            }
            Body::Unknown { kind } => self.at_once(
                id,
                request,
                Err(Refusal::Unsupported(format!("this server does not know request type {kind}")).into()),
            ),
            Body::Fstat { handle } => match self.handle(handle) {
                Some(Handle::File(file)) => {
                    self.at_once(id, request, Ok(Reply::Attrs(open_file_attrs(&file))))
                }
                Some(Handle::Directory(_)) => {
                    self.at_once(id, request, Ok(Reply::Attrs(entry_attrs(&Entry::System, Timestamp::now()))))
                }
                None => self.at_once(id, request, Err(Refusal::BadHandle.into())),
            },
            Body::Fsetstat { handle, attrs } => match self.handle(handle) {
                Some(Handle::File(file)) => {
                    let done = file.set_attributes(&attrs);
                    self.at_once(
                        id,
                        request,
                        done.map(|()| Reply::Status(Status::ok())).map_err(|why| about(why, file.path())),
                    )
                }
                Some(Handle::Directory(_)) => self.at_once(id, request, Ok(Reply::Status(Status::ok()))),
                None => self.at_once(id, request, Err(Refusal::BadHandle.into())),
            },
            Body::Close { handle } => match self.take_handle(handle) {
                Some(Handle::File(file)) => self.close(id, file).await,
                Some(Handle::Directory(_)) => self.at_once(id, request, Ok(Reply::Status(Status::ok()))),
                None => self.at_once(id, request, Err(Refusal::BadHandle.into())),
            },
            Body::Fsync { handle } => match self.file(handle) {
                Ok(file) => {
                    let lane = vec![Lane::Handle(handle.to_vec())];
                    self.spawn(id, request, lane, async move {
                        file.fsync().await.map_err(|why| about(why, file.path()))?;
                        Ok(Reply::Status(Status::ok()))
                    })
                    .await
                }
                Err(why) => self.at_once(id, request, Err(why.into())),
            },
            Body::Readdir { handle } => match self.handle(handle) {
                Some(Handle::Directory(listing)) => {
                    let session = Arc::clone(self);
                    let lane = vec![Lane::Handle(handle.to_vec())];
                    self.spawn(id, request, lane, async move {
                        let mut listing = listing.lock().await;
                        let lines = session.tree.next_page(&mut listing, PAGE).await?;
                        if lines.is_empty() {
                            return Ok(Reply::Status(Status::eof()));
                        }
                        let now = Timestamp::now();
                        let account = session.facts.account.name.as_str();
                        Ok(Reply::Name(lines.iter().map(|l| name_entry(l, account, now)).collect()))
                    })
                    .await
                }
                Some(Handle::File(_)) | None => self.at_once(id, request, Err(Refusal::BadHandle.into())),
            },
            Body::CheckFileHandle { handle, .. } => {
                let why = match self.file(handle) {
                    Ok(_) => {
                        Refusal::failure("the digest is known once the file is closed: ask for it by name")
                    }
                    Err(why) => why,
                };
                self.at_once(id, request, Err(why.into()))
            }
            Body::Fstatvfs { handle } => match self.handle(handle) {
                Some(_) => self.statvfs(id, request, vec![]).await,
                None => self.at_once(id, request, Err(Refusal::BadHandle.into())),
            },
            Body::Open { path, flags, attrs } => {
                let open = move |session: Arc<Self>, path: VirtualPath| async move {
                    session.open(path, flags, attrs).await
                };
                self.on_path(id, request, path, open).await
            }
            Body::Stat { path } | Body::Lstat { path } => {
                self.reads.stats.fetch_add(1, Ordering::Relaxed);
                match VirtualPath::parse(path) {
                    // A name that can't exist does not exist: clients ask before they choose another.
                    Err(error) => {
                        self.at_once(id, request, Err(Refusal::NoSuchFile(error.to_string()).into()))
                    }
                    Ok(_) => {
                        self.on_path(
                            id,
                            request,
                            path,
                            |session, path| async move { session.stat(&path).await },
                        )
                        .await
                    }
                }
            }
            Body::Setstat { path, attrs } | Body::Lsetstat { path, attrs } => {
                self.on_path(id, request, path, move |session, path| async move {
                    session.setstat(&path, &attrs).await
                })
                .await
            }
            Body::Opendir { path } => {
                self.reads.listings.fetch_add(1, Ordering::Relaxed);
                self.on_path(id, request, path, |session, path| async move {
                    let listing = session.tree.list(path).await?;
                    Ok(session.add_handle(Handle::Directory(Arc::new(AsyncMutex::new(listing))))?)
                })
                .await
            }
            Body::Remove { path } => {
                self.on_path(id, request, path, |session, path| async move { session.remove(&path).await })
                    .await
            }
            Body::Mkdir { path, .. } => {
                self.on_path(id, request, path, |session, path| async move {
                    session.tree.make_directory(path).await?;
                    Ok(Reply::Status(Status::ok()))
                })
                .await
            }
            Body::Rmdir { path } => {
                self.on_path(id, request, path, |session, path| async move {
                    session.tree.remove_directory(path).await?;
                    Ok(Reply::Status(Status::ok()))
                })
                .await
            }
            Body::Rename { from, to } => self.rename(id, request, from, to, false).await,
            Body::PosixRename { from, to } => self.rename(id, request, from, to, true).await,
            Body::Statvfs { path } => match VirtualPath::parse(path) {
                Err(error) => self.at_once(id, request, Err(Refusal::NoSuchFile(error.to_string()).into())),
                Ok(path) => self.statvfs(id, request, vec![Lane::Path(path.key().to_owned())]).await,
            },
            Body::CheckFileName { path, algorithms, start, length } => {
                let whole = start == 0 && length == 0;
                let sha256 = algorithms.split(|b| *b == b',').any(|name| name == b"sha256");
                self.on_path(id, request, path, move |session, path| async move {
                    session.check_file(&path, sha256, whole).await
                })
                .await
            }
        }
    }

    fn at_once(&self, id: u32, request: &'static str, answer: Answer) -> Result<(), ProtocolEnd> {
        let reply = match answer {
            Ok(reply) => reply,
            Err(refused) => Reply::Status(self.refuse(request, &refused)),
        };
        self.answer(id, &reply)
    }

    /// Runs a request about one path, in order with others about it.
    async fn on_path<W, F>(
        self: &Arc<Self>,
        id: u32,
        request: &'static str,
        path: &[u8],
        work: W,
    ) -> Result<(), ProtocolEnd>
    where
        W: FnOnce(Arc<Self>, VirtualPath) -> F,
        F: Future<Output = Answer> + Send + 'static,
    {
        match VirtualPath::parse(path) {
            Err(error) => {
                let subject = Some(String::from_utf8_lossy(path).chars().take(256).collect());
                self.at_once(id, request, Err(Refused { why: error.into(), subject }))
            }
            Ok(path) => {
                let lane = vec![Lane::Path(path.key().to_owned())];
                let subject = path.to_string();
                let work = work(Arc::clone(self), path);
                self.spawn(id, request, lane, async move {
                    work.await
                        .map_err(|refused| Refused { subject: refused.subject.or(Some(subject)), ..refused })
                })
                .await
            }
        }
    }

    fn realpath(&self, path: &[u8]) -> Answer {
        let path = VirtualPath::parse(path).map_err(Refusal::from)?;
        let name = path.to_string();
        Ok(Reply::Name(vec![NameEntry { longname: name.clone(), name, attrs: Attrs::default() }]))
    }

    /// `limits@openssh.com`. A wrong answer is fatal for OpenSSH's clients.
    fn limits_reply(&self) -> Reply {
        let mut fields = Vec::with_capacity(32);
        let handles = u64::try_from(self.limits.handles).unwrap_or(u64::MAX);
        for value in [u64::from(MAX_PACKET), u64::from(MAX_WRITE), u64::from(MAX_WRITE), handles] {
            fields.extend(value.to_be_bytes());
        }
        Reply::Extended(fields)
    }

    async fn open(self: Arc<Self>, path: VirtualPath, flags: u32, attrs: Attrs) -> Answer {
        if self.handles_full() {
            return Err(Refusal::failure(format!(
                "{} files and directories are open: close some first",
                self.limits.handles
            ))
            .into());
        }
        let file = self.committer.open(path, flags, &attrs).await?;
        match self.add_handle(Handle::File(Arc::clone(&file))) {
            Ok(reply) => Ok(reply),
            Err(why) => {
                file.interrupt(&self.committer, "the session ended while the file was opened").await;
                Err(why.into())
            }
        }
    }

    async fn close(self: &Arc<Self>, id: u32, file: Arc<OpenFile>) -> Result<(), ProtocolEnd> {
        let lanes = vec![Lane::Path(file.path().key().to_owned())];
        let session = Arc::clone(self);
        self.spawn(id, "CLOSE", lanes, async move {
            let text = match file.close(&session.committer).await.map_err(|why| about(why, file.path()))? {
                CloseAnswer::Accepted(acceptance) => {
                    let text =
                        format!("accepted sha256={} receipt={}", acceptance.sha256, acceptance.receipt);
                    session.accepted(&acceptance);
                    text
                }
                CloseAnswer::Held => "held, waiting for rename".to_owned(),
                CloseAnswer::Incomplete => "kept, not complete: resume it before it is renamed".to_owned(),
            };
            Ok(Reply::Status(Status::ok_with(text)))
        })
        .await
    }

    async fn stat(self: Arc<Self>, path: &VirtualPath) -> Answer {
        if let Some(file) = self.open_at(path) {
            return Ok(Reply::Attrs(open_file_attrs(&file)));
        }
        let entry = self.tree.lookup(path).await?;
        Ok(Reply::Attrs(entry_attrs(&entry, Timestamp::now())))
    }

    async fn setstat(self: Arc<Self>, path: &VirtualPath, attrs: &Attrs) -> Answer {
        // The record of an open file belongs to its handle.
        if let Some(file) = self.open_at(path) {
            file.set_attributes(attrs)?;
        } else {
            self.tree.set_attributes(path, attrs).await?;
        }
        Ok(Reply::Status(Status::ok()))
    }

    async fn remove(self: Arc<Self>, path: &VirtualPath) -> Answer {
        match self.tree.remove(path, self.committer.temp_names()).await? {
            RemoveDecision::Removed => {}
            RemoveDecision::AbortReceiving(upload) => self.committer.withdraw_receiving(&upload).await?,
        }
        Ok(Reply::Status(Status::ok()))
    }

    async fn rename(
        self: &Arc<Self>,
        id: u32,
        request: &'static str,
        from: &[u8],
        to: &[u8],
        replace: bool,
    ) -> Result<(), ProtocolEnd> {
        let (from, to) = match (VirtualPath::parse(from), VirtualPath::parse(to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(error), _) | (_, Err(error)) => {
                let subject = Some(String::from_utf8_lossy(to).chars().take(256).collect());
                return self.at_once(id, request, Err(Refused { why: error.into(), subject }));
            }
        };
        let lanes = vec![Lane::Path(from.key().to_owned()), Lane::Path(to.key().to_owned())];
        let session = Arc::clone(self);
        self.spawn(id, request, lanes, async move {
            let subject = Some(format!("{from} to {to}"));
            let answer = session
                .committer
                .rename(&from, &to, replace)
                .await
                .map_err(|why| Refused { why, subject })?;
            let status = match answer {
                RenameAnswer::Accepted(acceptance) => {
                    let text =
                        format!("accepted sha256={} receipt={}", acceptance.sha256, acceptance.receipt);
                    session.accepted(&acceptance);
                    Status::ok_with(text)
                }
                RenameAnswer::Renamed => Status::ok(),
            };
            Ok(Reply::Status(status))
        })
        .await
    }

    /// `statvfs@openssh.com` from the room of the blob store.
    async fn statvfs(
        self: &Arc<Self>,
        id: u32,
        request: &'static str,
        lanes: Vec<Lane>,
    ) -> Result<(), ProtocolEnd> {
        let session = Arc::clone(self);
        self.spawn(id, request, lanes, async move {
            const BLOCK: u64 = 4096;
            let Some(space) = session.committer.space().await? else {
                return Err(Refusal::Unsupported(
                    "this server's storage does not tell how much room it has".to_owned(),
                )
                .into());
            };
            let (total, free) = (space.total / BLOCK, space.free / BLOCK);
            let mut fields = Vec::with_capacity(88);
            // f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_fsid f_flag f_namemax
            for value in [
                BLOCK,
                BLOCK,
                total,
                free,
                free,
                u64::from(u32::MAX),
                u64::from(u32::MAX),
                u64::from(u32::MAX),
                0,
                0,
                255,
            ] {
                fields.extend(value.to_be_bytes());
            }
            Ok(Reply::Extended(fields))
        })
        .await
    }

    /// `check-file-name`: proof of receipt from the stored digest; no byte is read.
    async fn check_file(self: Arc<Self>, path: &VirtualPath, sha256: bool, whole: bool) -> Answer {
        if !sha256 {
            return Err(Refusal::failure("only sha256 is available").into());
        }
        if !whole {
            return Err(Refusal::failure(
                "only the digest of the whole file is available: start 0, length 0",
            )
            .into());
        }
        match self.tree.lookup(path).await? {
            Entry::File(upload) => match upload.sha256 {
                Some(digest) if upload.state != UploadState::Receiving => {
                    let mut fields = Vec::with_capacity(48);
                    string(&mut fields, b"sha256");
                    fields.extend(digest.0);
                    Ok(Reply::Extended(fields))
                }
                Some(_) | None => Err(Refusal::failure(format!("{path} is not complete yet")).into()),
            },
            Entry::System | Entry::Directory(_) => {
                Err(Refusal::failure(format!("{path} is a directory")).into())
            }
        }
    }
}

fn about(why: Refusal, path: &VirtualPath) -> Refused {
    Refused { why, subject: Some(path.to_string()) }
}

fn open_file_attrs(file: &OpenFile) -> Attrs {
    let attributes = file.attributes();
    let now = u32::try_from(Timestamp::now().seconds()).unwrap_or(0);
    let mtime = attributes.mtime.unwrap_or(now);
    Attrs {
        size: Some(file.visible_size()),
        owner: None,
        permissions: Some(REGULAR | (attributes.permissions.unwrap_or(0o644) & PERMISSION_BITS)),
        times: Some((attributes.atime.unwrap_or(mtime), mtime)),
    }
}
