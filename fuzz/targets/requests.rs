//! Whatever a packet holds, it is decoded into what the packet says or refused; nothing of it is made up.
#![no_main]

use dropgate_gateway::sftp::{
    attrs::Attrs,
    request::{Body, Request, decode},
};
use libfuzzer_sys::fuzz_target;

/// The names and handles in a request.
fn strings<'b>(body: &Body<'b>) -> Vec<&'b [u8]> {
    match body {
        Body::Open { path, .. }
        | Body::Lstat { path }
        | Body::Setstat { path, .. }
        | Body::Opendir { path }
        | Body::Remove { path }
        | Body::Mkdir { path, .. }
        | Body::Rmdir { path }
        | Body::Realpath { path }
        | Body::Stat { path }
        | Body::Statvfs { path }
        | Body::Lsetstat { path, .. }
        | Body::CheckFileName { path, .. } => vec![path],
        Body::Close { handle }
        | Body::Read { handle }
        | Body::Fstat { handle }
        | Body::Fsetstat { handle, .. }
        | Body::Readdir { handle }
        | Body::Fstatvfs { handle }
        | Body::Fsync { handle }
        | Body::CheckFileHandle { handle, .. } => vec![handle],
        Body::Rename { from, to } | Body::PosixRename { from, to } => vec![from, to],
        Body::VendorId { vendor, product, version } => vec![vendor, product, version],
        Body::UnknownExtended { name } => vec![name],
        Body::Readlink | Body::Symlink | Body::Limits | Body::Unknown { .. } => vec![],
    }
}

fn attributes<'a>(body: &'a Body<'_>) -> Option<&'a Attrs> {
    match body {
        Body::Open { attrs, .. }
        | Body::Setstat { attrs, .. }
        | Body::Fsetstat { attrs, .. }
        | Body::Mkdir { attrs, .. }
        | Body::Lsetstat { attrs, .. } => Some(attrs),
        _ => None,
    }
}

fn is_in(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

fuzz_target!(|packet: &[u8]| {
    match decode(packet) {
        Ok(Request::Init { version }) => {
            assert_eq!(packet[0], 1);
            assert_eq!(packet[1..5], version.to_be_bytes());
        }
        Ok(Request::Numbered { id, body }) => {
            assert_eq!(packet[1..5], id.to_be_bytes());
            assert!(!body.name().is_empty());
            for string in strings(&body) {
                assert!(is_in(packet, string));
                assert!(is_in(packet, &(string.len() as u32).to_be_bytes()));
            }
            if let Some(attrs) = attributes(&body) {
                let mut encoded = Vec::new();
                attrs.encode(&mut encoded);
                assert!(encoded.len() <= 4 + 8 + 8 + 4 + 8);
                // Without the flags, which may tell of extended attributes as well.
                assert!(is_in(packet, &encoded[4..]));
            }
            // Bytes behind the last field change nothing.
            if !matches!(
                body,
                Body::Open { .. }
                    | Body::Setstat { .. }
                    | Body::Fsetstat { .. }
                    | Body::Mkdir { .. }
                    | Body::Lsetstat { .. }
            ) {
                let longer = [packet, &[0xaa]].concat();
                assert_eq!(decode(&longer), Ok(Request::Numbered { id, body }));
            }
        }
        Err(error) => assert_eq!(error.kind, packet.first().copied().unwrap_or(0)),
    }
});
