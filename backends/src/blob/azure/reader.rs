//! Reading a sealed blob: in ranges of a few MiB, each of which is asked for again on its own should it break off, and a
//! few of them ahead of the reader.

use super::{BLOCK_SIZE, BlobAzure, SEALED, STATE, to_error};
use crate::{
    azure::{Cause, Properties},
    blob::{BlobError, BlobReader},
};
use dropgate_schemas::id::BlobId;
use futures::{StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;

/// Bytes of one range.
const PIECE: u64 = BLOCK_SIZE as u64;
/// Ranges on the way or waiting at a time.
const AHEAD: usize = 4;

pub(super) async fn open(store: &BlobAzure, blob: BlobId, offset: u64) -> Result<BlobReader, BlobError> {
    // One byte earlier, since nothing can be asked for at the end.
    let from = offset.saturating_sub(1);
    let first = match store.container.part(&store.name(blob), from, from + PIECE, None).await {
        Ok(first) => first,
        Err(failure) if failure.cause == Cause::Range => {
            let what = format!("it was to be read from byte {offset}, which lies behind its end");
            return Err(BlobError::Corrupt { blob, what });
        }
        Err(failure) => return Err(to_error(blob, failure)),
    };
    let Properties { size: total, tag, metadata } = first.properties;
    if metadata.get(STATE).is_none_or(|state| state != SEALED) {
        return Err(BlobError::NotFound(blob));
    }
    if offset > total {
        let what = format!("it was to be read from byte {offset} and has {total}");
        return Err(BlobError::Corrupt { blob, what });
    }
    let at = from + first.bytes.len() as u64;
    let head = first.bytes.slice(usize::from(offset > 0).min(first.bytes.len())..);
    let store = store.clone();
    let starts = stream::iter((0..).map(move |n| at + n * PIECE).take_while(move |start| *start < total));
    let rest = starts
        .map(move |start| {
            let (store, tag) = (store.clone(), tag.clone());
            let end = (start + PIECE).min(total);
            AbortOnDropHandle::new(tokio::spawn(async move {
                let answer = store.container.part(&store.name(blob), start, end, Some(&tag)).await;
                let answer = answer.map_err(|failure| match failure.cause {
                    Cause::Conflict | Cause::Range => {
                        BlobError::Corrupt { blob, what: "it was replaced while it was read".to_owned() }
                    }
                    Cause::NotFound
                    | Cause::NoContainer
                    | Cause::NoBlock
                    | Cause::Refused
                    | Cause::NoCredential
                    | Cause::Damaged
                    | Cause::Full
                    | Cause::Unavailable
                    | Cause::Other => to_error(blob, failure),
                })?;
                if answer.bytes.len() as u64 == end - start {
                    return Ok(answer.bytes);
                }
                let what = format!("{} bytes came from {start} to {end}", answer.bytes.len());
                Err(BlobError::Corrupt { blob, what })
            }))
        })
        .buffered(AHEAD)
        .map(|piece| piece.unwrap_or_else(|e| Err(BlobError::Unavailable(format!("a read ended: {e}")))));
    let head = stream::iter((!head.is_empty()).then_some(Ok(head)));
    Ok(head.chain(rest).boxed())
}
