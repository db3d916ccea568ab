//! `docs/contract.md`: the table as partners read it.

use super::{
    handles, places,
    requests::{self, Asked},
    table::Table,
};
use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::binary;
use std::{fmt::Write as _, path::PathBuf};

const HEAD: &str = "\
# What each request answers

Made from `integration-tests/tests/e2e/contract/table.tsv`, each cell of which a test walks over the wire
(`every_cell_answers_as_the_table_says`); a test compares this page with it (`the_page_for_partners_is_made_from_the_table`).

SFTP version 3. A refusal has a code for the client's software, a sentence for its user and a reference (`[ref]`) under which the
operator finds it. PATH is the name that was asked for, TARGET the second name of a request that has two. An OPEN says only that
bytes are taken; CLOSE, or RENAME of a temp name, says whether the file was accepted.

While the CLOSE of a file is under way, the session that sent it is answered nothing about that name before the CLOSE. To other
sessions of the account the file is still being uploaded, with these differences: OPEN waits for the CLOSE up to 10 seconds,
RENAME up to 60, and REMOVE and SETSTAT are refused. `gateway/tests/sftp/closing.rs` asks every request then.

";

pub(super) fn write(table: &Table) -> Result<()> {
    std::fs::write(file()?, page(table)?)?;
    Ok(())
}

pub(super) fn compare(table: &Table) -> Result<()> {
    let path = file()?;
    let kept = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(
        kept == page(table)?,
        "{} is not what the table says: UPDATE_CONTRACT=1 cargo test -p dropgate-integration-tests --test e2e contract::",
        path.display()
    );
    Ok(())
}

fn file() -> Result<PathBuf> {
    Ok(binary::workspace()?.join("docs/contract.md"))
}

fn page(table: &Table) -> Result<String> {
    let mut page = HEAD.to_owned();
    let places: Vec<(&str, &str)> = places::ALL.iter().map(|p| (p.name, p.words)).collect();
    let handles: Vec<(&str, &str)> = handles::HANDLES.iter().map(|h| (h.name, h.words)).collect();
    section(&mut page, table, "Requests about a name", "What is there", &requests::ALL, &places)?;
    section(&mut page, table, "Requests on a handle", "Handle of", &handles::REQUESTS, &handles)?;
    Ok(page.trim_end().to_owned() + "\n")
}

/// One table a request, places with the same answer in one line.
fn section(
    page: &mut String,
    table: &Table,
    title: &str,
    column: &str,
    requests: &[Asked],
    places: &[(&str, &str)],
) -> Result<()> {
    writeln!(page, "## {title}\n")?;
    for Asked { name, words } in requests {
        writeln!(page, "### {words}\n\n| {column} | Answer |\n|---|---|")?;
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for (place, words) in places {
            let cell = table.get(name, place).with_context(|| format!("{name} at {place} is empty"))?;
            let answer = shown(&cell.answer, &cell.text);
            match lines.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, at)) => at.push(words),
                None => lines.push((answer, vec![words])),
            }
        }
        for (answer, at) in lines {
            writeln!(page, "| {} | {answer} |", at.join("; "))?;
        }
        page.push('\n');
    }
    Ok(())
}

fn shown(answer: &str, text: &str) -> String {
    let kind = match answer {
        "0" => "OK",
        "1" => "EOF",
        "2" => "NO_SUCH_FILE",
        "3" => "PERMISSION_DENIED",
        "4" => "FAILURE",
        "8" => "OP_UNSUPPORTED",
        "handle" => "a handle",
        "attrs" => "attributes",
        "name" => "names",
        "extended" => "the values asked for",
        other => other,
    };
    // A line of the table must stay one.
    let text = text.replace('|', "\\|");
    if text.is_empty() { kind.to_owned() } else { format!("{kind}: {text}") }
}
