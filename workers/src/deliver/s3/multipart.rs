//! Uploads in parts: a few at a time, each with its checksum, and one over all of them.

use super::{
    DeliverError, Failure, Place, Source, Target,
    object::{Condition, content_type, crc_text, metadata},
};
use crate::config::S3Config;
use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest, checksum};
use jiff::Timestamp;
use tokio::task::JoinSet;

/// S3 takes no more parts.
const PARTS: u64 = 10_000;
/// Parts and uploads are listed in so many pages at most; a page has a thousand.
const PAGES: u32 = 20;

/// An upload in parts that is complete but for the last call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Multipart {
    id: String,
    /// Over all bytes.
    pub(super) crc64nvme: u64,
}

impl Multipart {
    /// By which the next worker finds it.
    pub(super) fn name(&self) -> String {
        format!("parts.{:016x}.{}", self.crc64nvme, self.id)
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (crc, id) = name.strip_prefix("parts.")?.split_once('.')?;
        Some(Self { id: id.to_owned(), crc64nvme: u64::from_str_radix(crc, 16).ok()? })
    }

    /// The parts as the store has them, and their bytes together.
    async fn parts(&self, client: &Client, place: &Place) -> Result<(Vec<CompletedPart>, u64), Failure> {
        let (mut parts, mut size, mut marker) = (Vec::new(), 0, None);
        for _ in 0..PAGES {
            let request = client.list_parts().bucket(&place.bucket).key(&place.key).upload_id(&self.id);
            let page = request.set_part_number_marker(marker).send().await;
            let page =
                page.map_err(|e| Failure::of(&e, place, "list the parts of", "s3:ListMultipartUploadParts"))?;
            for part in page.parts() {
                size += part.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                parts.push(
                    CompletedPart::builder()
                        .set_part_number(part.part_number())
                        .set_e_tag(part.e_tag().map(str::to_owned))
                        .set_checksum_crc64_nvme(part.checksum_crc64_nvme().map(str::to_owned))
                        .build(),
                );
            }
            marker = page.next_part_number_marker().map(str::to_owned).filter(|marker| marker != "0");
            if page.is_truncated() != Some(true) || marker.is_none() {
                break;
            }
        }
        Ok((parts, size))
    }

    /// Bytes that were uploaded.
    pub(super) async fn size(&self, client: &Client, place: &Place) -> Result<u64, Failure> {
        self.parts(client, place).await.map(|(_, size)| size)
    }

    /// Makes it an object. The store compares the whole of it with the checksum before.
    pub(super) async fn complete(
        &self,
        client: &Client,
        place: &Place,
        target: &Target,
        condition: &Condition,
    ) -> Result<(), Failure> {
        let (parts, size) = self.parts(client, place).await?;
        if size != target.size {
            let what = format!("the store has {size} bytes in parts for {place} instead of {}", target.size);
            return Err(DeliverError::Digest(what).into());
        }
        let summed = parts.iter().all(|part| part.checksum_crc64_nvme().is_some());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut request = client.complete_multipart_upload().bucket(&place.bucket).key(&place.key);
        if summed {
            request =
                request.checksum_type(ChecksumType::FullObject).checksum_crc64_nvme(crc_text(self.crc64nvme));
        }
        request
            .upload_id(&self.id)
            .multipart_upload(parts)
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match())
            .send()
            .await
            .map(drop)
            .map_err(|error| Failure::of(&error, place, "complete", "s3:PutObject"))
    }

    /// One of which only the id is known.
    pub(super) fn begun(id: &str) -> Self {
        Self { id: id.to_owned(), crc64nvme: 0 }
    }

    pub(super) async fn abort(&self, client: &Client, place: &Place) -> Result<(), DeliverError> {
        let request = client.abort_multipart_upload().bucket(&place.bucket).key(&place.key);
        let aborted = request.upload_id(&self.id).send().await;
        match aborted.map_err(|e| Failure::of(&e, place, "abort the upload of", "s3:AbortMultipartUpload")) {
            Ok(_) | Err(Failure::Absent | Failure::Changed | Failure::NoUpload) => Ok(()),
            Err(Failure::Wrong(error)) => Err(error),
        }
    }

    /// As the last thing that is done about it.
    pub(super) async fn abort_quietly(&self, client: &Client, place: &Place) {
        if let Err(error) = self.abort(client, place).await {
            tracing::warn!(%error, "parts of an upload may be left; they are looked for later");
        }
    }
}

/// How large parts are: as configured, or larger where there would be too many.
const fn part_size(configured: u64, size: u64) -> u64 {
    const MEBI: u64 = 1 << 20;
    let least = size.div_ceil(PARTS).div_ceil(MEBI) * MEBI;
    if least > configured { least } else { configured }
}

/// Begins an upload in parts, and returns its id.
pub(super) async fn begin(client: &Client, place: &Place, target: &Target) -> Result<String, DeliverError> {
    let request = client.create_multipart_upload().bucket(&place.bucket).key(&place.key);
    let begun = request
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .checksum_type(ChecksumType::FullObject)
        .set_content_type(content_type(target))
        .set_metadata(Some(metadata(target)))
        .send()
        .await;
    let begun =
        begun.map_err(|e| plain(Failure::of(&e, place, "begin the upload of", "s3:PutObject"), place))?;
    match begun.upload_id() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        Some(_) | None => {
            Err(DeliverError::Unavailable(format!("the upload of {place} was begun without an id")))
        }
    }
}

/// Uploads everything in parts. On an error nothing is left, as far as that can be had.
pub(super) async fn upload(
    client: &Client,
    place: &Place,
    config: &S3Config,
    target: &Target,
    source: &mut Source,
    begun_as: &str,
) -> Result<Multipart, DeliverError> {
    let mut multipart = Multipart::begun(begun_as);
    match parts(client, place, config, target, source, &multipart.id).await {
        Ok(crc64nvme) => {
            multipart.crc64nvme = crc64nvme;
            Ok(multipart)
        }
        Err(error) => {
            multipart.abort_quietly(client, place).await;
            Err(error)
        }
    }
}

/// The parts. Returns the checksum over all of them. So many bytes are in memory: those of the part that is filled, and of
/// those under way.
async fn parts(
    client: &Client,
    place: &Place,
    config: &S3Config,
    target: &Target,
    source: &mut Source,
    upload: &str,
) -> Result<u64, DeliverError> {
    let size = usize::try_from(part_size(config.part_bytes, target.size)).unwrap_or(usize::MAX);
    let mut whole = Digest::new(Crc64Nvme);
    let (mut under_way, mut number) = (JoinSet::new(), 0);
    let mut part = BytesMut::with_capacity(size);
    let mut send = async |bytes: Bytes| {
        if under_way.len() >= config.parts_in_flight
            && let Some(done) = under_way.join_next().await
        {
            joined(done, place)?;
        }
        number += 1;
        under_way.spawn(one(client.clone(), place.clone(), upload.to_owned(), number, bytes));
        Ok::<_, DeliverError>(())
    };
    while let Some(piece) = source.next().await? {
        whole.update(&piece);
        let mut piece = piece;
        while part.len() + piece.len() >= size {
            part.extend_from_slice(&piece.split_to(size - part.len()));
            let full = std::mem::replace(&mut part, BytesMut::with_capacity(size));
            send(full.freeze()).await?;
        }
        part.extend_from_slice(&piece);
    }
    if !part.is_empty() {
        send(part.freeze()).await?;
    }
    while let Some(done) = under_way.join_next().await {
        joined(done, place)?;
    }
    Ok(whole.finalize())
}

async fn one(client: Client, place: Place, upload: String, number: i32, bytes: Bytes) -> Result<(), Failure> {
    let crc = checksum(Crc64Nvme, &bytes);
    let request = client.upload_part().bucket(&place.bucket).key(&place.key).upload_id(upload);
    request
        .part_number(number)
        .content_length(i64::try_from(bytes.len()).unwrap_or_default())
        .checksum_crc64_nvme(crc_text(crc))
        .body(ByteStream::from(bytes))
        .send()
        .await
        .map(drop)
        .map_err(|error| Failure::of(&error, &place, "upload a part of", "s3:PutObject"))
}

fn joined(
    done: Result<Result<(), Failure>, tokio::task::JoinError>,
    place: &Place,
) -> Result<(), DeliverError> {
    match done {
        Ok(sent) => sent.map_err(|failure| plain(failure, place)),
        Err(panicked) => Err(DeliverError::Unavailable(panicked.to_string())),
    }
}

/// A failure of a request that depends on no condition.
fn plain(failure: Failure, place: &Place) -> DeliverError {
    match failure {
        Failure::Wrong(error) => error,
        Failure::NoUpload | Failure::Absent | Failure::Changed => {
            DeliverError::Unavailable(format!("somebody aborted the upload of {place}: it is begun again"))
        }
    }
}

/// Aborts the uploads in parts of exactly this key; with `older`, only those that were begun so many seconds ago.
pub(super) async fn abort_all(
    client: &Client,
    place: &Place,
    older: Option<i64>,
) -> Result<(), DeliverError> {
    let before = older.map(|seconds| Timestamp::now().as_second() - seconds);
    let (mut key_marker, mut id_marker) = (None, None);
    for _ in 0..PAGES {
        let request = client.list_multipart_uploads().bucket(&place.bucket).prefix(&place.key);
        let page = request.set_key_marker(key_marker).set_upload_id_marker(id_marker).send().await;
        let page = page.map_err(|e| {
            plain(Failure::of(&e, place, "list the uploads of", "s3:ListBucketMultipartUploads"), place)
        })?;
        for upload in page.uploads().iter().filter(|upload| upload.key() == Some(&place.key)) {
            let begun = upload.initiated().map(aws_sdk_s3::primitives::DateTime::secs);
            let old = before.is_none_or(|before| begun.is_some_and(|begun| begun < before));
            if let (true, Some(id)) = (old, upload.upload_id()) {
                Multipart::begun(id).abort(client, place).await?;
            }
        }
        if page.is_truncated() != Some(true) {
            break;
        }
        key_marker = page.next_key_marker().map(str::to_owned);
        id_marker = page.next_upload_id_marker().map(str::to_owned);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_any_file() {
        assert_eq!(part_size(8 << 20, 9 << 20), 8 << 20);
        for size in [80 << 30, 150 << 30, 5 << 40] {
            let part = part_size(8 << 20, size);
            assert!(size.div_ceil(part) <= PARTS && part.is_multiple_of(1 << 20), "{size}: {part}");
        }
    }

    #[test]
    fn what_was_staged_is_found_by_its_name() {
        let upload = Multipart { id: "ab.c/d==".to_owned(), crc64nvme: 42 };
        assert_eq!(Multipart::parse(&upload.name()), Some(upload));
        assert_eq!(Multipart::parse("put"), None);
        // The check value of the catalogue of CRCs.
        assert_eq!(checksum(Crc64Nvme, b"123456789"), 0xae8b_1486_0a79_9888);
    }
}
