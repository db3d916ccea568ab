//! The splitter finds the same packets in a stream, and the same end of it, however the stream is cut.
#![no_main]

use arbitrary::Arbitrary;
use dropgate_gateway::sftp::frame::{FrameError, MAX_PACKET, Piece, Splitter};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    stream: Vec<u8>,
    /// Lengths of the pieces in which the stream arrives, over and over.
    cuts: Vec<u8>,
}

/// A packet as it comes out; the payload of a WRITE in one.
#[derive(Debug, PartialEq)]
enum Found {
    Packet(Vec<u8>),
    Write { id: u32, handle: Vec<u8>, offset: u64, length: u32, data: Vec<u8>, ended: bool },
}

fn split<'i>(pieces: impl Iterator<Item = &'i [u8]>) -> (Vec<Found>, Option<FrameError>, bool) {
    let mut splitter = Splitter::default();
    let mut found = Vec::new();
    for mut input in pieces {
        loop {
            match splitter.next(&mut input) {
                Err(error) => return (found, Some(error), false),
                Ok(None) => break,
                Ok(Some(Piece::Packet(packet))) => {
                    assert!(!packet.is_empty() && packet.len() <= MAX_PACKET as usize);
                    found.push(Found::Packet(packet.to_vec()));
                }
                Ok(Some(Piece::WriteHead { id, handle, offset, length })) => {
                    let handle = handle.to_vec();
                    found.push(Found::Write { id, handle, offset, length, data: Vec::new(), ended: false });
                }
                Ok(Some(Piece::WriteData(more))) => match found.last_mut() {
                    Some(Found::Write { data, length, ended: false, .. }) => {
                        assert!(!more.is_empty());
                        data.extend_from_slice(more);
                        assert!(data.len() <= *length as usize);
                    }
                    other => panic!("payload after {other:?}"),
                },
                Ok(Some(Piece::WriteEnd)) => match found.last_mut() {
                    Some(Found::Write { data, length, ended: ended @ false, .. }) => {
                        assert_eq!(data.len(), *length as usize);
                        *ended = true;
                    }
                    other => panic!("an end after {other:?}"),
                },
            }
        }
        assert!(input.is_empty(), "all of a piece is taken");
    }
    (found, None, splitter.at_boundary())
}

fuzz_target!(|input: Input| {
    let whole = split(std::iter::once(input.stream.as_slice()));
    let mut rest = input.stream.as_slice();
    let mut cuts = input.cuts.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let at = rest.len().min(cuts.next().map_or(1, |cut| usize::from(*cut).max(1)));
        let (piece, more) = rest.split_at(at);
        rest = more;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(split(pieces), whole);
});
