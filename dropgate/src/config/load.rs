//! From a document to settings, with every problem on the way and not just the first.

use super::{
    document::{Document, Entry, Setting},
    problem::{Problem, Problems},
};
use serde::{Serialize, de::DeserializeOwned};

/// More problems than this help nobody.
const MOST_PROBLEMS: usize = 100;

/// Reads settings of type `T` from the file's text and what was set from outside.
///
/// # Errors
/// Every problem that was found, those of the file also where something from outside stands over them.
pub(crate) fn load<T>(name: &str, text: &str, settings: &[Setting]) -> Result<(T, Places), Problems>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut document = Document::parse(name, text)
        .map_err(|errors| Problems::from(errors.into_iter().map(Problem::syntax).collect::<Vec<_>>()))?;
    let mut problems = match read::<T>(document.clone(), &[]) {
        Ok(_) => Vec::new(),
        // What is missing here may come from outside.
        Err(problems) => problems.into_iter().filter(|problem| !problem.missing).collect(),
    };
    for setting in settings {
        if let Err(what) = document.set(setting, false) {
            problems.push(Problem::setting(&setting.name, what));
        }
    }
    match read::<T>(document, settings) {
        Ok(read) if problems.is_empty() => Ok(read),
        Ok(_) => Err(problems.into()),
        Err(more) => Err(problems.into_iter().chain(more).collect::<Vec<_>>().into()),
    }
}

/// A deserialiser stops at the first mistake. So the entry it stopped at is written down, taken out, and the rest is read
/// again, until it goes through.
fn read<'i, T>(mut document: Document<'i>, settings: &'i [Setting]) -> Result<(T, Places), Vec<Problem>>
where
    T: DeserializeOwned + Serialize + Default,
{
    let complete = document.clone();
    let whole = 0..complete.len();
    let defaults = toml::Table::try_from(T::default()).unwrap_or_default();
    let mut as_text = settings.iter().collect::<Vec<_>>();
    let mut problems = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        let root = toml::Spanned::new(whole.clone(), document.root.clone());
        let error = match T::deserialize(toml::de::Deserializer::from(root)) {
            Ok(_) if !problems.is_empty() => break,
            Ok(settings) => return Ok((settings, Places::of(&complete))),
            Err(error) => error,
        };
        let span = error.span().filter(|span| *span != whole);
        let entry = span.as_ref().and_then(|span| document.entry_at(span));
        let quoted = entry.as_ref().and_then(|entry| document.quoted_in(entry, error.message()));
        let origin = complete.origin(quoted.as_ref().map(Entry::place).or(span));
        let entry = quoted.or(entry);
        // `PASSWORD=1234` spells a number, but may well mean a string.
        if let Some(n) = as_text.iter().position(|setting| origin.is(&setting.name))
            && is_about_a_type(error.message())
        {
            let setting = as_text.swap_remove(n);
            if document.set(setting, true).is_ok() {
                continue;
            }
        }
        let path = entry.as_ref().map(|entry| complete.path_of(entry));
        problems.push(Problem::from_serde(origin, path.as_deref(), error.message(), &defaults));
        if !entry.is_some_and(|entry: Entry| document.remove(&entry)) {
            break;
        }
    }
    Err(problems)
}

fn is_about_a_type(message: &str) -> bool {
    message.contains("invalid type")
}

/// Where keys were set, for problems that show only when the settings are looked at as a whole.
#[derive(Debug, Default)]
pub(crate) struct Places {
    whole: String,
    known: Vec<(String, super::document::Origin)>,
}

impl Places {
    fn of(document: &Document<'_>) -> Self {
        Self { whole: document.name().to_owned(), known: document.places() }
    }

    /// Where a key was set; where the nearest table around it stands, if it was not.
    pub(crate) fn find(&self, path: &str) -> super::document::Origin {
        let mut wanted = path;
        loop {
            if let Some((_, origin)) = self.known.iter().find(|(known, _)| known == wanted) {
                return origin.clone();
            }
            match wanted.rfind(['.', '[']) {
                Some(end) => wanted = wanted.get(..end).unwrap_or_default(),
                None => return super::document::Origin::Whole(self.whole.clone()),
            }
        }
    }
}
