//! The table as it is checked in.

use anyhow::{Context as _, Result, bail, ensure};
use dropgate_integration_tests::harness::binary;
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

const HEAD: &str = "\
# The contract as data: what each request answers at each place. A cell that is missing fails the test that walks it.
# answer: a status code (0 OK, 2 no such file, 3 permission denied, 4 failure, 8 unsupported) or the kind of another reply.
# PATH, TARGET, HEX and ID stand for what differs from cell to cell; [ref] for the reference that finds the audit entry.
request\tplace\tanswer\ttext
";

/// What one request answers at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) request: String,
    pub(super) place: String,
    pub(super) answer: String,
    pub(super) text: String,
}

/// All cells, by request and place, in the order in which they are written.
pub(super) struct Table {
    cells: Vec<Cell>,
    index: BTreeMap<(String, String), usize>,
}

impl Table {
    pub(super) fn of(cells: Vec<Cell>) -> Result<Self> {
        let mut index = BTreeMap::new();
        for (number, cell) in cells.iter().enumerate() {
            let before = index.insert((cell.request.clone(), cell.place.clone()), number);
            ensure!(before.is_none(), "{} at {} is there twice", cell.request, cell.place);
        }
        Ok(Self { cells, index })
    }

    pub(super) fn read() -> Result<Self> {
        let path = file()?;
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rows =
            text.lines().filter(|l| !l.starts_with('#') && !l.starts_with("request\t") && !l.is_empty());
        let cell = |line: &str| {
            let [request, place, answer, text] = line.split('\t').collect::<Vec<_>>()[..] else {
                bail!("not four cells: {line:?}")
            };
            let own = str::to_owned;
            Ok(Cell { request: own(request), place: own(place), answer: own(answer), text: own(text) })
        };
        Self::of(rows.map(cell).collect::<Result<_>>()?)
    }

    pub(super) fn write(&self) -> Result<()> {
        let mut text = HEAD.to_owned();
        for Cell { request, place, answer, text: said } in self.sorted() {
            writeln!(text, "{request}\t{place}\t{answer}\t{said}")?;
        }
        std::fs::write(file()?, text)?;
        Ok(())
    }

    pub(super) fn get(&self, request: &str, place: &str) -> Option<&Cell> {
        self.index.get(&(request.to_owned(), place.to_owned())).and_then(|at| self.cells.get(*at))
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// What differs between this table, walked over the wire, and the one that is checked in.
    pub(super) fn compare(&self, kept: &Self) -> String {
        let mut wrong = String::new();
        for Cell { request, place, answer, text } in &self.cells {
            let told = match kept.get(request, place) {
                Some(cell) if cell.answer == *answer && cell.text == *text => continue,
                Some(cell) => format!("{}\t{}", cell.answer, cell.text),
                None => "nothing".to_owned(),
            };
            wrong += &format!("{request}\t{place}\t{answer}\t{text}\n    in the table: {told}\n");
        }
        wrong
    }

    /// By the order of requests and places in the source, so that a diff shows what changed and nothing else.
    fn sorted(&self) -> Vec<&Cell> {
        let requests: Vec<&str> = super::requests::ALL
            .iter()
            .map(|r| r.name)
            .chain(super::handles::REQUESTS.iter().map(|r| r.name))
            .collect();
        let places: Vec<&str> = super::places::ALL
            .iter()
            .map(|p| p.name)
            .chain(super::handles::HANDLES.iter().map(|h| h.name))
            .collect();
        let at = |names: &[&str], name: &str| names.iter().position(|n| *n == name);
        let mut cells: Vec<&Cell> = self.cells.iter().collect();
        cells.sort_by_key(|c| (at(&requests, &c.request), at(&places, &c.place)));
        cells
    }
}

fn file() -> Result<PathBuf> {
    Ok(binary::workspace()?.join("integration-tests/tests/e2e/contract/table.tsv"))
}

/// A text without what differs from run to run. `whole` are words, `parts` stand within words.
pub(super) fn plain(text: &str, whole: &[(&str, &str)], part: (&str, &str)) -> String {
    let mut below = false;
    let mut plain = String::new();
    for word in text.split_inclusive(' ') {
        let bare = word.trim_end_matches([' ', ':', ',', ';']);
        let kept = match bare.split_once('=') {
            Some(("sha256", _)) => "sha256=HEX".to_owned(),
            Some(("receipt", _)) => "receipt=ID".to_owned(),
            _ => match whole.iter().find(|(from, _)| *from == bare) {
                // "Below /upload" is said of the tree, also to who asked for /upload.
                Some((_, to)) if !below => (*to).to_owned(),
                _ => bare.replace(part.0, part.1),
            },
        };
        plain += &kept;
        plain += word.strip_prefix(bare).unwrap_or_default();
        below = bare == "below";
    }
    match plain.split_once("[ref ") {
        Some((before, after)) => {
            format!("{before}[ref]{}", after.split_once(']').map_or("", |(_, rest)| rest))
        }
        None => plain,
    }
}
