//! What is wrong with the settings: where, what and what to do.

use super::document::{Origin, SyntaxError};
use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was made.
    pub(crate) origin: Origin,
    /// The key it is about: `ops.listen`.
    pub(crate) key: Option<String>,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) remedy: String,
    /// Whether it is that something is not there.
    pub(crate) missing: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Every mistake that was found, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl From<Vec<Problem>> for Problems {
    fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_cached_key(|problem| {
            let line = match &problem.origin {
                Origin::File { line, .. } => *line,
                Origin::Setting(_) | Origin::Whole(_) => usize::MAX,
            };
            (line, problem.to_string())
        });
        problems.dedup();
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problem {
    /// The file is not TOML.
    pub(crate) fn syntax(error: SyntaxError) -> Self {
        Self {
            origin: error.origin,
            key: None,
            what: format!("not TOML: {}", error.message),
            remedy: "strings stand in double quotes, tables in [brackets]".to_owned(),
            missing: false,
        }
    }

    /// A variable or an option can't be put where its name says.
    pub(crate) fn setting(name: &str, what: String) -> Self {
        let remedy = "`dropgate config print` shows all keys".to_owned();
        Self { origin: Origin::Setting(name.to_owned()), key: None, what, remedy, missing: false }
    }

    /// What a deserialiser said, in the words of this program, with what would be right.
    pub(crate) fn from_serde(
        origin: Origin,
        path: Option<&str>,
        message: &str,
        defaults: &toml::Table,
    ) -> Self {
        let message = message.trim().replace('\n', " ");
        let key = path.map(str::to_owned);
        if let Some((unknown, known)) = unknown_field(&message) {
            let what = format!("unknown key {unknown:?}");
            return Self { origin, key, what, remedy: instead_of(&unknown, &known), missing: false };
        }
        if let Some(missing) = message.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
            let what = format!("the key {missing:?} is missing");
            return Self { origin, key, what, remedy: format!("add {missing} = …"), missing: true };
        }
        let secret = path.is_some_and(super::print::is_secret);
        let what = if secret { "not a value for this key".to_owned() } else { message };
        let remedy = match path.and_then(|path| default_of(defaults, path)) {
            Some(default) => format!("the default is {default}"),
            None if secret => "refer to a secret by env:NAME or file:PATH".to_owned(),
            None => "correct it or take it out".to_owned(),
        };
        Self { origin, key, what, remedy, missing: false }
    }
}

/// The unknown name and the known ones, from serde's ``unknown field `x`, expected one of `a`, `b` ``.
pub(crate) fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.split_once("unknown field ")?.1;
    let mut names = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((names.next()?, names.collect()))
}

fn instead_of(unknown: &str, known: &[String]) -> String {
    let best = known
        .iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let list = known.join(", ");
    match best {
        Some((_, name)) => format!("did you mean {name:?}? Known here: {list}"),
        None if known.is_empty() => "take it out".to_owned(),
        None => format!("known here: {list}"),
    }
}

fn default_of(defaults: &toml::Table, path: &str) -> Option<String> {
    let mut keys = path.split('.');
    let first = defaults.get(keys.next()?)?;
    let value = keys.try_fold(first, |value, key| value.get(key))?;
    match value {
        toml::Value::Table(_) | toml::Value::Array(_) => None,
        plain => Some(plain.to_string()),
    }
}
