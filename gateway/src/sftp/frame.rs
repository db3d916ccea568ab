//! Cuts the byte stream of a channel into SFTP packets. A packet never waits in memory as a whole if it is a WRITE: its
//! payload is handed on piece by piece as it arrives.

/// Largest packet taken, length field not counted. OpenSSH's clients use the same bound.
pub const MAX_PACKET: u32 = 256 * 1024;
/// Largest payload of a WRITE, as told by `limits@openssh.com`.
pub const MAX_WRITE: u32 = 255 * 1024;
/// Longest handle a client can present (RFC draft: at most 256 bytes); ours are shorter.
const MAX_HANDLE: u32 = 256;

const SSH_FXP_WRITE: u8 = 6;

/// Why the stream can't be parsed any further. The channel must be closed: what follows can't be trusted to be a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_PACKET`].
    #[error("a packet of {0} bytes: at most 262144 are allowed")]
    TooLong(u32),
    /// Too short to be a packet of its kind.
    #[error("a packet that ends before its fields do")]
    Short,
    /// A field that runs over the packet's end, or bytes behind its last field.
    #[error("a packet whose fields don't add up to its length")]
    Malformed,
}

/// What the splitter found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole packet other than WRITE: type byte and fields.
    Packet(&'a [u8]),
    /// The head of a WRITE; its payload follows.
    WriteHead {
        /// Request id.
        id: u32,
        /// Handle as the client sent it.
        handle: &'a [u8],
        /// Offset of the payload in the file.
        offset: u64,
        /// Length of the payload.
        length: u32,
    },
    /// The next part of the payload.
    WriteData(&'a [u8]),
    /// The payload is complete (also sent for an empty one).
    WriteEnd,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Collecting the length field and the type byte.
    Head,
    /// Collecting a packet of so many bytes, type byte included.
    Body(u32),
    /// Collecting the head of a WRITE of so many bytes in all: fields up to the payload.
    Write(u32),
    /// Passing on payload.
    Payload(u32),
    /// All payload was passed on; `WriteEnd` comes next.
    End,
}

/// Cuts a stream into packets. Memory: one packet that is not a WRITE, or the head of one that is.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    buffer: Vec<u8>,
    /// What `buffer` holds was handed out and is dropped at the next call.
    spent: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { state: State::Head, buffer: Vec::with_capacity(64), spent: false }
    }
}

impl Splitter {
    /// Takes from the front of `input` and returns the next piece, or none if `input` is used up.
    ///
    /// # Errors
    /// [`FrameError`]; do not call again after one.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'s>>, FrameError> {
        if self.spent {
            self.buffer.clear();
            self.spent = false;
        }
        loop {
            match self.state {
                State::Head => {
                    if !self.fill(input, 5) {
                        return Ok(None);
                    }
                    let length = be32(&self.buffer, 0).ok_or(FrameError::Short)?;
                    let kind = self.buffer.get(4).copied().ok_or(FrameError::Short)?;
                    if length > MAX_PACKET {
                        return Err(FrameError::TooLong(length));
                    }
                    if length == 0 {
                        return Err(FrameError::Short);
                    }
                    // The buffer keeps the packet without its length field.
                    self.buffer.clear();
                    self.buffer.push(kind);
                    self.state =
                        if kind == SSH_FXP_WRITE { State::Write(length) } else { State::Body(length) };
                }
                State::Body(length) => {
                    if !self.fill(input, length as usize) {
                        return Ok(None);
                    }
                    self.state = State::Head;
                    self.spent = true;
                    return Ok(Some(Piece::Packet(&self.buffer)));
                }
                State::Write(length) => {
                    // type 1, id 4, handle length 4, handle, offset 8, payload length 4
                    let need = 9;
                    if (length as usize) < need {
                        return Err(FrameError::Short);
                    }
                    if !self.fill(input, need) {
                        return Ok(None);
                    }
                    let handle_length = be32(&self.buffer, 5).ok_or(FrameError::Short)?;
                    if handle_length > MAX_HANDLE {
                        return Err(FrameError::Malformed);
                    }
                    let head = 21 + handle_length;
                    if length < head {
                        return Err(FrameError::Short);
                    }
                    if !self.fill(input, head as usize) {
                        return Ok(None);
                    }
                    let payload = be32(&self.buffer, head as usize - 4).ok_or(FrameError::Short)?;
                    if head.checked_add(payload) != Some(length) {
                        return Err(FrameError::Malformed);
                    }
                    self.state = if payload == 0 { State::End } else { State::Payload(payload) };
                    self.spent = true;
                    return Ok(Some(Piece::WriteHead {
                        id: be32(&self.buffer, 1).ok_or(FrameError::Short)?,
                        handle: self.buffer.get(9..9 + handle_length as usize).ok_or(FrameError::Short)?,
                        offset: be64(&self.buffer, 9 + handle_length as usize).ok_or(FrameError::Short)?,
                        length: payload,
                    }));
                }
                State::Payload(left) => {
                    let take = input.len().min(left as usize);
                    if take == 0 {
                        return Ok(None);
                    }
                    let Some((data, rest)) = input.split_at_checked(take) else { return Ok(None) };
                    *input = rest;
                    let left = left.saturating_sub(u32::try_from(take).unwrap_or(left));
                    self.state = if left == 0 { State::End } else { State::Payload(left) };
                    return Ok(Some(Piece::WriteData(data)));
                }
                State::End => {
                    self.state = State::Head;
                    return Ok(Some(Piece::WriteEnd));
                }
            }
        }
    }

    /// Whether the stream could end here without cutting a packet.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head) && (self.spent || self.buffer.is_empty())
    }

    /// Moves bytes from `input` until the buffer holds `want`; true once it does.
    fn fill(&mut self, input: &mut &[u8], want: usize) -> bool {
        let missing = want.saturating_sub(self.buffer.len());
        let take = missing.min(input.len());
        if let Some((data, rest)) = input.split_at_checked(take) {
            self.buffer.extend_from_slice(data);
            *input = rest;
        }
        take == missing
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Whole {
        Packet(Vec<u8>),
        Write { id: u32, handle: Vec<u8>, offset: u64, data: Vec<u8> },
    }

    fn encode(packet: &Whole) -> Vec<u8> {
        let body = match packet {
            Whole::Packet(bytes) => bytes.clone(),
            Whole::Write { id, handle, offset, data } => {
                let mut b = vec![SSH_FXP_WRITE];
                b.extend(id.to_be_bytes());
                b.extend((handle.len() as u32).to_be_bytes());
                b.extend(handle);
                b.extend(offset.to_be_bytes());
                b.extend((data.len() as u32).to_be_bytes());
                b.extend(data);
                b
            }
        };
        let mut out = (body.len() as u32).to_be_bytes().to_vec();
        out.extend(body);
        out
    }

    fn split(chunks: &[&[u8]]) -> Result<Vec<Whole>, FrameError> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        let mut writing: Option<(u32, Whole)> = None;
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(piece) = splitter.next(&mut input)? {
                match piece {
                    Piece::Packet(bytes) => found.push(Whole::Packet(bytes.to_vec())),
                    Piece::WriteHead { id, handle, offset, length } => {
                        writing = Some((
                            length,
                            Whole::Write { id, handle: handle.to_vec(), offset, data: vec![] },
                        ));
                    }
                    Piece::WriteData(bytes) => match &mut writing {
                        Some((_, Whole::Write { data, .. })) => data.extend(bytes),
                        _ => panic!("payload without head"),
                    },
                    Piece::WriteEnd => {
                        let (length, write) = writing.take().unwrap();
                        assert!(matches!(&write, Whole::Write { data, .. } if data.len() == length as usize));
                        found.push(write);
                    }
                }
            }
            assert!(input.is_empty());
        }
        Ok(found)
    }

    fn packet() -> impl Strategy<Value = Whole> {
        prop_oneof![
            (
                any::<u8>().prop_filter("not WRITE", |k| *k != SSH_FXP_WRITE),
                proptest::collection::vec(any::<u8>(), 0..50)
            )
                .prop_map(|(kind, mut rest)| {
                    rest.insert(0, kind);
                    Whole::Packet(rest)
                }),
            (
                any::<u32>(),
                proptest::collection::vec(any::<u8>(), 0..9),
                any::<u64>(),
                proptest::collection::vec(any::<u8>(), 0..300)
            )
                .prop_map(|(id, handle, offset, data)| Whole::Write { id, handle, offset, data }),
        ]
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_packets(packets in proptest::collection::vec(packet(), 0..12), cuts in proptest::collection::vec(0_usize..2000, 0..20)) {
            let stream: Vec<u8> = packets.iter().flat_map(encode).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.push(0);
            cuts.push(stream.len());
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(split(&chunks).unwrap(), packets);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400) {
            let cut = cut.min(bytes.len());
            let _ = split(&[&bytes[..cut], &bytes[cut..]]);
        }
    }

    #[test]
    fn an_oversized_packet_is_refused_before_its_body_is_read() {
        let mut frame = (1_u32 << 20).to_be_bytes().to_vec();
        frame.push(SSH_FXP_WRITE);
        assert_eq!(split(&[&frame]), Err(FrameError::TooLong(1 << 20)));
    }

    #[test]
    fn a_write_whose_lengths_disagree_is_refused() {
        let mut frame = encode(&Whole::Write { id: 1, handle: vec![0; 4], offset: 0, data: vec![7; 10] });
        frame[3] -= 1;
        assert_eq!(split(&[&frame]), Err(FrameError::Malformed));
        assert_eq!(split(&[&[0, 0, 0, 0, 5]]), Err(FrameError::Short));
    }
}
