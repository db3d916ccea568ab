//! `dropgate uploads export`: the accepted bytes as a local file, compared with the accepted digest before it appears.

use super::about;
use crate::commands::{account::say, open::Open};
use anyhow::{Context as _, bail};
use dropgate_backends::{UploadQuery, state::UploadOrder};
use dropgate_schemas::{
    audit::Action,
    change::{Change, Durability, Subject},
    digest::Sha256,
    id::UploadId,
    upload::{BlobRef, Upload},
};
use futures::StreamExt as _;
use sha2::Digest as _;
use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// Longest wait for the next piece of a blob.
const PIECE: Duration = Duration::from_secs(30);

/// Runs `uploads export`. The file is written beside its name, verified, put on record, and only then gets its name.
///
/// # Errors
/// If there is no such upload, the bytes are not what was accepted, or the file can't be written.
pub(crate) async fn run(open: &Open, id: UploadId, version: Option<u32>, out: &Path) -> anyhow::Result<()> {
    let upload = chosen(open, id, version).await?;
    if out.exists() {
        bail!("{} exists: name another file with --out, or move it away", out.display());
    }
    let directory = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let file = tempfile::Builder::new().prefix(".dropgate-export-").tempfile_in(directory);
    let mut file = file.with_context(|| format!("a file in {} can't be made", directory.display()))?;
    let digest = copy(open, &upload, file.as_file_mut()).await.with_context(|| format!("upload {id}"))?;
    if Some(digest) != upload.sha256 {
        bail!(
            "upload {id}: the stored bytes have the digest {digest} and not the accepted one; nothing was exported, check \
             the disk of the blob store"
        );
    }
    file.as_file().sync_all().with_context(|| format!("{} can't be written", out.display()))?;
    let mut audit = about(&upload, Action::UploadExport);
    audit.detail.insert("out".to_owned(), out.display().to_string());
    let change = Change {
        subject: Subject::None,
        audit: vec![audit],
        outbox: vec![],
        durability: Durability::Durable,
    };
    open.state().apply(change).await.context("nothing was exported: it can't be put on record")?;
    file.persist_noclobber(out)
        .map_err(|e| e.error)
        .with_context(|| format!("{} can't be written", out.display()))?;
    let size = upload.size.unwrap_or(0);
    say(&format!(
        "{} (version {}): {size} bytes, sha256 {digest}, in {}",
        upload.path,
        upload.version,
        out.display()
    ))
}

async fn chosen(open: &Open, id: UploadId, version: Option<u32>) -> anyhow::Result<Upload> {
    let named = open.upload(id).await?;
    let upload = match version {
        None => named,
        Some(version) => {
            let query = UploadQuery {
                account: Some(named.account.clone()),
                path: Some(named.path.clone()),
                order: UploadOrder::ByVersion,
                limit: 1000,
                ..UploadQuery::default()
            };
            let versions = open.state().find(query).await?;
            versions
                .into_iter()
                .find(|upload| upload.version == version)
                .with_context(|| format!("{} of {} has no version {version}", named.path, named.account))?
        }
    };
    if upload.blob.is_none() || upload.sha256.is_none() {
        bail!(
            "upload {} is {}: it is not complete, so there is nothing to export",
            upload.upload_id,
            upload.state
        );
    }
    Ok(upload)
}

async fn copy(open: &Open, upload: &Upload, out: &mut std::fs::File) -> anyhow::Result<Sha256> {
    let mut digest = sha2::Sha256::new();
    match &upload.blob {
        Some(BlobRef::Inline) => {
            let content = open.state().inline(upload.upload_id).await?;
            let content = content.context("its bytes are not in the state store")?;
            digest.update(&content);
            out.write_all(&content)?;
        }
        Some(BlobRef::Stored { blob }) => {
            let mut progress = Progress::of(upload.size.unwrap_or(0));
            let mut pieces = open.backends.blob.open(*blob, 0).await?;
            while let Some(piece) =
                tokio::time::timeout(PIECE, pieces.next()).await.context("the blob store does not answer")?
            {
                let piece = piece?;
                digest.update(&piece);
                out.write_all(&piece)?;
                progress.add(piece.len());
            }
            progress.end();
        }
        None => bail!("it is not complete"),
    }
    Ok(Sha256(digest.finalize().into()))
}

/// A line on standard error that counts up, if somebody watches.
struct Progress {
    done: u64,
    all: u64,
    shown: Option<Instant>,
    watched: bool,
}

impl Progress {
    fn of(all: u64) -> Self {
        Self { done: 0, all, shown: None, watched: std::io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.watched && self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(200)) {
            self.shown = Some(Instant::now());
            let percent = self.done.saturating_mul(100).checked_div(self.all).unwrap_or(100);
            let _ = write!(std::io::stderr(), "\r{percent:>3} %  {} ", crate::table::bytes(self.done));
        }
    }

    fn end(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r{:<30}\r", "");
        }
    }
}
