//! Bytes that arrived before their turn.
//!
//! Most clients write in order and never touch this. Some (node `ssh2`, asyncssh) keep many WRITEs in flight and send
//! them in any order: what lies beyond the contiguous end of the upload waits here, within a bound of bytes and pieces,
//! until the gap before it is filled. Where ranges overlap, the last arrival wins.
//!
//! The window knows nothing of the contiguous end: its owner takes pieces out as the end reaches them.

use std::collections::BTreeMap;

/// How much a window may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Bytes of payload.
    pub bytes: usize,
    /// Pieces: each costs some memory of its own, so many tiny ones are bounded as well.
    pub pieces: usize,
}

impl Default for WindowLimits {
    /// 8 MiB in 1,024 pieces: 64 WRITEs of 128 KiB, or asyncssh's 128 of 16 KiB four times over.
    fn default() -> Self {
        Self { bytes: 8 << 20, pieces: 1024 }
    }
}

/// A write did not fit into the window; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{held} bytes wait for data that has not been sent, and only {limit} may")]
pub struct WindowFull {
    /// Bytes waiting already.
    pub held: usize,
    /// The bound.
    pub limit: usize,
}

/// Pieces of a file that wait for what comes before them: disjoint, ordered by offset, bounded.
#[derive(Debug)]
pub struct ReorderWindow {
    pieces: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    limits: WindowLimits,
}

impl ReorderWindow {
    /// An empty window. Allocates nothing.
    #[must_use]
    pub const fn new(limits: WindowLimits) -> Self {
        Self { pieces: BTreeMap::new(), bytes: 0, limits }
    }

    /// Bytes waiting.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Offset of the first byte waiting.
    #[must_use]
    pub fn first_offset(&self) -> Option<u64> {
        self.pieces.first_key_value().map(|(&start, _)| start)
    }

    /// Offset behind the last byte waiting.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.pieces.last_key_value().map(|(&start, piece)| end_of(start, piece))
    }

    /// Whether there is room for so many bytes more in two more pieces, overlapping nothing.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.limits.bytes && self.pieces.len() + 2 <= self.limits.pieces
    }

    /// Whether [`hold`](Self::hold) would take `data` of this length at `offset`.
    ///
    /// # Errors
    /// [`WindowFull`] if it would go over a bound.
    pub fn check(&self, offset: u64, length: usize) -> Result<(), WindowFull> {
        let end = offset.saturating_add(length as u64);
        let (mut covered, mut pieces) = (0_usize, self.pieces.len() + 1);
        for (&start, piece) in self.overlapping(offset, end) {
            let piece_end = end_of(start, piece);
            // No larger than the piece, which fits in memory.
            covered += (piece_end.min(end) - start.max(offset)) as usize;
            match (start < offset, piece_end > end) {
                (true, true) => pieces += 1,
                (false, false) => pieces -= 1,
                (true, false) | (false, true) => {}
            }
        }
        if self.bytes - covered + length > self.limits.bytes || pieces > self.limits.pieces {
            return Err(WindowFull { held: self.bytes, limit: self.limits.bytes });
        }
        Ok(())
    }

    /// Keeps a copy of `data` until its turn. It takes the place of waiting bytes that it overlaps.
    ///
    /// # Errors
    /// [`WindowFull`] if it would go over a bound.
    pub fn hold(&mut self, offset: u64, data: &[u8]) -> Result<(), WindowFull> {
        self.check(offset, data.len())?;
        if !data.is_empty() {
            self.discard(offset, offset.saturating_add(data.len() as u64));
            self.bytes += data.len();
            self.pieces.insert(offset, data.to_vec());
        }
        Ok(())
    }

    /// Drops the waiting bytes before `end`: they arrived again, in order.
    pub fn discard_before(&mut self, end: u64) {
        self.discard(0, end);
    }

    /// Drops the waiting bytes from `start` on: the file was cut there.
    pub fn discard_from(&mut self, start: u64) {
        self.discard(start, u64::MAX);
    }

    fn discard(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let touched: Vec<u64> = self.overlapping(start, end).map(|(&at, _)| at).collect();
        for at in touched {
            let Some(mut piece) = self.pieces.remove(&at) else { continue };
            self.bytes -= piece.len();
            let piece_end = end_of(at, &piece);
            if piece_end > end {
                // Copied, not sliced: a sliver must not keep a large buffer alive outside the count.
                let tail = piece.split_off((end - at) as usize);
                self.bytes += tail.len();
                self.pieces.insert(end, tail);
            }
            if at < start {
                piece.truncate((start - at) as usize);
                piece.shrink_to_fit();
                self.bytes += piece.len();
                self.pieces.insert(at, piece);
            }
        }
    }

    /// Takes out the piece that begins at exactly `offset`.
    pub fn take(&mut self, offset: u64) -> Option<Vec<u8>> {
        let piece = self.pieces.remove(&offset)?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    /// The pieces that share bytes with `start..end`.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (&u64, &Vec<u8>)> {
        let before =
            self.pieces.range(..start).next_back().filter(move |(at, piece)| end_of(**at, piece) > start);
        before.into_iter().chain(self.pieces.range(start..end.max(start)))
    }
}

fn end_of(start: u64, piece: &[u8]) -> u64 {
    start.saturating_add(piece.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: WindowLimits = WindowLimits { bytes: 64, pieces: 6 };

    #[test]
    fn a_refused_write_changes_nothing() {
        let mut window = ReorderWindow::new(WindowLimits { bytes: 8, pieces: 2 });
        window.hold(10, b"abcd").unwrap();
        assert_eq!(window.hold(20, b"12345"), Err(WindowFull { held: 4, limit: 8 }));
        window.hold(20, b"1234").unwrap();
        assert!(window.hold(30, b"").is_err(), "a third piece, though empty, is over the bound");
        assert_eq!((window.bytes(), window.first_offset(), window.end()), (8, Some(10), Some(24)));
        // Replacing what waits needs no room.
        window.hold(10, b"ABCD").unwrap();
        assert_eq!(window.take(10).unwrap(), b"ABCD");
    }

    #[test]
    fn a_write_inside_another_splits_it() {
        let mut window = ReorderWindow::new(SMALL);
        window.hold(100, b"aaaaaaaaaa").unwrap();
        window.hold(103, b"BBB").unwrap();
        assert_eq!(window.bytes(), 10);
        assert_eq!(window.take(100).unwrap(), b"aaa");
        assert_eq!(window.take(103).unwrap(), b"BBB");
        assert_eq!(window.take(106).unwrap(), b"aaaa");
        assert!(window.is_empty());
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn offsets_at_the_end_of_the_range_do_not_overflow() {
        let mut window = ReorderWindow::new(SMALL);
        window.hold(u64::MAX - 2, b"ab").unwrap();
        window.discard_from(u64::MAX - 1);
        assert_eq!(window.take(u64::MAX - 2).unwrap(), b"a");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hold(u64, Vec<u8>),
        DiscardBefore(u64),
        DiscardFrom(u64),
        Take(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u64..96, prop::collection::vec(any::<u8>(), 0..24)).prop_map(|(at, data)| Step::Hold(at, data)),
            1 => (0_u64..96).prop_map(Step::DiscardBefore),
            1 => (0_u64..96).prop_map(Step::DiscardFrom),
            2 => (0_u64..96).prop_map(Step::Take),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// The model: one optional byte per offset. Pieces must be what the model says, and counts must be right.
        #[test]
        fn behaves_like_a_sparse_array(steps in prop::collection::vec(step(), 1..60)) {
            let mut window = ReorderWindow::new(SMALL);
            let mut model: Vec<Option<u8>> = vec![None; 128];
            for step in steps {
                match step {
                    Step::Hold(at, data) => {
                        let mut after = model.clone();
                        for (i, byte) in data.iter().enumerate() {
                            after[at as usize + i] = Some(*byte);
                        }
                        let fits = after.iter().flatten().count() <= SMALL.bytes;
                        match window.hold(at, &data) {
                            Ok(()) => { prop_assert!(fits); model = after; }
                            // Refused for bytes as the model says, or for pieces.
                            Err(_) => prop_assert!(!fits || window.pieces.len() + 2 > SMALL.pieces),
                        }
                    }
                    Step::DiscardBefore(end) => {
                        window.discard_before(end);
                        model[..end as usize].fill(None);
                    }
                    Step::DiscardFrom(start) => {
                        window.discard_from(start);
                        model[start as usize..].fill(None);
                    }
                    Step::Take(at) => match window.take(at) {
                        Some(piece) => for (i, byte) in piece.iter().enumerate() {
                            prop_assert_eq!(model[at as usize + i].take(), Some(*byte));
                        },
                        None => prop_assert!(!window.pieces.contains_key(&at)),
                    },
                    Step::Clear => { window.clear(); model.fill(None); }
                }
                let mut seen: Vec<Option<u8>> = vec![None; 128];
                for (start, piece) in &window.pieces {
                    prop_assert!(!piece.is_empty());
                    for (i, byte) in piece.iter().enumerate() {
                        prop_assert!(seen[*start as usize + i].replace(*byte).is_none(), "pieces overlap");
                    }
                }
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(window.bytes(), model.iter().flatten().count());
                prop_assert!(window.bytes() <= SMALL.bytes && window.pieces.len() <= SMALL.pieces);
                prop_assert_eq!(window.first_offset(), model.iter().position(Option::is_some).map(|i| i as u64));
                prop_assert_eq!(window.end(), model.iter().rposition(Option::is_some).map(|i| i as u64 + 1));
            }
        }
    }
}
