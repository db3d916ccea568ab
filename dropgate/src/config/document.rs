//! The settings as they were written: the TOML file, with what the environment and the command line put over it. Every
//! value remembers where it came from, so that a problem can be named where it was made.

use std::ops::Range;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// Prefix of the environment variables that set keys: `DROPGATE__OPS__LISTEN` is `ops.listen`.
pub(crate) const PREFIX: &str = "DROPGATE__";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The config file, at a line (from 1).
    File {
        /// As it was given.
        file: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable or a command-line option, by name.
    Setting(String),
    /// Nowhere in particular: the whole of the settings.
    Whole(String),
}

impl Origin {
    /// Whether this is the variable or option of that name.
    pub(crate) fn is(&self, setting: &str) -> bool {
        match self {
            Self::Setting(name) => name == setting,
            Self::File { .. } | Self::Whole(_) => false,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Setting(name) | Self::Whole(name) => f.write_str(name),
        }
    }
}

/// One key set from outside the file.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// What people know it by: the variable or the option.
    pub(crate) name: String,
    /// The path of the key.
    pub(crate) path: Vec<String>,
    /// As it was given.
    pub(crate) text: String,
}

/// A parsed document that still knows the places of its values.
#[derive(Clone)]
pub(crate) struct Document<'i> {
    name: String,
    text: &'i str,
    pub(crate) root: DeTable<'i>,
    /// Settings from outside stand behind the file's text, each in a range of its own.
    settings: Vec<(Range<usize>, String)>,
}

/// A syntax error of the file.
pub(crate) struct SyntaxError {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

impl<'i> Document<'i> {
    /// Parses the file's text. `name` is how messages call it.
    pub(crate) fn parse(name: &str, text: &'i str) -> Result<Self, Vec<SyntaxError>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { name: name.to_owned(), text, root: root.into_inner(), settings: Vec::new() };
        if errors.is_empty() {
            return Ok(document);
        }
        let syntax = |e: &toml::de::Error| SyntaxError {
            origin: document.origin(e.span()),
            message: e.message().to_owned(),
        };
        Err(errors.iter().map(syntax).collect())
    }

    /// Puts a setting over what the file says. It is taken as the TOML value that it spells, or with `as_text`, or where it
    /// spells none, as a string.
    ///
    /// # Errors
    /// What stands in the way, if the path leads through something that has no keys.
    pub(crate) fn set(&mut self, setting: &'i Setting, as_text: bool) -> Result<(), String> {
        let start = match self.settings.iter().find(|(_, name)| *name == setting.name) {
            Some((range, _)) => range.start,
            None => {
                let start = self.settings.last().map_or(self.text.len() + 1, |(range, _)| range.end);
                self.settings.push((start..start + setting.text.len() + 1, setting.name.clone()));
                start
            }
        };
        let span = start..start + setting.text.len();
        let parsed = if as_text { None } else { DeValue::parse(&setting.text).ok() };
        let value = match parsed {
            Some(value) => shift(value, start),
            None => Spanned::new(span.clone(), DeValue::String(setting.text.as_str().into())),
        };
        put(&mut self.root, &setting.path, value, &span)
    }

    /// Where a range of bytes lies.
    pub(crate) fn origin(&self, span: Option<Range<usize>>) -> Origin {
        let Some(span) = span else { return Origin::Whole(self.name.clone()) };
        if let Some((_, name)) = self.settings.iter().find(|(range, _)| range.contains(&span.start)) {
            return Origin::Setting(name.clone());
        }
        let before = self.text.as_bytes().get(..span.start.min(self.text.len())).unwrap_or_default();
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        Origin::File { file: self.name.clone(), line }
    }

    /// How messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file's text.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Every key with where it was set.
    pub(crate) fn places(&self) -> Vec<(String, Origin)> {
        let entries = entries(&self.root).into_iter();
        entries.map(|entry| (entry.path, self.origin(Some(entry.key)))).collect()
    }

    /// What this document calls an entry of one that was made from it by taking others out.
    pub(crate) fn path_of(&self, entry: &Entry) -> String {
        let same =
            |e: &Entry| e.key == entry.key && e.value == entry.value && e.steps.len() == entry.steps.len();
        entries(&self.root).into_iter().find(same).map_or_else(|| entry.path.clone(), |e| e.path)
    }

    /// The entry that an error at `span` is about: the one whose key or value is just there, or else the smallest around it.
    pub(crate) fn entry_at(&self, span: &Range<usize>) -> Option<Entry> {
        let entries = entries(&self.root);
        let exact = entries.iter().rev().find(|entry| entry.key == *span || entry.value == *span);
        let around = || {
            let holds = |range: &Range<usize>| range.start <= span.start && span.end <= range.end;
            entries.iter().filter(|entry| holds(&entry.value)).min_by_key(|entry| entry.value.len())
        };
        exact.or_else(around).cloned()
    }

    /// The one entry in the table `entry` that a message quotes by key or value. Sections whose keys depend on their `kind`
    /// tell the place of the whole section only.
    pub(crate) fn quoted_in(&self, entry: &Entry, message: &str) -> Option<Entry> {
        let inside =
            |e: &Entry| e.path.strip_prefix(&entry.path).is_some_and(|rest| rest.starts_with(['.', '[']));
        let quoted =
            |text: &str| message.contains(&format!("`{text}`")) || message.contains(&format!("{text:?}"));
        let unknown = super::problem::unknown_field(message).map(|(name, _)| name);
        let named = |e: &Entry| match (&unknown, e.steps.last()) {
            (Some(unknown), Some(Step::Key(key))) => key == unknown,
            (Some(_), _) => false,
            (None, _) => e.literal.as_deref().is_some_and(quoted),
        };
        let mut found = entries(&self.root).into_iter().filter(|e| inside(e) && named(e));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, entry: &Entry) -> bool {
        remove(&mut self.root, &entry.steps)
    }
}

/// One key of the document, or one element of an array.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `gateway.limits.sessions`, `destination[0].name`.
    pub(crate) path: String,
    steps: Vec<Step>,
    key: Range<usize>,
    value: Range<usize>,
    /// The value as messages quote it; none for tables and lists.
    literal: Option<String>,
}

impl Entry {
    /// Where its key stands.
    pub(crate) fn place(&self) -> Range<usize> {
        self.key.clone()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Element(usize),
}

/// Every entry, parents before children.
fn entries(root: &DeTable<'_>) -> Vec<Entry> {
    let mut found = Vec::new();
    collect(root, "", &[], &mut found);
    found
}

fn collect(table: &DeTable<'_>, prefix: &str, steps: &[Step], found: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let steps: Vec<Step> = steps.iter().cloned().chain([Step::Key(name.to_string())]).collect();
        found.push(Entry {
            path: path.clone(),
            steps: steps.clone(),
            key: key.span(),
            value: value.span(),
            literal: literal(value.get_ref()),
        });
        match value.get_ref() {
            DeValue::Table(inner) => collect(inner, &path, &steps, found),
            DeValue::Array(elements) => {
                for (n, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{}]", n + 1);
                    let steps: Vec<Step> = steps.iter().cloned().chain([Step::Element(n)]).collect();
                    let span = element.span();
                    found.push(Entry {
                        path: path.clone(),
                        steps: steps.clone(),
                        key: span.clone(),
                        value: span,
                        literal: literal(element.get_ref()),
                    });
                    if let DeValue::Table(inner) = element.get_ref() {
                        collect(inner, &path, &steps, found);
                    }
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

fn literal(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(moment) => Some(moment.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn remove<'i>(table: &mut DeTable<'i>, steps: &[Step]) -> bool {
    let Some((Step::Key(key), rest)) = steps.split_first() else { return false };
    if rest.is_empty() {
        return table.remove(key.as_str()).is_some();
    }
    let Some(value) = table.get_mut(key.as_str()) else { return false };
    match (value.get_mut(), rest) {
        (DeValue::Table(inner), rest) => remove(inner, rest),
        (DeValue::Array(elements), [Step::Element(n)]) if *n < elements.len() => {
            let mut kept = DeArray::new();
            for (at, element) in elements.iter().enumerate() {
                if at != *n {
                    kept.push(element.clone());
                }
            }
            *elements = kept;
            true
        }
        (DeValue::Array(elements), [Step::Element(n), rest @ ..]) => match elements.get_mut(*n) {
            Some(element) => match element.get_mut() {
                DeValue::Table(inner) => remove(inner, rest),
                _ => false,
            },
            None => false,
        },
        _ => false,
    }
}

/// Puts a value at the end of a path, making tables on the way. An element of an array is named by its number from 1; the
/// number behind the last one appends.
fn put<'i>(
    table: &mut DeTable<'i>,
    path: &[String],
    value: Spanned<DeValue<'i>>,
    span: &Range<usize>,
) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else { return Err("a key is missing".to_owned()) };
    let name = || Spanned::new(span.clone(), key.clone().into());
    if rest.is_empty() {
        table.remove(key.as_str());
        table.insert(name(), value);
        return Ok(());
    }
    let new = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
    match table.entry(name()).or_insert_with(new).get_mut() {
        DeValue::Table(inner) => put(inner, rest, value, span),
        DeValue::Array(elements) => {
            let Some((number, rest)) = rest.split_first() else { return Ok(()) };
            let count = elements.len();
            let counted = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let n = counted.filter(|n| *n <= count).ok_or_else(|| {
                format!("{key} is a list of {count}: name an element by its number from 1, not {number:?}")
            })?;
            if n == count {
                elements.push(new());
            }
            match (elements.get_mut(n), rest.is_empty()) {
                (Some(element), true) => *element = value,
                (Some(element), false) => match element.get_mut() {
                    DeValue::Table(inner) => put(inner, rest, value, span)?,
                    other => {
                        return Err(format!("{key}[{number}] is a {} and has no keys", other.type_str()));
                    }
                },
                (None, _) => {}
            }
            Ok(())
        }
        other => Err(format!("{key} is a {} and has no keys", other.type_str())),
    }
}

/// The same value with every place moved by `by`.
fn shift<'i>(value: Spanned<DeValue<'i>>, by: usize) -> Spanned<DeValue<'i>> {
    let moved = |span: Range<usize>| span.start + by..span.end + by;
    let span = moved(value.span());
    let inner = match value.into_inner() {
        DeValue::Array(elements) => {
            let mut list = DeArray::new();
            elements.into_iter().for_each(|element| list.push(shift(element, by)));
            DeValue::Array(list)
        }
        DeValue::Table(table) => {
            let mut keys = DeTable::new();
            for (key, inner) in table {
                let place = moved(key.span());
                keys.insert(Spanned::new(place, key.into_inner()), shift(inner, by));
            }
            DeValue::Table(keys)
        }
        plain @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => plain,
    };
    Spanned::new(span, inner)
}
