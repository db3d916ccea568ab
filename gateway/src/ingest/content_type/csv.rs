//! Delimited tables: the same delimiter the same number of times in nearly every record.

use super::{Sample, verdict};
use dropgate_schemas::content::ContentType;

/// Records that need to agree, in thousandths: exports end in a line of totals or begin with a title.
const MIN_PERMILLE: usize = 900;
/// With two columns only, a comma may be punctuation: more records are asked for.
const MIN_RECORDS_OF_TWO: usize = 3;

pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let mut best: Option<(usize, usize, u8)> = None;
    for delimiter in [b'\t', b';', b'|', b','] {
        let fields = field_counts(sample.bytes, sample.cut, delimiter);
        let Some((columns, permille)) = agreement(&fields) else { continue };
        if best.is_none_or(|(p, c, _)| (permille, columns) > (p, c)) {
            best = Some((permille, columns, delimiter));
        }
    }
    let (permille, _, delimiter) = best?;
    let mut found = match delimiter {
        b'\t' => verdict("text/tab-separated-values", "tsv", "rule:csv"),
        _ => verdict("text/csv", "csv", "rule:csv"),
    };
    found.score_permille = u16::try_from(permille).ok();
    Some(found)
}

/// How many fields each record has. Quotes hide delimiters and line ends (RFC 4180); a record that may be cut is left out.
fn field_counts(bytes: &[u8], cut: bool, delimiter: u8) -> Vec<usize> {
    let mut counts = Vec::new();
    let (mut fields, mut record_bytes) = (1, 0);
    let mut quoted = false;
    let mut at_field_start = true;
    for &byte in bytes {
        match byte {
            // A quote opens only at the beginning of a field: inches and apostrophes stand elsewhere.
            b'"' if quoted => quoted = false,
            b'"' if at_field_start => quoted = true,
            b'\n' if !quoted => {
                if record_bytes > 0 {
                    counts.push(fields);
                }
                (fields, record_bytes) = (1, 0);
                at_field_start = true;
                continue;
            }
            _ if byte == delimiter && !quoted => {
                fields += 1;
                record_bytes += 1;
                at_field_start = true;
                continue;
            }
            b'\r' | b' ' if !quoted => continue,
            _ => {}
        }
        record_bytes += 1;
        // Inside an escaped pair ("") the second quote opens the field again.
        at_field_start = byte == b'"' && !quoted;
    }
    if record_bytes > 0 && !cut && !quoted {
        counts.push(fields);
    }
    counts
}

/// The most frequent number of columns and the share of records that have it; `None` where that makes no table.
fn agreement(fields: &[usize]) -> Option<(usize, usize)> {
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let (columns, records) = sorted
        .chunk_by(|a, b| a == b)
        .map(|run| (run.first().copied().unwrap_or(0), run.len()))
        .max_by_key(|r| r.1)?;
    let permille = records * 1000 / fields.len();
    let enough = records >= if columns == 2 { MIN_RECORDS_OF_TWO } else { 2 };
    (columns >= 2 && enough && permille >= MIN_PERMILLE).then_some((columns, permille))
}
