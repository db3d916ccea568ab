//! Directories as clients list them.

use super::{Refusal, Tree};
use dropgate_backends::{UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    directory::Directory,
    inbox::InboxEntry,
    path::{Area, Place, VirtualPath},
    upload::Upload,
};
use std::collections::VecDeque;

/// One line of a listing.
#[derive(Clone, Debug)]
pub enum Listed {
    /// `.` or `..`, or one of the four system directories.
    System(String),
    /// A directory the partner made.
    Directory(Directory),
    /// A file.
    File(Box<Upload>),
    /// What an outside system registered in `/inbox`.
    Inbox(InboxEntry),
}

/// Where a listing stands: bounded memory, however long the directory is.
#[derive(Debug)]
pub struct Listing {
    path: VirtualPath,
    stage: Stage,
    ready: VecDeque<Listed>,
}

#[derive(Debug)]
enum Stage {
    Start,
    Directories { area: Area, after: Option<String> },
    Files { area: Area, after: Option<String> },
    Inbox { after: Option<String> },
    End,
}

/// So many rows are read from the store at a time.
const BATCH: usize = 500;

impl Listing {
    /// The directory that is listed.
    #[must_use]
    pub const fn path(&self) -> &VirtualPath {
        &self.path
    }
}

impl Tree {
    /// Begins a listing.
    ///
    /// # Errors
    /// [`Refusal::NoSuchFile`] if there is no such directory.
    pub async fn list(&self, path: VirtualPath) -> Result<Listing, Refusal> {
        if self.is_directory(&path).await? {
            Ok(Listing { path, stage: Stage::Start, ready: VecDeque::new() })
        } else {
            Err(Refusal::NoSuchFile(format!("there is no directory {path}")))
        }
    }

    /// The next page, at most `limit` lines; empty at the end.
    ///
    /// # Errors
    /// If the store does not answer; the same page can be asked for again.
    pub async fn next_page(&self, listing: &mut Listing, limit: usize) -> Result<Vec<Listed>, Refusal> {
        while listing.ready.len() < limit {
            if matches!(listing.stage, Stage::End) {
                break;
            }
            self.read_on(listing).await?;
        }
        let n = limit.min(listing.ready.len());
        Ok(listing.ready.drain(..n).collect())
    }

    async fn read_on(&self, listing: &mut Listing) -> Result<(), Refusal> {
        let account = &self.facts.account.name;
        let below = listing.path.in_area(Area::Upload);
        match &listing.stage {
            Stage::Start => {
                listing.ready.extend([".", ".."].map(|n| Listed::System(n.to_owned())));
                listing.stage = match listing.path.place() {
                    Place::Root => {
                        listing.ready.extend(Area::ALL.map(|a| Listed::System(a.name().to_owned())));
                        Stage::End
                    }
                    Place::System(Area::Inbox) => Stage::Inbox { after: None },
                    Place::Below(Area::Inbox) | Place::Outside => Stage::End,
                    Place::System(area) | Place::Below(area) => Stage::Directories { area, after: None },
                };
            }
            Stage::Directories { area, after } => {
                let area = *area;
                let rows = self.state.directories(account, &below, area, after.as_deref(), BATCH).await?;
                listing.stage = match rows.last() {
                    Some(last) if rows.len() >= BATCH => {
                        Stage::Directories { area, after: Some(last.path.name_key().to_owned()) }
                    }
                    _ => Stage::Files { area, after: None },
                };
                listing.ready.extend(rows.into_iter().map(Listed::Directory));
            }
            Stage::Files { area, after } => {
                let area = *area;
                let query = UploadQuery {
                    account: Some(account.clone()),
                    directory: Some(below),
                    area: Some(area),
                    order: after.clone().map_or(UploadOrder::ByName, UploadOrder::ByNameAfter),
                    limit: BATCH,
                    ..UploadQuery::default()
                };
                let rows = self.state.find(query).await?;
                let full = rows.len() >= BATCH;
                let (shown, last) = one_per_name(rows, full);
                listing.stage = match last {
                    Some(after) if full => Stage::Files { area, after: Some(after) },
                    _ => Stage::End,
                };
                listing.ready.extend(shown.into_iter().map(|u| Listed::File(Box::new(slim(u)))));
            }
            Stage::Inbox { after } => {
                let rows = self.state.inbox(account, after.as_deref(), BATCH).await?;
                listing.stage = match rows.last() {
                    Some(last) if rows.len() >= BATCH => {
                        Stage::Inbox { after: Some(last.path.name_key().to_owned()) }
                    }
                    _ => Stage::End,
                };
                listing.ready.extend(rows.into_iter().map(Listed::Inbox));
            }
            Stage::End => {}
        }
        Ok(())
    }
}

/// Without what no line shows: up to 500 of these wait in memory for each open directory.
fn slim(mut upload: Upload) -> Upload {
    upload.size = Some(upload.visible_size());
    upload.staged = None;
    let generation = upload.generation;
    upload.deliveries.retain(|d| d.generation == generation);
    upload.deliveries.truncate(1);
    upload.deliveries.shrink_to_fit();
    upload
}

/// Keeps one version of each name: the newest accepted one, else the newest. `rows` are sorted by name, then by descending
/// version. If the batch was cut (`full`), its last name may be cut too, so it is left for the next batch, unless it is the
/// only one. Returns also the last name kept.
fn one_per_name(rows: Vec<Upload>, full: bool) -> (Vec<Upload>, Option<String>) {
    let mut groups: Vec<Vec<Upload>> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group) if group.first().is_some_and(|g| g.path == row.path) => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    if full && groups.len() > 1 {
        groups.pop();
    }
    let shown: Vec<Upload> = groups
        .into_iter()
        .filter_map(|mut group| {
            let best = group.iter().position(|u| u.state.is_accepted()).unwrap_or(0);
            (best < group.len()).then(|| group.swap_remove(best))
        })
        .collect();
    let last = shown.last().map(|u| u.path.name_key().to_owned());
    (shown, last)
}
