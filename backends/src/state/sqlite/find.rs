//! Uploads by id and by query. Which index a query goes by is decided here and told to SQLite, so that it does not depend
//! on statistics that nobody gathers.

use super::{FEW, MOST, fault::Outcome};
use crate::state::{StateError, UploadOrder, UploadQuery};
use dropgate_schemas::{
    id::UploadId,
    upload::{Upload, UploadState},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter, types::Value};

/// Every account that has uploads, by skipping through the index from one to the next.
const ALL_ACCOUNTS: &str = "WITH RECURSIVE every(account) AS (
    SELECT min(account) FROM uploads
    UNION ALL SELECT (SELECT min(account) FROM uploads WHERE account > every.account) FROM every WHERE account IS NOT NULL
) SELECT account FROM every WHERE account IS NOT NULL";

/// One upload.
pub(super) fn one(db: &Connection, id: UploadId) -> Outcome<Option<Upload>> {
    let mut statement = db.prepare_cached("SELECT doc, answered FROM uploads WHERE upload_id = ?1")?;
    statement.query_row([bytes(id)], |row| Ok(read(row))).optional()?.transpose()
}

/// The record, and the mark that is kept beside it.
fn read(row: &Row<'_>) -> Outcome<Upload> {
    let doc = row.get_ref(0)?.as_bytes().map_err(|e| StateError::Corrupt(e.to_string()))?;
    let mut upload: Upload = serde_json::from_slice(doc)
        .map_err(|e| StateError::Corrupt(format!("the record of an upload can't be read: {e}")))?;
    upload.answered |= row.get::<_, bool>(1)?;
    Ok(upload)
}

/// A query, as SQL.
pub(super) struct Search {
    sql: String,
    values: Vec<Value>,
    small: bool,
}

impl Search {
    pub(super) fn new(query: &UploadQuery) -> Self {
        let mut conditions = Conditions::default();
        conditions.take(query);
        let limit = query.limit.min(MOST);
        let index = index(query);
        let (order, by_index) = order(query, index);
        let Conditions { terms, mut values } = conditions;
        let filter = if terms.is_empty() { String::new() } else { format!("WHERE {}", terms.join(" AND ")) };
        let sql = if by_index {
            format!("SELECT doc, answered FROM uploads INDEXED BY {index} {filter} ORDER BY {order} LIMIT ?")
        } else {
            // Sorted as row numbers first: a sorter full of records would not fit into memory.
            format!(
                "SELECT doc, answered FROM uploads WHERE id IN
                 (SELECT id FROM uploads INDEXED BY {index} {filter} ORDER BY {order} LIMIT ?) ORDER BY {order}"
            )
        };
        values.push(integer(limit));
        Self { sql, values, small: by_index && limit <= FEW && query.path.is_some() }
    }

    /// Whether it is sure to look at a few rows only.
    pub(super) const fn is_small(&self) -> bool {
        self.small
    }

    /// The statement, for tests of how SQLite goes about it.
    #[cfg(test)]
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// The values of its parameters.
    #[cfg(test)]
    pub(super) fn values(&self) -> impl rusqlite::Params {
        params_from_iter(&self.values)
    }

    pub(super) fn run(&self, db: &Connection) -> Outcome<Vec<Upload>> {
        let mut statement = db.prepare_cached(&self.sql)?;
        let mut rows = statement.query(params_from_iter(&self.values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

/// The index that leaves the fewest rows to look at.
fn index(query: &UploadQuery) -> &'static str {
    // Most uploads ever received end in these: they narrow nothing down.
    let crowded = |s: &UploadState| {
        matches!(s, UploadState::Processed | UploadState::Superseded | UploadState::Aborted)
    };
    let few_states = !query.states.is_empty() && !query.states.iter().any(crowded);
    let by_name = matches!(query.order, UploadOrder::ByName | UploadOrder::ByNameAfter(_));
    if query.path.is_some() {
        "uploads_by_path"
    } else if query.blob.is_some() {
        "uploads_by_blob"
    } else if query.account.is_some() && query.directory.is_some() && query.area.is_some() && by_name {
        "uploads_by_listing"
    } else if query.sha256.is_some() {
        "uploads_by_digest"
    } else if few_states {
        "uploads_by_state"
    } else if query.directory.is_some() || query.under.is_some() {
        "uploads_by_path"
    } else if query.account.is_some() {
        "uploads_by_account"
    } else if query.partner.is_some() {
        "uploads_by_partner"
    } else if !query.states.is_empty() {
        "uploads_by_state"
    } else if query.since.is_some() {
        "uploads_by_opening"
    } else {
        "uploads_by_id"
    }
}

/// The order, and whether the index gives the rows in it already.
fn order(query: &UploadQuery, index: &str) -> (&'static str, bool) {
    match &query.order {
        UploadOrder::NewestFirst | UploadOrder::Before(_) => (
            "upload_id DESC",
            match index {
                "uploads_by_id" | "uploads_by_account" | "uploads_by_partner" => true,
                "uploads_by_state" => query.states.len() == 1,
                _ => false,
            },
        ),
        // Of one directory and one of its versions there is one only.
        UploadOrder::ByName | UploadOrder::ByNameAfter(_) if index == "uploads_by_listing" => {
            ("name_key, version DESC", true)
        }
        UploadOrder::ByName | UploadOrder::ByNameAfter(_) => ("name_key, version DESC, upload_id", false),
        UploadOrder::ByVersion if query.path.is_some() && query.account.is_some() => ("version DESC", true),
        UploadOrder::ByVersion => ("version DESC, upload_id", false),
    }
}

/// The WHERE clause in the making.
#[derive(Default)]
struct Conditions {
    terms: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn take(&mut self, query: &UploadQuery) {
        if let Some(account) = &query.account {
            self.add("account = ?", [text(account.as_str())]);
        } else if query.path.is_some() || query.directory.is_some() || query.under.is_some() {
            self.add(&format!("account IN ({ALL_ACCOUNTS})"), []);
        }
        if let Some(partner) = &query.partner {
            self.add("partner = ?", [text(partner.as_str())]);
        }
        if let Some(path) = &query.path {
            self.add("path_key = ?", [text(path.key())]);
        }
        if let Some(directory) = &query.directory {
            self.add("dir_key = ?", [text(directory.key())]);
            self.below(directory.key());
        }
        if let Some(under) = &query.under {
            self.below(under.key());
        }
        if !query.states.is_empty() {
            let marks = vec!["?"; query.states.len()].join(", ");
            self.add(&format!("state IN ({marks})"), query.states.iter().map(|s| text(s.as_str())));
        }
        if let Some(area) = query.area {
            self.add("area = ?", [text(area.name())]);
        }
        if let Some(owner) = query.owner {
            let owner = Value::Blob(owner.uuid().as_bytes().to_vec());
            self.add("id IN (SELECT upload FROM upload_owners WHERE owner = ?)", [owner]);
        }
        if let Some(digest) = query.sha256 {
            self.add("sha256 = ?", [Value::Blob(digest.0.to_vec())]);
        }
        if let Some(blob) = query.blob {
            self.add("blob = ?", [Value::Blob(blob.uuid().as_bytes().to_vec())]);
        }
        if let Some(since) = query.since {
            self.add("opened_at >= ?", [Value::Integer(since.millis())]);
        }
        if let Some(until) = query.until {
            self.add("opened_at < ?", [Value::Integer(until.millis())]);
        }
        if let Some(before) = query.updated_before {
            self.add("updated_at < ?", [Value::Integer(before.millis())]);
        }
        match &query.order {
            UploadOrder::NewestFirst | UploadOrder::ByName | UploadOrder::ByVersion => {}
            UploadOrder::Before(id) => self.add("upload_id < ?", [Value::Blob(bytes(*id).to_vec())]),
            UploadOrder::ByNameAfter(name) => self.add("name_key > ?", [text(name)]),
        }
    }

    /// Keys below a directory: between `dir/` and `dir0`, the character after the slash.
    fn below(&mut self, directory: &str) {
        let directory = directory.trim_end_matches('/');
        self.add(
            "path_key > ? AND path_key < ?",
            [text(&format!("{directory}/")), text(&format!("{directory}0"))],
        );
    }

    fn add(&mut self, term: &str, values: impl IntoIterator<Item = Value>) {
        self.terms.push(term.to_owned());
        self.values.extend(values);
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn integer(n: usize) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn bytes(id: UploadId) -> [u8; 16] {
    *id.uuid().as_bytes()
}
