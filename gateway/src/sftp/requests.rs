//! What each request comes to. Decisions are the tree's, bytes are ingest's; here they become replies.

use super::{
    frame::{MAX_PACKET, MAX_WRITE},
    handles::Handle,
    lanes::Lane,
    longname::{entry_attrs, name_entry},
    reply::{NameEntry, Reply, string},
    request::{Body, WantedDigest},
    session::{Refused, Session},
    status::Status,
};
use crate::{
    ingest::{CloseAnswer, OpenFile, RenameAnswer},
    sftp::attrs::{Attrs, PERMISSION_BITS, REGULAR},
    vfs::{Refusal, attributes::SetDecision, listing::Listing, lookup::Entry, remove::RemoveDecision},
};
use dropgate_schemas::{digest::Sha256, path::VirtualPath, time::Timestamp};
use futures::future::BoxFuture;
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::Mutex as AsyncMutex;

/// Lines of a listing in one reply.
const PAGE: usize = 100;

/// What a request is answered with.
pub(super) type Answer = Result<Reply, Refused>;

/// How a request is answered.
pub(super) enum Plan {
    /// At once, without a backend.
    Now(Answer),
    /// Beside further requests, in its place on its lanes.
    Later {
        /// What it must stay in order with.
        lanes: Vec<Lane>,
        /// The work. Boxed where it is made: these futures are large, and they pass through several hands.
        work: BoxFuture<'static, Answer>,
    },
}

impl Plan {
    fn ok() -> Self {
        Self::Now(Ok(Reply::Status(Status::ok())))
    }
    fn refused(why: Refusal) -> Self {
        Self::Now(Err(why.into()))
    }
    fn later(lane: Lane, work: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self::Later { lanes: vec![lane], work: Box::pin(work) }
    }
}

impl Session {
    /// Decides how to answer a request.
    pub(super) fn plan(self: &Arc<Self>, body: Body<'_>) -> Plan {
        match body {
            Body::Realpath { path } => Plan::Now(self.realpath(path)),
            Body::Limits => Plan::Now(Ok(self.limits_reply())),
            Body::VendorId { vendor, product, version } => {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                self.facts.set_software(&format!("{} {} {}", text(vendor), text(product), text(version)));
                Plan::ok()
            }
            Body::Read { handle } if self.handle(handle).is_some() => Plan::refused(Refusal::denied(
                "files can't be downloaded here: this server only takes uploads",
            )),
            Body::Readlink | Body::Symlink => unsupported("there are no links on this server".to_owned()),
            Body::UnknownExtended { name } => {
                let name = String::from_utf8_lossy(name).chars().take(64).collect::<String>();
                unsupported(format!("this server does not know {name:?}"))
            }
            Body::Unknown { kind } => unsupported(format!("this server does not know request type {kind}")),
            Body::Open { path, flags, attrs } => {
                self.on_path(path, move |session, path| async move { session.open(path, flags, attrs).await })
            }
            Body::Stat { path } | Body::Lstat { path } => {
                self.reads.stats.fetch_add(1, Ordering::Relaxed);
                self.look(path, |session, path| async move { session.stat(&path).await })
            }
            Body::Opendir { path } => {
                self.reads.listings.fetch_add(1, Ordering::Relaxed);
                self.look(path, |session, path| async move {
                    let listing = session.tree.list(path).await?;
                    Ok(session.add_handle(Handle::Directory(Arc::new(AsyncMutex::new(listing))))?)
                })
            }
            Body::Statvfs { path } => self.look(path, |session, _| async move { session.statvfs().await }),
            Body::CheckFileName { path, wanted } => self.look(path, move |session, path| async move {
                let (size, sha256) = session.digest_of(&path).await?;
                digest_reply(wanted, size, sha256)
            }),
            Body::Setstat { path, attrs } | Body::Lsetstat { path, attrs } => {
                self.on_path(path, move |session, path| async move { session.setstat(&path, &attrs).await })
            }
            Body::Remove { path } => {
                self.on_path(path, |session, path| async move { session.remove(&path).await })
            }
            Body::Mkdir { path, .. } => self.on_path(path, |session, path| async move {
                session.tree.make_directory(path).await?;
                Ok(Reply::Status(Status::ok()))
            }),
            Body::Rmdir { path } => self.on_path(path, |session, path| async move {
                session.tree.remove_directory(path).await?;
                Ok(Reply::Status(Status::ok()))
            }),
            Body::Rename { from, to } => self.plan_rename(from, to, false),
            Body::PosixRename { from, to } => self.plan_rename(from, to, true),
            Body::Close { handle } => match self.take_handle(handle) {
                Some(Handle::File(file)) => {
                    let lane = Lane::Path(file.path().key().to_owned());
                    let session = Arc::clone(self);
                    Plan::later(lane, async move { session.close(&file).await })
                }
                Some(Handle::Directory(_)) => Plan::ok(),
                None => Plan::refused(Refusal::BadHandle),
            },
            Body::Fstat { handle }
            | Body::Fsetstat { handle, .. }
            | Body::Fsync { handle }
            | Body::Readdir { handle }
            | Body::CheckFileHandle { handle, .. }
            | Body::Fstatvfs { handle }
            | Body::Read { handle } => match self.handle(handle) {
                Some(Handle::File(file)) => self.plan_on_file(&body, handle, file),
                Some(Handle::Directory(listing)) => self.plan_on_directory(&body, handle, listing),
                None => Plan::refused(Refusal::BadHandle),
            },
        }
    }

    fn plan_on_file(self: &Arc<Self>, body: &Body<'_>, handle: &[u8], file: Arc<OpenFile>) -> Plan {
        match body {
            Body::Fstat { .. } => Plan::Now(Ok(Reply::Attrs(open_file_attrs(&file)))),
            Body::Fsetstat { attrs, .. } => {
                let done = file.set_attributes(attrs).map_err(|why| about(why, file.path()));
                Plan::Now(done.map(|()| Reply::Status(Status::ok())))
            }
            Body::Fsync { .. } => Plan::later(Lane::Handle(handle.to_vec()), async move {
                file.fsync().await.map_err(|why| about(why, file.path()))?;
                Ok(Reply::Status(Status::ok()))
            }),
            Body::CheckFileHandle { wanted, .. } => Plan::Now(match file.digest() {
                Some((size, sha256)) => digest_reply(*wanted, size, sha256),
                None => Err(about(
                    Refusal::failure(
                        "the digest is known once the file is closed: close it, then ask for it by name",
                    ),
                    file.path(),
                )),
            }),
            Body::Fstatvfs { .. } => {
                let session = Arc::clone(self);
                Plan::later(Lane::Handle(handle.to_vec()), async move { session.statvfs().await })
            }
            _ => Plan::refused(Refusal::BadHandle),
        }
    }

    fn plan_on_directory(
        self: &Arc<Self>,
        body: &Body<'_>,
        handle: &[u8],
        listing: Arc<AsyncMutex<Listing>>,
    ) -> Plan {
        let session = Arc::clone(self);
        match body {
            Body::Fstat { .. } => Plan::Now(Ok(Reply::Attrs(entry_attrs(&Entry::System, Timestamp::now())))),
            Body::Fsetstat { .. } => Plan::ok(),
            Body::Fstatvfs { .. } => {
                Plan::later(Lane::Handle(handle.to_vec()), async move { session.statvfs().await })
            }
            Body::Readdir { .. } => Plan::later(Lane::Handle(handle.to_vec()), async move {
                let mut listing = listing.lock().await;
                let lines = session.tree.next_page(&mut listing, PAGE).await?;
                if lines.is_empty() {
                    return Ok(Reply::Status(Status::eof()));
                }
                let now = Timestamp::now();
                let account = session.facts.account.name.as_str();
                Ok(Reply::Name(lines.iter().map(|l| name_entry(l, account, now)).collect()))
            }),
            _ => Plan::refused(Refusal::BadHandle),
        }
    }

    /// A request about one path, in order with others about it.
    fn on_path<W, F>(self: &Arc<Self>, path: &[u8], work: W) -> Plan
    where
        W: FnOnce(Arc<Self>, VirtualPath) -> F,
        F: Future<Output = Answer> + Send + 'static,
    {
        let path = match VirtualPath::parse(path) {
            Ok(path) => path,
            Err(error) => return Plan::Now(Err(Refused { why: error.into(), subject: Some(sent(path)) })),
        };
        let lane = Lane::Path(path.key().to_owned());
        let subject = path.to_string();
        let work = work(Arc::clone(self), path);
        Plan::later(lane, async move {
            work.await.map_err(|refused| Refused { subject: refused.subject.or(Some(subject)), ..refused })
        })
    }

    /// [`Self::on_path`] for a request that only looks: a name that can't exist does not exist, and clients ask before
    /// they choose another.
    fn look<W, F>(self: &Arc<Self>, path: &[u8], work: W) -> Plan
    where
        W: FnOnce(Arc<Self>, VirtualPath) -> F,
        F: Future<Output = Answer> + Send + 'static,
    {
        match VirtualPath::parse(path) {
            Err(error) => Plan::refused(Refusal::NoSuchFile(error.to_string())),
            Ok(_) => self.on_path(path, work),
        }
    }

    fn plan_rename(self: &Arc<Self>, from: &[u8], to: &[u8], replace: bool) -> Plan {
        let (from, to) = match (VirtualPath::parse(from), VirtualPath::parse(to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(error), _) | (_, Err(error)) => {
                return Plan::Now(Err(Refused { why: error.into(), subject: Some(sent(to)) }));
            }
        };
        let lanes = vec![Lane::Path(from.key().to_owned()), Lane::Path(to.key().to_owned())];
        let session = Arc::clone(self);
        Plan::Later { lanes, work: Box::pin(async move { session.rename(&from, &to, replace).await }) }
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

    async fn open(&self, path: VirtualPath, flags: u32, attrs: Attrs) -> Answer {
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

    async fn close(self: &Arc<Self>, file: &OpenFile) -> Answer {
        let text = match file.close(&self.committer).await.map_err(|why| about(why, file.path()))? {
            CloseAnswer::Accepted(acceptance) => self.accepted(&acceptance),
            CloseAnswer::Held => "held, waiting for rename".to_owned(),
            CloseAnswer::Unchanged => "nothing was written: it stays as it was accepted".to_owned(),
            CloseAnswer::Incomplete => "kept, not complete: resume it before it is renamed".to_owned(),
        };
        Ok(Reply::Status(Status::ok_with(text)))
    }

    async fn rename(self: &Arc<Self>, from: &VirtualPath, to: &VirtualPath, replace: bool) -> Answer {
        let refused = |why| Refused { why, subject: Some(format!("{from} to {to}")) };
        let text = match self.committer.rename(from, to, replace).await.map_err(refused)? {
            RenameAnswer::Accepted(acceptance) => self.accepted(&acceptance),
            RenameAnswer::Renamed => String::new(),
        };
        Ok(Reply::Status(Status::ok_with(text)))
    }

    async fn stat(&self, path: &VirtualPath) -> Answer {
        if let Some(file) = self.open_at(path) {
            return Ok(Reply::Attrs(open_file_attrs(&file)));
        }
        let entry = self.tree.lookup(path).await?;
        Ok(Reply::Attrs(entry_attrs(&entry, Timestamp::now())))
    }

    async fn setstat(&self, path: &VirtualPath, attrs: &Attrs) -> Answer {
        // The record of an open file belongs to its handle.
        if let Some(file) = self.open_at(path) {
            file.set_attributes(attrs)?;
        } else {
            match self.tree.set_attributes(path, attrs).await? {
                SetDecision::Done => {}
                SetDecision::Receiving(upload) => self.committer.tell_receiving(&upload, attrs)?,
            }
        }
        Ok(Reply::Status(Status::ok()))
    }

    async fn remove(&self, path: &VirtualPath) -> Answer {
        match self.tree.remove(path, self.committer.temp_names()).await? {
            RemoveDecision::Removed => {}
            RemoveDecision::AbortReceiving(upload) => self.committer.withdraw_receiving(&upload).await?,
        }
        Ok(Reply::Status(Status::ok()))
    }

    /// `statvfs@openssh.com` from the account's quota and the room of the blob store, whichever leaves less.
    async fn statvfs(&self) -> Answer {
        const BLOCK: u64 = 4096;
        const FILES: u64 = u32::MAX as u64;
        let store = self.committer.space().await?.map(|space| (space.total, space.free));
        let quota = self.committer.quota_room().await?.map(|room| (room.total, room.left));
        let Some((total, free)) = store.into_iter().chain(quota).min_by_key(|(_, free)| *free) else {
            let why = "this server's storage does not tell how much room it has";
            return Err(Refusal::Unsupported(why.to_owned()).into());
        };
        let (total, free) = (total / BLOCK, free / BLOCK);
        let mut fields = Vec::with_capacity(88);
        // f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_fsid f_flag f_namemax
        for value in [BLOCK, BLOCK, total, free, free, FILES, FILES, FILES, 0, 0, 255] {
            fields.extend(value.to_be_bytes());
        }
        Ok(Reply::Extended(fields))
    }

    /// Size and digest on record: proof of receipt without reading a byte.
    async fn digest_of(&self, path: &VirtualPath) -> Result<(u64, Sha256), Refused> {
        if let Some(known) = self.open_at(path).and_then(|file| file.digest()) {
            return Ok(known);
        }
        let refused = |why: String| Err(Refusal::failure(why).into());
        match self.tree.lookup(path).await? {
            Entry::File(upload) => match (upload.size, upload.sha256) {
                (Some(size), Some(sha256)) => Ok((size, sha256)),
                _ => refused(format!("{path} is not complete yet: its digest is known once it is closed")),
            },
            Entry::Inbox(entry) => match entry.sha256 {
                Some(sha256) => Ok((entry.size, sha256)),
                None => refused(format!("{path} was registered without a digest")),
            },
            Entry::System | Entry::Directory(_) => {
                refused(format!("{path} is a directory: only files have a digest"))
            }
        }
    }
}

/// The answer to `check-file`.
fn digest_reply(wanted: WantedDigest, size: u64, sha256: Sha256) -> Answer {
    if !wanted.sha256 {
        return Err(Refusal::failure("only sha256 is available: ask for that").into());
    }
    if !wanted.is_whole(size) {
        return Err(Refusal::failure(
            "only the digest of the whole file is available: ask from 0 for length 0 in blocks of 0",
        )
        .into());
    }
    let mut fields = Vec::with_capacity(48);
    string(&mut fields, b"sha256");
    fields.extend(sha256.0);
    Ok(Reply::Extended(fields))
}

fn unsupported(text: String) -> Plan {
    Plan::refused(Refusal::Unsupported(text))
}

/// A path as the client sent it, as far as it can be printed.
fn sent(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(256).collect()
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
