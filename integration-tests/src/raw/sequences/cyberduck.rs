//! Cyberduck, whose SFTP is sshj: WRITEs with a bounded number unconfirmed, all of them awaited before CLOSE.

use super::{PIECE, W_C_T};
use crate::raw::{Attrs, Raw, Request, frame};
use anyhow::{Context as _, Result};

/// Bytes that may be unconfirmed.
const WINDOW: usize = 64 * PIECE;

impl Raw {
    /// STAT, OPEN C|T|W (T|W without C where it exists), WRITEs, CLOSE, SETSTAT with the times if they are to be kept, STAT.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn cyberduck_put(&mut self, dst: &str, data: &[u8], written: Option<u32>) -> Result<()> {
        let path = dst.as_bytes();
        let exists = self.call(Request::Stat { path }).await?.attrs().is_ok();
        let flags = if exists { W_C_T & !frame::CREAT } else { W_C_T };
        self.cyberduck_write(dst, flags, 0, data).await?;
        if let Some(written) = written {
            let attrs = Attrs::timed(written, written);
            self.call(Request::Setstat { path, attrs }).await?.ok().context("SETSTAT")?;
        }
        self.call(Request::Stat { path }).await?.attrs().with_context(|| format!("STAT {dst}"))?;
        Ok(())
    }

    /// Going on with an upload that broke off: STAT, OPEN W, WRITEs from that size on, CLOSE.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn cyberduck_resume(&mut self, dst: &str, data: &[u8]) -> Result<()> {
        let there = self.call(Request::Stat { path: dst.as_bytes() }).await?.attrs()?;
        let from = there.size.context("STAT without a size")?;
        let rest = data.get(usize::try_from(from)?..).context("more is there than there is")?;
        self.cyberduck_write(dst, frame::WRITE, from, rest).await
    }

    async fn cyberduck_write(&mut self, dst: &str, flags: u32, from: u64, data: &[u8]) -> Result<()> {
        let handle = self.open(dst, flags, Attrs::none()).await?;
        self.in_a_window(&handle, from, data, WINDOW).await.with_context(|| format!("WRITE {dst}"))?;
        self.call(Request::Close { handle: &handle }).await?.ok().with_context(|| format!("CLOSE {dst}"))?;
        Ok(())
    }
}
