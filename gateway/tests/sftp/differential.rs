//! Our decoder and encoder against those of `russh-sftp`, which were written by others: every request that it can encode is
//! decoded to the same fields here, and every reply of ours is decoded to the same fields there.
//!
//! Names and handles in these tests are UTF-8, since `russh-sftp` keeps both as strings and rewrites what is none.

use bytes::Bytes;
use dropgate_gateway::sftp::{
    attrs::Attrs,
    frame::{Piece, Splitter},
    reply::{NameEntry, Reply, version},
    request::{Body, Request, decode},
    status::{Code, Status},
};
use proptest::prelude::*;
use russh_sftp::protocol::{self as theirs, FileAttributes, OpenFlags, Packet};

fn attributes() -> impl Strategy<Value = Attrs> {
    type Pair = Option<(u32, u32)>;
    (any::<Option<u64>>(), any::<Pair>(), any::<Option<u32>>(), any::<Pair>())
        .prop_map(|(size, owner, permissions, times)| Attrs { size, owner, permissions, times })
}

fn to_theirs(attrs: &Attrs) -> FileAttributes {
    FileAttributes {
        size: attrs.size,
        uid: attrs.owner.map(|(uid, _)| uid),
        gid: attrs.owner.map(|(_, gid)| gid),
        permissions: attrs.permissions,
        atime: attrs.times.map(|(atime, _)| atime),
        mtime: attrs.times.map(|(_, mtime)| mtime),
        ..FileAttributes::default()
    }
}

fn to_ours(attrs: &FileAttributes) -> Attrs {
    Attrs {
        size: attrs.size,
        owner: attrs.uid.zip(attrs.gid),
        permissions: attrs.permissions,
        times: attrs.atime.zip(attrs.mtime),
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/.]{0,40}", ".{0,40}"]
}

/// Their packet as it goes over the wire, length field included.
fn encode(packet: impl Into<Packet>) -> Bytes {
    Bytes::try_from(packet.into()).unwrap()
}

/// What the engine makes of a whole frame: the splitter's piece, decoded.
fn check(frame: &[u8], id: u32, body: &Body<'_>) -> Result<(), TestCaseError> {
    let mut splitter = Splitter::default();
    let mut input = frame;
    let Some(Piece::Packet(packet)) = splitter.next(&mut input).unwrap() else { panic!("no packet") };
    let decoded = decode(packet).map_err(|error| TestCaseError::fail(format!("{body:?}: {error}")))?;
    let Request::Numbered { id: decoded_id, body: decoded_body } = decoded else { panic!("no number") };
    prop_assert_eq!(decoded_id, id);
    prop_assert_eq!(&decoded_body, body);
    prop_assert!(input.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn every_request_of_theirs_is_decoded_to_its_fields(
        id in any::<u32>(), name in text(), other in text(), attrs in attributes(), flags in 0_u32..0x40,
        offset in any::<u64>(), length in any::<u32>(),
    ) {
        let (path, handle, rename) = (name.as_bytes(), name.as_bytes(), (name.as_bytes(), other.as_bytes()));
        let (p, h, a) = (|| name.clone(), || name.clone(), || to_theirs(&attrs));
        let pflags = OpenFlags::from_bits_truncate(flags);
        check(&encode(theirs::Open { id, filename: p(), pflags, attrs: a() }), id, &Body::Open { path, flags, attrs })?;
        check(&encode(theirs::Close { id, handle: h() }), id, &Body::Close { handle })?;
        check(&encode(theirs::Read { id, handle: h(), offset, len: length }), id, &Body::Read { handle })?;
        check(&encode(theirs::Lstat { id, path: p() }), id, &Body::Lstat { path })?;
        check(&encode(theirs::Fstat { id, handle: h() }), id, &Body::Fstat { handle })?;
        check(&encode(theirs::SetStat { id, path: p(), attrs: a() }), id, &Body::Setstat { path, attrs })?;
        check(&encode(theirs::FSetStat { id, handle: h(), attrs: a() }), id, &Body::Fsetstat { handle, attrs })?;
        check(&encode(theirs::OpenDir { id, path: p() }), id, &Body::Opendir { path })?;
        check(&encode(theirs::ReadDir { id, handle: h() }), id, &Body::Readdir { handle })?;
        check(&encode(theirs::Remove { id, filename: p() }), id, &Body::Remove { path })?;
        check(&encode(theirs::MkDir { id, path: p(), attrs: a() }), id, &Body::Mkdir { path, attrs })?;
        check(&encode(theirs::RmDir { id, path: p() }), id, &Body::Rmdir { path })?;
        check(&encode(theirs::RealPath { id, path: p() }), id, &Body::Realpath { path })?;
        check(&encode(theirs::Stat { id, path: p() }), id, &Body::Stat { path })?;
        let (from, to) = rename;
        check(&encode(theirs::Rename { id, oldpath: p(), newpath: other.clone() }), id, &Body::Rename { from, to })?;
        check(&encode(theirs::ReadLink { id, path: p() }), id, &Body::Readlink)?;
        check(&encode(theirs::Symlink { id, linkpath: p(), targetpath: other.clone() }), id, &Body::Symlink)?;
        // The fields of an extended request, in the spelling of the requests without one.
        let fields = |packet: &[u8]| packet[9..].to_vec();
        let extended = |request: &str, data: Vec<u8>| encode(theirs::Extended { id, request: request.to_owned(), data });
        let data = fields(&encode(theirs::Rename { id, oldpath: p(), newpath: other.clone() }));
        check(&extended("posix-rename@openssh.com", data), id, &Body::PosixRename { from, to })?;
        let of_path = || fields(&encode(theirs::Stat { id, path: p() }));
        check(&extended("statvfs@openssh.com", of_path()), id, &Body::Statvfs { path })?;
        check(&extended("fstatvfs@openssh.com", of_path()), id, &Body::Fstatvfs { handle })?;
        check(&extended("fsync@openssh.com", of_path()), id, &Body::Fsync { handle })?;
        check(&extended("limits@openssh.com", vec![]), id, &Body::Limits)?;
        let data = fields(&encode(theirs::SetStat { id, path: p(), attrs: a() }));
        check(&extended("lsetstat@openssh.com", data), id, &Body::Lsetstat { path, attrs })?;
        check(&extended("no-such@example.com", of_path()), id, &Body::UnknownExtended { name: b"no-such@example.com" })?;
    }

    #[test]
    fn every_write_of_theirs_is_cut_into_its_fields(
        id in any::<u32>(), handle in "[a-z]{0,20}", offset in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(),
    ) {
        let frame = encode(theirs::Write { id, handle: handle.clone(), offset, data: data.clone() });
        let (first, rest) = frame.split_at(cut.index(frame.len()));
        let (mut splitter, mut heads, mut payload, mut ends) = (Splitter::default(), 0, Vec::new(), 0);
        for mut input in [first, rest] {
            while let Some(piece) = splitter.next(&mut input).unwrap() {
                match piece {
                    Piece::WriteHead { id: i, handle: h, offset: o, length } => {
                        prop_assert_eq!((i, h, o, length as usize), (id, handle.as_bytes(), offset, data.len()));
                        heads += 1;
                    }
                    Piece::WriteData(more) => payload.extend_from_slice(more),
                    Piece::WriteEnd => ends += 1,
                    Piece::Packet(packet) => prop_assert!(false, "a packet: {packet:?}"),
                }
            }
        }
        prop_assert_eq!((heads, payload, ends), (1, data, 1));
    }

    #[test]
    fn every_reply_of_ours_is_decoded_to_its_fields(
        id in any::<u32>(), said in text(), attrs in attributes(), data in prop::collection::vec(any::<u8>(), 0..60),
        entries in prop::collection::vec((text(), text(), attributes()), 0..6), code in 0..7_usize,
    ) {
        let codes = [
            (Code::Ok, theirs::StatusCode::Ok),
            (Code::Eof, theirs::StatusCode::Eof),
            (Code::NoSuchFile, theirs::StatusCode::NoSuchFile),
            (Code::PermissionDenied, theirs::StatusCode::PermissionDenied),
            (Code::Failure, theirs::StatusCode::Failure),
            (Code::BadMessage, theirs::StatusCode::BadMessage),
            (Code::OpUnsupported, theirs::StatusCode::OpUnsupported),
        ];
        let (code, their_code) = codes[code];
        match read(&Reply::Status(Status { code, text: said.clone() }).encode(id)) {
            Packet::Status(s) => prop_assert_eq!(
                (s.id, s.status_code, s.error_message, s.language_tag),
                (id, their_code, said.clone(), "en".to_owned())
            ),
            other => prop_assert!(false, "{other:?}"),
        }
        match read(&Reply::Handle(said.clone().into_bytes()).encode(id)) {
            Packet::Handle(h) => prop_assert_eq!((h.id, h.handle), (id, said.clone())),
            other => prop_assert!(false, "{other:?}"),
        }
        match read(&Reply::Attrs(attrs).encode(id)) {
            Packet::Attrs(a) => prop_assert_eq!((a.id, to_ours(&a.attrs)), (id, attrs)),
            other => prop_assert!(false, "{other:?}"),
        }
        match read(&Reply::Extended(data.clone()).encode(id)) {
            Packet::ExtendedReply(e) => prop_assert_eq!((e.id, e.data), (id, data)),
            other => prop_assert!(false, "{other:?}"),
        }
        let ours = entries.iter().cloned();
        let ours = ours.map(|(name, longname, attrs)| NameEntry { name, longname, attrs }).collect();
        match read(&Reply::Name(ours).encode(id)) {
            Packet::Name(n) => {
                prop_assert_eq!(n.id, id);
                let decoded = n.files.into_iter().map(|f| (f.filename, f.longname, to_ours(&f.attrs)));
                prop_assert_eq!(decoded.collect::<Vec<_>>(), entries);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

/// A frame of ours, decoded by them to its end.
fn read(frame: &[u8]) -> Packet {
    let (length, packet) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, packet.len());
    let mut bytes = Bytes::copy_from_slice(packet);
    let decoded = Packet::try_from(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "{bytes:?} behind {decoded:?}");
    decoded
}

#[test]
fn init_and_version_are_understood() {
    let init = encode(theirs::Init::new());
    assert_eq!(decode(&init[4..]), Ok(Request::Init { version: 3 }));
    let Packet::Version(decoded) = read(&version()) else { panic!("no VERSION") };
    assert_eq!(decoded.version, 3);
    assert_eq!(decoded.extensions["posix-rename@openssh.com"], "1");
    assert_eq!(decoded.extensions["limits@openssh.com"], "1");
    assert!(!decoded.extensions.contains_key("copy-data"));
}
