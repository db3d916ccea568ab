//! Writing and comparing.

use super::{
    Sftp,
    client::{ClientError, Pending},
    connect::Connection,
    wire,
};
use crate::deliver::{
    DeliverError, Source, Staged, Target,
    part::{part_name, split},
};
use bytes::Bytes;
use dropgate_schemas::{delivery::VerifiedBy, digest::Sha256};
use sha2::Digest as _;
use std::collections::VecDeque;

/// WRITEs that wait for their answers.
const WRITES: usize = 64;
/// Bytes that wait for the answers to their WRITEs.
const BYTES: usize = 8 << 20;
/// READs that wait for their answers.
const READS: usize = 16;

impl Sftp {
    /// Writes the bytes under the target's temporary name and compares them there.
    pub(super) async fn transfer(
        &self,
        connection: &Connection,
        target: &Target,
        source: &mut Source,
    ) -> Result<Staged, DeliverError> {
        let name = part_name(split(&target.key).1, target.delivery, target.epoch);
        let (dir, path) = Self::place(connection, target, &name);
        let staged = async {
            let handle = self.create(connection, &dir, &path).await?;
            let written = self.fill(connection, &handle, &path, source).await;
            let closed = connection.client.close(&handle).await;
            written?;
            closed.map_err(|e| self.error("close", &path, &e))?;
            if let Some(mode) = self.pool.config().file_mode
                && let Err(error) = connection.client.set_mode(&path, mode.0).await
            {
                tracing::warn!(%error, %path, "the destination did not take the file's mode");
            }
            source.written().await;
            self.compare(connection, &path, target).await?.map_err(DeliverError::Digest)
        };
        match staged.await {
            Ok(verified_by) => Ok(Staged { name, verified_by, kept: None }),
            Err(error) => {
                if !connection.client.is_closed()
                    && let Err(error) = connection.client.remove(&path).await
                {
                    tracing::warn!(%error, %path, "a temporary file may be left");
                }
                Err(error)
            }
        }
    }

    /// Opens the temporary name for writing, making its directory if need be.
    async fn create(&self, connection: &Connection, dir: &str, path: &str) -> Result<Bytes, DeliverError> {
        let client = &connection.client;
        match client.open(path, wire::FOR_WRITING).await {
            Ok(handle) => return Ok(handle),
            // A missing directory is "no such file" for most servers and "failure" for some.
            Err(ClientError::Status(status))
                if self.pool.config().make_directories && matches!(status.code, wire::NO_SUCH_FILE | 4) => {}
            Err(error) => return Err(self.error("create", path, &error)),
        }
        self.make_directories(connection, dir).await?;
        client.open(path, wire::FOR_WRITING).await.map_err(|e| self.error("create", path, &e))
    }

    async fn make_directories(&self, connection: &Connection, dir: &str) -> Result<(), DeliverError> {
        let client = &connection.client;
        let mut path = String::new();
        for (at, component) in dir.split('/').enumerate() {
            if at > 0 {
                path.push('/');
            }
            path.push_str(component);
            if component.is_empty() || component == "." {
                continue;
            }
            let there = client.stat(&path).await;
            if matches!(there, Ok(Some(_))) {
                continue;
            }
            // Somebody else may be faster, and some servers don't tell an existing directory from a failure.
            if let Err(error) = client.make_directory(&path).await
                && !matches!(client.stat(&path).await, Ok(Some(_)))
            {
                return Err(self.error("make the directory", &path, &error));
            }
        }
        Ok(())
    }

    /// Writes all bytes, many requests at a time, and makes them durable where the server can.
    async fn fill(
        &self,
        connection: &Connection,
        handle: &[u8],
        path: &str,
        source: &mut Source,
    ) -> Result<(), DeliverError> {
        let client = &connection.client;
        let failed = |e: ClientError| self.error("write to", path, &e);
        let mut in_flight: VecDeque<(Pending, usize)> = VecDeque::new();
        let (mut at, mut bytes) = (0_u64, 0_usize);
        while let Some(mut piece) = source.next().await? {
            while !piece.is_empty() {
                while in_flight.len() >= WRITES || bytes >= BYTES {
                    let Some((pending, length)) = in_flight.pop_front() else { break };
                    client.wait_ok(pending).await.map_err(failed)?;
                    bytes -= length;
                }
                let part = piece.split_to(piece.len().min(connection.limits.write));
                let length = part.len();
                let pending = client.write(handle, at, part).await.map_err(failed)?;
                in_flight.push_back((pending, length));
                at += length as u64;
                bytes += length;
            }
        }
        for (pending, _) in in_flight {
            client.wait_ok(pending).await.map_err(failed)?;
        }
        client.fsync(handle).await.map_err(|e| self.error("sync", path, &e))?;
        Ok(())
    }

    /// Compares a file with what was accepted, as well as the server allows. The inner error says how it differs.
    pub(super) async fn compare(
        &self,
        connection: &Connection,
        path: &str,
        target: &Target,
    ) -> Result<Result<VerifiedBy, String>, DeliverError> {
        let client = &connection.client;
        let failed = |e: ClientError| self.error("compare", path, &e);
        let host = &self.pool.config().host;
        let size = match client.lstat(path).await {
            Ok(found) => found.and_then(|found| found.size),
            // A drop box that lets nobody look.
            Err(ClientError::Status(_)) => None,
            Err(error @ ClientError::Lost(_)) => return Err(failed(error)),
        };
        if let Some(size) = size
            && size != target.size
        {
            return Ok(Err(format!("{host} has {size} bytes of {path} instead of {}", target.size)));
        }
        let differs =
            |digest: Sha256| format!("{host} has {path} with SHA-256 {digest} instead of {}", target.sha256);
        if let Some(digest) = client.sha256(path).await.map_err(failed)?.map(Sha256) {
            return Ok(if digest == target.sha256 { Ok(VerifiedBy::Sha256) } else { Err(differs(digest)) });
        }
        if target.size <= self.pool.config().read_back_bytes {
            match self.read_back(connection, path, target.size).await {
                Ok(digest) if digest == target.sha256 => return Ok(Ok(VerifiedBy::Sha256Readback)),
                Ok(digest) => return Ok(Err(differs(digest))),
                // A drop box that lets nobody read.
                Err(error)
                    if matches!(error.code(), Some(wire::PERMISSION_DENIED | wire::OP_UNSUPPORTED)) => {}
                Err(error) => return Err(self.error("read back", path, &error)),
            }
        }
        match size {
            Some(_) => Ok(Ok(VerifiedBy::Size)),
            None => Err(DeliverError::Denied(format!(
                "{host} tells neither digest, bytes nor size of {path}: it can't be known whether the file is right"
            ))),
        }
    }

    /// The digest of what is there, read to its end but no further than one byte beyond `size`.
    async fn read_back(&self, connection: &Connection, path: &str, size: u64) -> Result<Sha256, ClientError> {
        let client = &connection.client;
        let handle = client.open(path, wire::FOR_READING).await?;
        let digest = async {
            let mut hash = sha2::Sha256::new();
            let mut in_flight: VecDeque<(Pending, u64, usize)> = VecDeque::new();
            let mut next = 0_u64;
            loop {
                while in_flight.len() < READS && next <= size {
                    let length =
                        usize::try_from(size + 1 - next).unwrap_or(usize::MAX).min(connection.limits.read);
                    in_flight.push_back((client.read(&handle, next, length).await?, next, length));
                    next += length as u64;
                }
                let Some((pending, mut at, mut length)) = in_flight.pop_front() else { break };
                let mut data = client.wait_data(pending).await?;
                // A server may give less than was asked for: the rest is asked for before what follows is looked at.
                while let Some(bytes) = data.take() {
                    hash.update(&bytes);
                    at += bytes.len() as u64;
                    length = length.saturating_sub(bytes.len());
                    if length > 0 && at <= size {
                        let pending = client.read(&handle, at, length).await?;
                        data = client.wait_data(pending).await?;
                    }
                }
                if length > 0 {
                    // The end of the file.
                    break;
                }
            }
            Ok(Sha256(hash.finalize().into()))
        };
        let digest = digest.await;
        let closed = client.close(&handle).await;
        let digest = digest?;
        closed?;
        Ok(digest)
    }
}
