//! One client's results.

use super::Case;
use std::fmt::{self, Write as _};

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// All that the case asks for is true.
    Yes,
    /// So it is, in this way; the second text is explained below the table.
    In(&'static str, Option<&'static str>),
    /// The client has nothing of that kind: why.
    Cannot(&'static str),
}

/// One client's line of the table and its remarks.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the client.
    pub client: &'static str,
    /// A cell for each case, in the order of [`Case::ALL`].
    pub cells: Vec<(Case, Cell)>,
}

impl Row {
    /// Its lines in the document: that of the table first, then its remarks.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut line = format!("| {} |", self.client);
        // Cases with the same remark share it.
        let mut remarks: Vec<(&str, Vec<&str>)> = Vec::new();
        for (case, cell) in &self.cells {
            // Writing into a String can't fail.
            let _ = write!(line, " {cell} |");
            let Some(remark) = cell.remark() else { continue };
            match remarks.iter_mut().find(|(known, _)| *known == remark) {
                Some((_, cases)) => cases.push(case.heading()),
                None => remarks.push((remark, vec![case.heading()])),
            }
        }
        let remarks = remarks
            .into_iter()
            .map(|(remark, cases)| format!("- {}, {}: {remark}", self.client, cases.join(", ")));
        std::iter::once(line).chain(remarks).collect()
    }
}

impl Cell {
    fn remark(&self) -> Option<&'static str> {
        match self {
            Self::Yes => None,
            Self::In(_, remark) => *remark,
            Self::Cannot(why) => Some(why),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::In(how, None) => f.write_str(how),
            Self::In(how, Some(_)) => write!(f, "{how} ¹"),
            Self::Cannot(_) => f.write_str("– ¹"),
        }
    }
}
