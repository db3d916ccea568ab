//! Reading a sealed blob in pieces, the next one on its way while the present one is being used.

use super::failed;
use crate::blob::{BlobError, BlobReader};
use bytes::Bytes;
use dropgate_schemas::id::BlobId;
use futures::{StreamExt as _, stream};
use rustix::{
    buffer::spare_capacity,
    fs::{Advice, fadvise},
};
use std::{fs::File, io, path::Path};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of one piece.
const PIECE: usize = 256 * 1024;

/// One piece on its way.
type Next = JoinHandle<(File, io::Result<Vec<u8>>)>;

pub(super) fn open(path: &Path, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError> {
    let failed_here = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound(blob),
        _ => failed(path, &e),
    };
    let file = File::open(path).map_err(failed_here)?;
    let size = file.metadata().map_err(failed_here)?.len();
    if offset > size {
        let what = format!("it was to be read from byte {offset} and has {size}");
        return Err(BlobError::Corrupt { blob, what });
    }
    // A hint: without it everything works, only slower.
    let _ = fadvise(&file, offset, None, Advice::Sequential);
    let path = path.to_owned();
    let first = (offset < size).then(|| (read(file, offset), offset));
    let pieces = stream::unfold(first, move |next| {
        let path = path.clone();
        async move {
            let (next, offset) = next?;
            let (file, piece) = match next.await {
                Ok(read) => read,
                Err(e) => return Some((Err(BlobError::Unavailable(e.to_string())), None)),
            };
            let error = match piece {
                Ok(piece) if piece.is_empty() => {
                    let what = format!("it had {size} bytes and ends at {offset}");
                    BlobError::Corrupt { blob, what }
                }
                Ok(piece) => {
                    let offset = offset + piece.len() as u64;
                    let following = (offset < size).then(|| (read(file, offset), offset));
                    return Some((Ok(Bytes::from(piece)), following));
                }
                Err(error) => failed(&path, &error),
            };
            Some((Err(error), None))
        }
    });
    Ok(pieces.boxed())
}

fn read(file: File, offset: u64) -> Next {
    spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE);
        // Into memory that was not cleared first.
        let result = rustix::io::pread(&file, spare_capacity(&mut piece), offset);
        (file, result.map(|_| piece).map_err(io::Error::from))
    })
}
