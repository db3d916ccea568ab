//! The cases that look, and those that must be refused.

use super::{ACCOUNT, LARGEST, Trial};
use crate::matrix::{Answer, Cell, Client, Said, Step};
use anyhow::{Result, bail, ensure};

impl<C: Client> Trial<'_, C> {
    pub(super) async fn stat(&self) -> Result<Cell> {
        let (local, data) = self.file("measured", 123_457)?;
        let remote = "/upload/measured";
        match self.uploaded(Step::PutAndStat { local: &local, remote }, remote, &data).await? {
            Ok(text) if text.contains("123457") => Ok(Cell::Yes),
            Ok(text) => bail!("no 123457 in {text}"),
            Err(why) => Ok(Cell::Cannot(why)),
        }
    }

    pub(super) async fn list(&self) -> Result<Cell> {
        let (local, data) = self.file("listed.xml", 98_761)?;
        let remote = "/upload/listed.xml";
        if let Err(why) = self.uploaded(Step::Put { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        match self.good(Step::List { remote: "/sent" }).await? {
            Ok(text) => {
                let found = text.lines().any(|l| l.contains("98761") && l.contains("listed.xml"));
                ensure!(found, "no listed.xml with 98761 bytes in:\n{text}");
                Ok(Cell::Yes)
            }
            Err(why) => Ok(Cell::Cannot(why)),
        }
    }

    pub(super) async fn get(&self) -> Result<Cell> {
        let (local, data) = self.file("kept", 2_000)?;
        let remote = "/upload/kept";
        if let Err(why) = self.uploaded(Step::Put { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let got = self.desk.local("got");
        let step = Step::Get { remote: "/sent/kept", local: &got };
        let cell =
            self.refused(step, "files can't be downloaded here: this server only takes uploads").await?;
        let length = std::fs::metadata(&got).map_or(0, |m| m.len());
        ensure!(length == 0, "{length} bytes were downloaded");
        Ok(cell)
    }

    pub(super) async fn remove(&self) -> Result<Cell> {
        let (local, data) = self.file("staying", 2_000)?;
        let remote = "/upload/staying";
        if let Err(why) = self.uploaded(Step::Put { local: &local, remote }, remote, &data).await? {
            return Ok(Cell::Cannot(why));
        }
        let cell = self.refused(Step::Remove { remote }, "can't be removed").await?;
        let row = self.gate.upload_in(ACCOUNT, remote, "processed").await?;
        ensure!(row.rest.get("deleted").is_none_or(|d| d != true), "{row:?}");
        Ok(cell)
    }

    pub(super) async fn bad(&self) -> Result<Cell> {
        let (large, _) = self.file("too-large", LARGEST + 500_000)?;
        let (small, _) = self.file("misplaced", 3_000)?;
        for (local, remote) in [(&large, "/upload/too-large"), (&small, "/inbox/misplaced")] {
            let step = Step::Put { local, remote };
            match self.client.take(step).await? {
                Answer::Ended(Said { ok: true, text }) => bail!("{step:?} went well: {text}"),
                Answer::Ended(Said { ok: false, .. }) => {}
                Answer::Cannot(why) => return Ok(Cell::Cannot(why)),
            }
            let rows = self.gate.uploads().await?;
            let accepted = rows.iter().find(|u| u.is_accepted() && u.path.contains(remote));
            ensure!(accepted.is_none(), "{accepted:?} was accepted");
        }
        Ok(Cell::Yes)
    }
}
