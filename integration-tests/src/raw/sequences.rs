//! What well-known clients send for one upload, packet by packet, pipelining included.

mod cyberduck;
mod filezilla;

use super::{Attrs, Raw, Reply, Request, frame, reply};
use anyhow::{Context as _, Result, ensure};

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;
const PIECE: usize = 32 * 1024;
/// When the local files were written, where a test does not care.
const WRITTEN: u32 = 1_700_000_000;

/// How a client makes an existing target give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// There is none.
    No,
    /// REMOVE target, then plain RENAME (WinSCP, rclone without posix-rename).
    RemoveThenRename,
    /// `posix-rename@openssh.com` (rclone, Cyberduck).
    PosixRename,
}

impl Raw {
    /// OPEN, all WRITEs and CLOSE in one go, no reply awaited in between. Returns the texts of CLOSE.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn stream(&mut self, path: &str, flags: u32, attrs: Attrs, data: &[u8]) -> Result<String> {
        let handle = self.open(path, flags, attrs).await?;
        let ids = self.write_all(&handle, 0, data, PIECE).await?;
        let close = self.send(Request::Close { handle: &handle }).await?;
        self.all_ok(&ids).await.with_context(|| format!("WRITE {path}"))?;
        Ok(self.reply_to(close).await?.ok().with_context(|| format!("CLOSE {path}"))?.to_owned())
    }

    /// Renames, and makes an existing target give way first as told. Returns the text of the RENAME's OK.
    ///
    /// # Errors
    /// If one of the requests is refused.
    pub async fn rename_over(&mut self, from: &str, to: &str, overwrite: Overwrite) -> Result<String> {
        let (source, target) = (from.as_bytes(), to.as_bytes());
        let answer = match overwrite {
            Overwrite::No => self.call(Request::Rename { from: source, to: target }).await?,
            Overwrite::RemoveThenRename => {
                let removed = self.call(Request::Remove { path: target }).await?;
                removed.ok().with_context(|| format!("REMOVE {to}"))?;
                self.call(Request::Rename { from: source, to: target }).await?
            }
            Overwrite::PosixRename => self.call(Request::PosixRename { from: source, to: target }).await?,
        };
        Ok(answer.ok().with_context(|| format!("RENAME {from} -> {to}"))?.to_owned())
    }

    /// WinSCP, 100 KiB or more: LSTAT both, OPEN `dst.filepart` with SIZE, WRITEs, CLOSE before their replies are in,
    /// [REMOVE dst], RENAME, SETSTAT dst pipelined behind it. Returns the text of the RENAME's OK.
    ///
    /// # Errors
    /// If one of them is refused.
    pub async fn winscp_large(&mut self, dst: &str, data: &[u8], overwrite: Overwrite) -> Result<String> {
        self.winscp_large_of(dst, data, overwrite, WRITTEN).await
    }

    /// [`Self::winscp_large`] of a local file that was written at a time.
    ///
    /// # Errors
    /// As there.
    pub async fn winscp_large_of(
        &mut self,
        dst: &str,
        data: &[u8],
        overwrite: Overwrite,
        written: u32,
    ) -> Result<String> {
        let part = format!("{dst}.filepart");
        let there = self.call(Request::Lstat { path: dst.as_bytes() }).await?;
        if overwrite == Overwrite::No {
            there.refused(reply::NO_SUCH_FILE).with_context(|| format!("LSTAT {dst}"))?;
        } else {
            there.attrs().with_context(|| format!("LSTAT {dst}"))?;
        }
        self.call(Request::Lstat { path: part.as_bytes() }).await?.refused(reply::NO_SUCH_FILE)?;
        let attrs = Attrs { permissions: Some(0o100_644), ..Attrs::sized(data.len() as u64) };
        let held = self.stream(&part, W_C_T, attrs, data).await?;
        ensure!(!held.is_empty(), "CLOSE of a held name says nothing");
        self.winscp_rename(dst, overwrite, written).await
    }

    /// WinSCP going on with an upload that broke off: OPEN `dst.filepart` without TRUNC, WRITEs from its size on, then as
    /// for any large file.
    ///
    /// # Errors
    /// If one of the requests is refused.
    pub async fn winscp_resume(&mut self, dst: &str, data: &[u8], written: u32) -> Result<String> {
        let part = format!("{dst}.filepart");
        let there = self.call(Request::Lstat { path: part.as_bytes() }).await?.attrs()?;
        let from = there.size.context("LSTAT without a size")?;
        let rest = data.get(usize::try_from(from)?..).context("more is there than there is")?;
        let attrs = Attrs { permissions: Some(0o100_644), ..Attrs::sized(data.len() as u64) };
        let handle = self.open(&part, frame::WRITE | frame::CREAT, attrs).await?;
        let ids = self.write_all(&handle, from, rest, PIECE).await?;
        let close = self.send(Request::Close { handle: &handle }).await?;
        self.all_ok(&ids).await.with_context(|| format!("WRITE {part}"))?;
        self.reply_to(close).await?.ok().with_context(|| format!("CLOSE {part}"))?;
        self.winscp_rename(dst, Overwrite::No, written).await
    }

    async fn winscp_rename(&mut self, dst: &str, overwrite: Overwrite, written: u32) -> Result<String> {
        let part = format!("{dst}.filepart");
        if overwrite == Overwrite::RemoveThenRename {
            self.call(Request::Remove { path: dst.as_bytes() })
                .await?
                .ok()
                .with_context(|| format!("REMOVE {dst}"))?;
        }
        let (from, to) = (part.as_bytes(), dst.as_bytes());
        let rename = match overwrite {
            Overwrite::PosixRename => Request::PosixRename { from, to },
            Overwrite::No | Overwrite::RemoveThenRename => Request::Rename { from, to },
        };
        let times = Attrs { permissions: Some(0o644), ..Attrs::timed(written, written) };
        let ids = self.send_all(&[rename, Request::Setstat { path: to, attrs: times }]).await?;
        let [rename, setstat] = ids[..] else { anyhow::bail!("two requests have two ids") };
        let text = self.reply_to(rename).await?.ok().with_context(|| format!("RENAME {part}"))?.to_owned();
        self.reply_to(setstat).await?.ok().with_context(|| format!("SETSTAT {dst}"))?;
        Ok(text)
    }

    /// WinSCP, less than 100 KiB: OPEN W|C|EXCL, if that is refused W|C|T; WRITE, CLOSE and SETSTAT in one piece. Returns the text
    /// of CLOSE and whether EXCL was refused.
    ///
    /// # Errors
    /// If one of the others is refused.
    pub async fn winscp_small(&mut self, dst: &str, data: &[u8]) -> Result<(String, bool)> {
        self.winscp_small_of(dst, data, WRITTEN).await
    }

    /// [`Self::winscp_small`] of a local file that was written at a time.
    ///
    /// # Errors
    /// As there.
    pub async fn winscp_small_of(&mut self, dst: &str, data: &[u8], written: u32) -> Result<(String, bool)> {
        let path = dst.as_bytes();
        let attrs = Attrs::sized(data.len() as u64);
        let flags = frame::WRITE | frame::CREAT | frame::EXCL;
        let mut opened = self.call(Request::Open { path, flags, attrs }).await?;
        let existed = opened.handle().is_err();
        if existed {
            opened.refused(reply::FAILURE)?;
            opened = self.call(Request::Open { path, flags: W_C_T, attrs }).await?;
        }
        let handle = opened.handle().with_context(|| format!("OPEN {dst}"))?;
        let times = Attrs::timed(written, written);
        let mut requests = Vec::new();
        let mut offset = 0;
        for data in data.chunks(PIECE) {
            requests.push(Request::Write { handle: &handle, offset, data });
            offset += data.len() as u64;
        }
        requests.push(Request::Close { handle: &handle });
        requests.push(Request::Setstat { path, attrs: times });
        let ids = self.send_all(&requests).await?;
        let mut answers = Vec::new();
        for id in ids {
            answers.push(self.reply_to(id).await?);
        }
        for answer in &answers {
            answer.ok().with_context(|| format!("an answer about {dst}"))?;
        }
        let close = answers.iter().rev().nth(1).map(Reply::ok).transpose()?.unwrap_or_default();
        Ok((close.to_owned(), existed))
    }
}
