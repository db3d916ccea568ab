//! The tree as it should be, in memory: for each name what is unfinished and what was accepted, and which directories show
//! where. Says what each request must be answered with. It is one long file, since the rules of one name lean on each other
//! and are compared with the contract side by side.

use super::handle::{End, Handle, Kept};
use std::collections::BTreeMap;

pub(crate) const OK: u32 = 0;
pub(crate) const NO_SUCH_FILE: u32 = 2;
pub(crate) const DENIED: u32 = 3;
pub(crate) const FAILURE: u32 = 4;
pub(crate) const UNSUPPORTED: u32 = 8;

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    Status(u32),
    /// OK with this text at its beginning.
    Said(String),
    Handle,
    Directory,
    File {
        size: u64,
        mtime: Option<u32>,
    },
    Names(Vec<String>),
    /// Not asked: two handles of one session on one name, of which either may answer.
    Unasked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Upload,
    Sent,
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// With the bytes that a resume finds if the gateway dies.
    Receiving(Option<Vec<u8>>),
    Partial(Vec<u8>),
    Held(Vec<u8>),
}

/// An upload that is not accepted.
#[derive(Clone, Debug)]
struct Draft {
    id: u64,
    /// Which change of the record this is.
    change: u64,
    stage: Stage,
    mtime: Option<u32>,
    /// The name that it is to replace: its REMOVE came already.
    replaces: Option<String>,
}

/// An upload that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct File {
    id: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) place: Place,
    pub(crate) deleted: bool,
    mtime: Option<u32>,
}

/// What one name under `/upload` means.
#[derive(Clone, Debug, Default)]
struct Name {
    draft: Option<Draft>,
    /// Accepted versions, the current one last.
    files: Vec<File>,
}

/// What the server or this account knows under a path.
enum Found<'m> {
    Directory,
    Draft(&'m Draft),
    File(&'m File),
}

#[derive(Clone, Copy, Debug, Default)]
struct Shows {
    upload: bool,
    sent: bool,
    failed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    names: BTreeMap<String, Name>,
    directories: BTreeMap<String, Shows>,
    /// Open files by session and place.
    pub(crate) handles: BTreeMap<(usize, usize), Handle>,
    /// Versions whose place another one took.
    superseded: Vec<u64>,
    next: u64,
}

/// Where a path lies, and the same path under `/upload`.
pub(crate) fn place_of(path: &str) -> (&str, String) {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let (area, below) = rest.split_once('/').unwrap_or((rest, ""));
    let name = format!("/upload/{below}");
    match area {
        "" => ("root", String::new()),
        "upload" | "sent" | "failed" | "inbox" if below.is_empty() => ("system", format!("/{area}")),
        "upload" | "sent" | "failed" | "inbox" => (area, name),
        _ => ("outside", String::new()),
    }
}

pub(crate) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| parent)
}

fn final_name(name: &str) -> Option<&str> {
    name.strip_suffix(".filepart")
}

impl Name {
    fn here(&self) -> Option<&File> {
        self.files.last().filter(|file| file.place == Place::Upload)
    }
    fn settled(&self, place: Place) -> Option<&File> {
        self.files.last().filter(|file| file.place == place && !file.deleted)
    }
    /// Delivered a moment ago: it still answers where it was put.
    fn just_settled(&self) -> Option<&File> {
        self.files.last().filter(|file| file.place != Place::Upload && !file.deleted)
    }
    fn is_shown(&self) -> bool {
        self.here().is_some() || self.draft.is_some()
    }
}

impl Draft {
    fn visible_size(&self) -> u64 {
        match &self.stage {
            Stage::Receiving(durable) => durable.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Stage::Partial(bytes) | Stage::Held(bytes) => bytes.len() as u64,
        }
    }
}

fn status(good: bool, otherwise: u32) -> Expected {
    Expected::Status(if good { OK } else { otherwise })
}

impl Reference {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn name(&mut self, path: &str) -> &mut Name {
        self.names.entry(path.to_owned()).or_default()
    }

    fn seen(&self, path: &str) -> Name {
        self.names.get(path).cloned().unwrap_or_default()
    }

    fn draft(&mut self, id: u64) -> Option<&mut Draft> {
        self.names.values_mut().filter_map(|name| name.draft.as_mut()).find(|draft| draft.id == id)
    }

    fn drop_draft(&mut self, id: u64) {
        for name in self.names.values_mut() {
            name.draft.take_if(|draft| draft.id == id);
        }
    }

    fn shows(&self, path: &str, area: &str) -> bool {
        let shows = self.directories.get(path).copied().unwrap_or_default();
        match area {
            "upload" => shows.upload,
            "sent" => shows.sent,
            "failed" => shows.failed,
            _ => false,
        }
    }

    /// Whether `path`, which is `name` under `/upload`, is a directory.
    fn is_directory(&self, path: &str) -> bool {
        let (area, name) = place_of(path);
        matches!(area, "root" | "system") || self.shows(&name, area)
    }

    fn find(&self, path: &str) -> Option<Found<'_>> {
        let (area, key) = place_of(path);
        let name = self.names.get(&key);
        let file = match area {
            "root" | "system" => return Some(Found::Directory),
            "upload" => {
                let here = name.and_then(Name::here);
                if here.is_none()
                    && let Some(draft) = name.and_then(|name| name.draft.as_ref())
                {
                    return Some(Found::Draft(draft));
                }
                here.or_else(|| name.and_then(Name::just_settled))
            }
            "sent" => name.and_then(|name| name.settled(Place::Sent)),
            "failed" => name.and_then(|name| name.settled(Place::Failed)),
            _ => None,
        };
        match file {
            Some(file) => Some(Found::File(file)),
            None => self.shows(&key, area).then_some(Found::Directory),
        }
    }

    /// Names directly below `directory` (a path under `/upload`) that show in `area`: directories, then files.
    fn listed(&self, directory: &str, area: &str) -> Vec<String> {
        let place = match area {
            "upload" => Place::Upload,
            "sent" => Place::Sent,
            _ => Place::Failed,
        };
        let below = |path: &&String| parent_of(path) == directory;
        let directories = self.directories.keys().filter(below).filter(|path| self.shows(path, area));
        let files = self.names.iter().filter(|(path, _)| below(path)).filter(|(_, name)| {
            let draft = place == Place::Upload && name.draft.is_some();
            draft || name.files.iter().any(|file| file.place == place && !file.deleted)
        });
        let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        directories.map(last).chain(files.map(|(path, _)| last(path))).collect()
    }

    fn own(&self, session: usize, path: &str) -> Option<(usize, usize)> {
        let own = |(place, handle): &(&(usize, usize), &Handle)| {
            place.0 == session && handle.open && handle.path == path
        };
        self.handles.iter().find(own).map(|(place, _)| *place)
    }

    pub(crate) fn open(
        &mut self,
        session: usize,
        slot: usize,
        path: &str,
        flags: super::Flags,
        size: Option<u64>,
    ) -> Expected {
        if self.handles.contains_key(&(session, slot)) {
            return Expected::Unasked;
        }
        if !flags.write {
            return Expected::Status(DENIED);
        }
        match place_of(path).0 {
            "upload" => {}
            "root" | "system" => return Expected::Status(FAILURE),
            _ => return Expected::Status(DENIED),
        }
        if !self.is_directory(parent_of(path)) {
            return Expected::Status(NO_SUCH_FILE);
        }
        let name = self.seen(path);
        if !name.is_shown() && self.shows(path, "upload") || flags.excl && flags.create && name.is_shown() {
            return Expected::Status(FAILURE);
        }
        if !flags.create && !name.is_shown() && name.files.is_empty() {
            return Expected::Status(NO_SUCH_FILE);
        }
        if matches!(name.draft, Some(Draft { stage: Stage::Receiving(_), .. })) {
            return Expected::Status(FAILURE);
        }
        if self.own(session, path).is_some() {
            return Expected::Unasked;
        }
        let append = flags.append && !flags.truncate;
        let handle = match name.draft.clone() {
            Some(mut draft) => {
                let mut fresh = Handle::fresh(path, draft.id, size);
                fresh.mtime = draft.mtime;
                let again = flags.truncate || name.here().is_some();
                draft.change = self.id();
                let handle = match &draft.stage {
                    Stage::Held(content) if !again => fresh.held(content, draft.change).appending(append),
                    Stage::Partial(content) if !again => {
                        let handle = fresh.resuming(content).appending(append);
                        draft.stage = Stage::Receiving(Some(content.clone()));
                        handle
                    }
                    _ => {
                        draft.stage = Stage::Receiving(None);
                        draft.replaces = None;
                        fresh
                    }
                };
                self.name(path).draft = Some(draft);
                handle
            }
            None => {
                let over = name.here().or_else(|| name.just_settled());
                let id = self.id();
                let stage = Stage::Receiving(None);
                self.name(path).draft = Some(Draft { id, change: id, stage, mtime: None, replaces: None });
                let fresh = Handle::fresh(path, id, size);
                match over {
                    Some(file) => {
                        let size = file.content.len() as u64;
                        let kept = Kept { size, failed: file.place == Place::Failed };
                        fresh.over(size, (!flags.truncate).then_some(kept)).appending(append)
                    }
                    None => fresh,
                }
            }
        };
        self.handles.insert((session, slot), handle);
        Expected::Handle
    }

    pub(crate) fn write(&mut self, at: (usize, usize), offset: u64, data: &[u8]) -> Expected {
        let Some(mut handle) = self.handles.remove(&at) else { return Expected::Status(FAILURE) };
        let good = handle.open && self.try_write(&mut handle, offset, data);
        self.handles.insert(at, handle);
        status(good, FAILURE)
    }

    fn try_write(&mut self, handle: &mut Handle, offset: u64, data: &[u8]) -> bool {
        handle.tried_to_write();
        if handle.refuses(offset) {
            return false;
        }
        if let Some(seen) = handle.held_at {
            // It is complete until the first byte of something else comes, unless somebody changed it meanwhile.
            let change = self.id();
            match self.draft(handle.draft) {
                Some(draft) if draft.change == seen => {
                    (draft.change, draft.stage, draft.replaces) = (change, Stage::Receiving(None), None);
                    handle.held_at = None;
                }
                _ => return false,
            }
        }
        handle.write(offset, data);
        true
    }

    pub(crate) fn fstat(&self, at: (usize, usize)) -> Expected {
        match self.handles.get(&at) {
            Some(handle) => Expected::File { size: handle.visible_size(), mtime: handle.mtime },
            None => Expected::Status(FAILURE),
        }
    }

    pub(crate) fn set_handle(
        &mut self,
        at: (usize, usize),
        size: Option<u64>,
        mtime: Option<u32>,
    ) -> Expected {
        match self.handles.get_mut(&at) {
            None => Expected::Status(FAILURE),
            // Its record and its bytes would part ways until CLOSE.
            Some(handle) if handle.held_at.is_some() && size.is_some() => Expected::Unasked,
            Some(handle) if !handle.open => Expected::Status(FAILURE),
            Some(handle) => status(handle.set(size, mtime), FAILURE),
        }
    }

    pub(crate) fn close(&mut self, at: (usize, usize)) -> Expected {
        let Some(handle) = self.handles.remove(&at) else { return Expected::Status(FAILURE) };
        if !handle.open {
            return Expected::Status(FAILURE);
        }
        let temp = final_name(&handle.path).is_some();
        match handle.close(temp) {
            End::Unchanged => Expected::Said("held, waiting for rename".to_owned()),
            End::Kept(failed) => {
                self.drop_draft(handle.draft);
                if failed {
                    Expected::Status(FAILURE)
                } else {
                    Expected::Said("nothing was written".to_owned())
                }
            }
            End::Parked(good) => {
                self.park(&handle);
                if good { Expected::Said("kept, not complete".to_owned()) } else { Expected::Status(FAILURE) }
            }
            End::Complete if temp => {
                let change = self.id();
                if let Some(draft) = self.draft(handle.draft) {
                    draft.stage = Stage::Held(handle.content);
                    (draft.change, draft.mtime) = (change, handle.mtime);
                }
                Expected::Said("held, waiting for rename".to_owned())
            }
            End::Complete => {
                self.drop_draft(handle.draft);
                self.accept(&handle.path, handle.content, handle.mtime)
            }
        }
    }

    fn accept(&mut self, path: &str, content: Vec<u8>, mtime: Option<u32>) -> Expected {
        let said = format!("accepted sha256={} receipt=", super::sha256(&content));
        let id = self.id();
        self.put(path, File { id, content, place: Place::Upload, deleted: false, mtime });
        Expected::Said(said)
    }

    fn put(&mut self, path: &str, file: File) {
        let older: Vec<u64> = self.name(path).files.iter().map(|file| file.id).collect();
        self.superseded.extend(older);
        self.name(path).files.push(file);
    }

    fn park(&mut self, handle: &Handle) {
        if handle.content.is_empty() {
            return self.drop_draft(handle.draft);
        }
        let change = self.id();
        if let Some(draft) = self.draft(handle.draft) {
            draft.stage = Stage::Partial(handle.content.clone());
            (draft.change, draft.mtime) = (change, handle.mtime);
        }
    }

    pub(crate) fn stat(&self, session: usize, path: &str) -> Expected {
        if let Some(at) = self.own(session, path) {
            return self.fstat(at);
        }
        match self.find(path) {
            None => Expected::Status(NO_SUCH_FILE),
            Some(Found::Directory) => Expected::Directory,
            Some(Found::Draft(draft)) => Expected::File { size: draft.visible_size(), mtime: draft.mtime },
            Some(Found::File(file)) => Expected::File { size: file.content.len() as u64, mtime: file.mtime },
        }
    }

    pub(crate) fn list(&self, path: &str) -> Expected {
        let (area, key) = place_of(path);
        if !self.is_directory(path) {
            return Expected::Status(NO_SUCH_FILE);
        }
        Expected::Names(match (area, key.as_str()) {
            ("root", _) => ["upload", "inbox", "sent", "failed"].map(str::to_owned).to_vec(),
            ("system", "/inbox") => vec![],
            ("system", system) => self.listed("/upload", system.trim_start_matches('/')),
            (area, key) => self.listed(key, area),
        })
    }

    pub(crate) fn set_path(
        &mut self,
        session: usize,
        path: &str,
        size: Option<u64>,
        mtime: Option<u32>,
    ) -> Expected {
        if let Some(at) = self.own(session, path) {
            return self.set_handle(at, size, mtime);
        }
        let (receiving, failed, there) = match self.find(path) {
            None => return Expected::Status(NO_SUCH_FILE),
            Some(Found::Directory) => return Expected::Status(OK),
            Some(Found::Draft(Draft { id, stage: Stage::Receiving(_), .. })) => (Some(*id), false, 0),
            Some(Found::Draft(draft)) => (None, false, draft.visible_size()),
            Some(Found::File(file)) => (None, file.place == Place::Failed, file.content.len() as u64),
        };
        if let Some(id) = receiving {
            let receives = |handle: &&mut Handle| handle.receives(id);
            let handle = self.handles.values_mut().find(receives);
            return match handle {
                Some(handle) if size.is_none_or(|size| size == handle.visible_size()) => {
                    handle.mtime = mtime.or(handle.mtime);
                    Expected::Status(OK)
                }
                _ => Expected::Status(FAILURE),
            };
        }
        if failed {
            return Expected::Status(DENIED);
        }
        if size.is_some_and(|size| size != there) {
            return Expected::Status(FAILURE);
        }
        let change = self.id();
        let (area, key) = place_of(path);
        let name = self.name(&key);
        let shows_draft = area == "upload" && name.here().is_none();
        match (&mut name.draft, name.files.last_mut()) {
            (Some(draft), _) if shows_draft => {
                if mtime.is_some() && draft.mtime != mtime {
                    (draft.change, draft.mtime) = (change, mtime);
                }
            }
            (_, Some(file)) => file.mtime = mtime.or(file.mtime),
            (_, None) => {}
        }
        Expected::Status(OK)
    }

    pub(crate) fn remove(&mut self, path: &str) -> Expected {
        let (area, key) = place_of(path);
        let name = self.seen(&key);
        match area {
            "sent" | "failed" => {
                let place = if area == "sent" { Place::Sent } else { Place::Failed };
                if name.settled(place).is_none() {
                    return Expected::Status(if self.shows(&key, area) { FAILURE } else { NO_SUCH_FILE });
                }
                if let Some(file) = self.name(&key).files.last_mut() {
                    file.deleted = true;
                }
                self.tidy(parent_of(&key), area);
                Expected::Status(OK)
            }
            "upload" => self.remove_here(&key, &name),
            "outside" => Expected::Status(NO_SUCH_FILE),
            _ => Expected::Status(DENIED),
        }
    }

    fn remove_here(&mut self, path: &str, name: &Name) -> Expected {
        let change = self.id();
        if !name.files.is_empty()
            && let Some(draft) = &mut self.name(&format!("{path}.filepart")).draft
            && matches!(draft.stage, Stage::Held(_))
        {
            draft.replaces = Some(path.to_owned());
            draft.change = change;
            return Expected::Status(OK);
        }
        match &name.draft {
            _ if name.here().is_some() => Expected::Status(DENIED),
            Some(draft) => {
                let id = draft.id;
                if matches!(draft.stage, Stage::Receiving(_)) {
                    let receiving = self.handles.values_mut().filter(|handle| handle.receives(id));
                    receiving.for_each(|handle| handle.open = false);
                }
                self.drop_draft(id);
                Expected::Status(OK)
            }
            None if name.just_settled().is_some() => Expected::Status(DENIED),
            None => Expected::Status(if self.shows(path, "upload") { FAILURE } else { NO_SUCH_FILE }),
        }
    }

    /// The mirror of a directory that is gone goes with its last entry.
    fn tidy(&mut self, directory: &str, area: &str) {
        if self.shows(directory, "upload") || !self.listed(directory, area).is_empty() {
            return;
        }
        if let Some(shows) = self.directories.get_mut(directory) {
            match area {
                "sent" => shows.sent = false,
                _ => shows.failed = false,
            }
        }
    }

    pub(crate) fn mkdir(&mut self, path: &str) -> Expected {
        match place_of(path).0 {
            "upload" => {}
            "root" | "system" => return Expected::Status(FAILURE),
            _ => return Expected::Status(DENIED),
        }
        if !self.is_directory(parent_of(path)) {
            return Expected::Status(NO_SUCH_FILE);
        }
        if self.find(path).is_some() {
            return Expected::Status(FAILURE);
        }
        self.directories.insert(path.to_owned(), Shows { upload: true, sent: true, failed: true });
        Expected::Status(OK)
    }

    pub(crate) fn rmdir(&mut self, path: &str) -> Expected {
        match place_of(path).0 {
            "upload" => {}
            "outside" => return Expected::Status(NO_SUCH_FILE),
            _ => return Expected::Status(DENIED),
        }
        match self.find(path) {
            None => Expected::Status(NO_SUCH_FILE),
            Some(Found::Draft(_) | Found::File(_)) => Expected::Status(FAILURE),
            Some(Found::Directory) if !self.listed(path, "upload").is_empty() => Expected::Status(FAILURE),
            Some(Found::Directory) => {
                let (sent, failed) =
                    (!self.listed(path, "sent").is_empty(), !self.listed(path, "failed").is_empty());
                self.directories.insert(path.to_owned(), Shows { upload: false, sent, failed });
                Expected::Status(OK)
            }
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, replace: bool) -> Expected {
        if place_of(from).0 != "upload" || place_of(to).0 != "upload" || parent_of(from) != parent_of(to) {
            return Expected::Status(DENIED);
        }
        let (source, target) = (self.seen(from), self.seen(to));
        if !source.is_shown() {
            return Expected::Status(if self.shows(from, "upload") {
                UNSUPPORTED
            } else if source.just_settled().is_some() {
                FAILURE
            } else {
                NO_SUCH_FILE
            });
        }
        if from == to {
            return Expected::Status(OK);
        }
        let to_temp = final_name(to).is_some();
        let busy = matches!(target.draft, Some(Draft { stage: Stage::Receiving(_), .. }));
        let file = source.here().cloned();
        let draft = source.draft.filter(|_| file.is_none());
        let held = match &draft {
            Some(Draft { stage: Stage::Held(content), .. }) => Some(content.clone()),
            Some(_) => return Expected::Status(FAILURE),
            None => None,
        };
        let replace = replace || draft.as_ref().is_some_and(|draft| draft.replaces.as_deref() == Some(to));
        let taken = if to_temp {
            file.is_some() || target.is_shown()
        } else {
            busy || target.here().is_some() && !replace
        };
        if self.shows(to, "upload") || taken {
            return Expected::Status(FAILURE);
        }
        match (draft, held, file) {
            (Some(mut draft), Some(content), _) => {
                self.drop_draft(draft.id);
                if !to_temp {
                    return self.accept(to, content, draft.mtime);
                }
                draft.change = self.id();
                self.name(to).draft = Some(draft);
            }
            (_, _, Some(file)) => {
                self.name(from).files.pop();
                self.put(to, file);
            }
            _ => {}
        }
        Expected::Status(OK)
    }

    /// A worker delivers the file at `path`, or gives it up. False if there is none to deliver.
    pub(crate) fn deliver(&mut self, path: &str, to: Place) -> bool {
        match self.name(path).files.last_mut().filter(|file| file.place == Place::Upload) {
            Some(file) => {
                file.place = to;
                true
            }
            None => false,
        }
    }

    /// The relay takes away the versions that others took the place of.
    pub(crate) fn supersede(&mut self) {
        let gone = std::mem::take(&mut self.superseded);
        for name in self.names.values_mut() {
            name.files.retain(|file| !gone.contains(&file.id));
        }
    }

    /// A session's connection is lost.
    pub(crate) fn disconnect(&mut self, session: usize) {
        let of_session: Vec<(usize, usize)> =
            self.handles.keys().filter(|at| at.0 == session).copied().collect();
        for at in of_session {
            let Some(handle) = self.handles.remove(&at) else { continue };
            if handle.open && !handle.is_unchanged() {
                self.park(&handle);
            }
        }
    }

    /// The gateway dies and starts again.
    pub(crate) fn restart(&mut self) {
        self.handles.clear();
        for name in self.names.values_mut() {
            if let Some(draft) = &mut name.draft
                && let Stage::Receiving(durable) = &mut draft.stage
            {
                match durable.take() {
                    Some(content) => draft.stage = Stage::Partial(content),
                    None => name.draft = None,
                }
            }
        }
    }

    /// Every accepted file, by name.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &File)> {
        self.names.iter().flat_map(|(path, name)| name.files.iter().map(move |file| (path, file)))
    }
}
