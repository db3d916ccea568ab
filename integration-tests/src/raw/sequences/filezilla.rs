//! FileZilla, whose SFTP is PuTTY's `psftp`: WRITEs of 32 KiB with up to 1 MiB on the way, and CLOSE only after every answer.

use super::{PIECE, W_C_T};
use crate::raw::{Attrs, Raw, Request, frame, reply};
use anyhow::{Context as _, Result};

/// Bytes that may be on the way.
const WINDOW: usize = 1 << 20;

impl Raw {
    /// Looks at the directory, then OPEN W|C|T, WRITEs, CLOSE, SETSTAT with the times if they are to be kept, and the directory
    /// again.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn filezilla_put(&mut self, dst: &str, data: &[u8], written: Option<u32>) -> Result<()> {
        let directory = dst.rsplit_once('/').context("a path")?.0;
        self.list(directory).await?;
        let handle = self.open(dst, W_C_T, Attrs::mode(0o644)).await?;
        self.in_a_window(&handle, 0, data, WINDOW).await.with_context(|| format!("WRITE {dst}"))?;
        self.call(Request::Close { handle: &handle }).await?.ok().with_context(|| format!("CLOSE {dst}"))?;
        if let Some(written) = written {
            let attrs = Attrs::timed(written, written);
            self.call(Request::Setstat { path: dst.as_bytes(), attrs }).await?.ok().context("SETSTAT")?;
        }
        self.list(directory).await?;
        Ok(())
    }

    /// Going on with an upload that broke off: OPEN W, FSTAT, WRITEs from that size on, CLOSE.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn filezilla_resume(&mut self, dst: &str, data: &[u8]) -> Result<()> {
        let handle = self.open(dst, frame::WRITE, Attrs::none()).await?;
        let from = self.call(Request::Fstat { handle: &handle }).await?.attrs()?.size.context("no size")?;
        let rest = data.get(usize::try_from(from)?..).context("more is there than there is")?;
        self.in_a_window(&handle, from, rest, WINDOW).await.with_context(|| format!("WRITE {dst}"))?;
        self.call(Request::Close { handle: &handle }).await?.ok().with_context(|| format!("CLOSE {dst}"))?;
        Ok(())
    }

    /// Makes each missing directory of a path, asking with OPENDIR first.
    ///
    /// # Errors
    /// If one can't be made.
    pub async fn filezilla_mkdir(&mut self, path: &str) -> Result<()> {
        let opened = self.call(Request::Opendir { path: path.as_bytes() }).await?;
        if let Ok(handle) = opened.handle() {
            self.call(Request::Close { handle: &handle }).await?.ok()?;
            return Ok(());
        }
        opened.refused(reply::NO_SUCH_FILE)?;
        self.call(Request::Mkdir { path: path.as_bytes() })
            .await?
            .ok()
            .with_context(|| format!("MKDIR {path}"))?;
        Ok(())
    }

    /// WRITEs of which no more than `window` bytes wait for their answers; returns when all are answered OK.
    pub(super) async fn in_a_window(
        &mut self,
        handle: &[u8],
        from: u64,
        data: &[u8],
        window: usize,
    ) -> Result<()> {
        let mut waiting = std::collections::VecDeque::new();
        let mut offset = from;
        for data in data.chunks(PIECE) {
            if waiting.len() >= window / PIECE
                && let Some(id) = waiting.pop_front()
            {
                self.reply_to(id).await?.ok()?;
            }
            waiting.push_back(self.send(Request::Write { handle, offset, data }).await?);
            offset += data.len() as u64;
        }
        for id in waiting {
            self.reply_to(id).await?.ok()?;
        }
        Ok(())
    }
}
