//! Tables for people: aligned columns, one row a line.

use std::fmt::{self, Write as _};
use unicode_width::UnicodeWidthStr as _;

/// A table with a head. The last column is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with these column heads and no rows.
    pub(crate) fn new<const N: usize>(head: [&'static str; N]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new(), right: Vec::new() }
    }

    /// Aligns a column to the right: for numbers.
    pub(crate) fn right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// Adds a row. Control characters are escaped, so that a row stays a line.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// Whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// An empty cell shows as `-`; what a terminal could act on is escaped.
fn plain(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    crate::logging::escape(cell)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<String> = self.head.iter().map(|&h| h.to_owned()).collect();
        let mut widths: Vec<usize> = head.iter().map(|h| h.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let gap = " ".repeat(width.saturating_sub(cell.width()));
                if self.right.contains(&column) {
                    write!(line, "{gap}{cell}")?;
                } else {
                    write!(line, "{cell}{gap}")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes for people: `1.5 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_a_terminal_shows() {
        let mut table = Table::new(["NAME", "SIZE", "NOTE"]).right(1);
        table.row(["Übergröße".into(), "7".into(), "a\nb\u{1b}[31m".into()]);
        table.row(["契約.pdf".into(), "1024".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "NAME       SIZE  NOTE\nÜbergröße     7  a\\nb\\u{1b}[31m\n契約.pdf   1024  -\n"
        );
    }

    #[test]
    fn sizes_read_well() {
        for (n, said) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (1536, "1.5 KiB")]
        {
            assert_eq!(bytes(n), said);
        }
    }
}
