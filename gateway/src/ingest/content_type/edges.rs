//! The first and the last bytes of an upload, kept as its bytes go by.

use dropgate_schemas::upload::Staged;

/// How much of either end of a file is looked at, in bytes.
pub const EDGE_BYTES: usize = 4096;

/// What is known of a file for naming its type: both ends and the length.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    head: Vec<u8>,
    tail: Vec<u8>,
    length: u64,
}

impl Edges {
    /// Continues where `staged` ends; `None` if it does not fit its length.
    pub(crate) fn resume(staged: &Staged) -> Option<Self> {
        let Staged { length, head, tail, .. } = staged;
        let whole = *length <= EDGE_BYTES as u64;
        let fits = head.0.len() as u64 == (*length).min(EDGE_BYTES as u64) && tail.0.len() <= EDGE_BYTES;
        let tail = if whole { head } else { tail };
        fits.then(|| Self { head: head.0.clone(), tail: tail.0.clone(), length: *length })
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        let missing = EDGE_BYTES - self.head.len();
        self.head.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        match bytes.last_chunk::<EDGE_BYTES>() {
            Some(last) => {
                self.tail.clear();
                self.tail.extend_from_slice(last);
            }
            None => {
                let surplus = (self.tail.len() + bytes.len()).saturating_sub(EDGE_BYTES);
                self.tail.drain(..surplus);
                self.tail.extend_from_slice(bytes);
            }
        }
        self.length += bytes.len() as u64;
    }

    /// The first [`EDGE_BYTES`], or all there are.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The last [`EDGE_BYTES`], or all there are. `None` for an upload that an older version began, which did not keep
    /// them, until enough have followed.
    #[must_use]
    pub fn tail(&self) -> Option<&[u8]> {
        (self.tail.len() as u64 == self.length.min(EDGE_BYTES as u64)).then_some(&self.tail)
    }

    /// What [`Staged::tail`] keeps: nothing that its head holds already.
    pub(crate) fn tail_beyond_head(&self) -> &[u8] {
        if self.length > EDGE_BYTES as u64 { &self.tail } else { &[] }
    }

    /// Bytes of the whole file.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}
