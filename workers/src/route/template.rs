//! Key templates: text with atoms whose values can't leave the destination's root.

use dropgate_schemas::{path::MAX_COMPONENT, time::Timestamp, upload::Upload};

/// Longest key in bytes: that of an S3 object.
pub const MAX_KEY: usize = 1024;

const ATOMS: &str =
    "{partner}, {account}, {dir}, {name}, {version}, {upload_id}, {sha256} and {date:%Y/%m/%d}";

/// Why a template was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct TemplateError {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

fn refuse(what: impl Into<String>, remedy: impl Into<String>) -> TemplateError {
    TemplateError { what: what.into(), remedy: remedy.into() }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Partner,
    Account,
    Dir,
    Name,
    Version,
    UploadId,
    Sha256,
    Date(String),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Parses a template and tries it out.
    ///
    /// # Errors
    /// [`TemplateError`] for unknown atoms, unclosed braces, bad date formats, and text that would leave the root.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.starts_with('/') {
            return Err(refuse(
                "a key begins with /",
                "keys are relative to the destination: drop the leading slash",
            ));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(open);
            if !before.is_empty() {
                pieces.push(Piece::Text(checked(before)?));
            }
            let atom = at
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(atom, _)| !atom.contains('{'))
                .ok_or_else(|| {
                    refuse("a brace is not closed or not opened", format!("braces enclose the atoms {ATOMS}"))
                })?;
            pieces.push(Piece::parse(atom.0)?);
            rest = atom.1;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(checked(rest)?));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Name | Piece::UploadId | Piece::Sha256)) {
            return Err(refuse(
                "different files would get the same key",
                "use {name}, {upload_id} or {sha256} in it",
            ));
        }
        Ok(Self(pieces))
    }

    /// The key of `upload`. Paths go by their key spelling (Unicode NFC).
    ///
    /// # Errors
    /// The sentence says why there can be no such key: a component would be `.` or `..`, or too long, or the whole is.
    pub fn render(&self, upload: &Upload) -> Result<String, String> {
        let dir = upload.path.parent();
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Partner => out.push_str(upload.partner.as_str()),
                Piece::Account => out.push_str(upload.account.as_str()),
                Piece::Dir => out.push_str(dir.below_key()),
                Piece::Name => out.push_str(upload.path.name_key()),
                Piece::Version => out.push_str(&upload.version.to_string()),
                Piece::UploadId => out.push_str(&upload.upload_id.to_string()),
                Piece::Sha256 => {
                    let digest = upload.sha256.ok_or("the upload has no digest")?;
                    out.push_str(&digest.to_string());
                }
                Piece::Date(format) => {
                    out.push_str(&date(format, upload.received_at.unwrap_or(upload.opened_at))?);
                }
            }
        }
        normal(&out)
    }
}

impl Piece {
    fn parse(atom: &str) -> Result<Self, TemplateError> {
        Ok(match atom {
            "partner" => Self::Partner,
            "account" => Self::Account,
            "dir" => Self::Dir,
            "name" => Self::Name,
            "version" => Self::Version,
            "upload_id" => Self::UploadId,
            "sha256" => Self::Sha256,
            other => {
                let Some(format) = other.strip_prefix("date:") else {
                    return Err(refuse(format!("{{{other}}} is not an atom"), format!("use {ATOMS}")));
                };
                let sample = date(format, Timestamp::from_millis(0))
                    .map_err(|why| refuse(format!("{{{other}}}: {why}"), "use a format such as %Y/%m/%d"))?;
                checked(&sample)?;
                Self::Date(format.to_owned())
            }
        })
    }
}

fn date(format: &str, at: Timestamp) -> Result<String, String> {
    let at = at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::strtime::format(format, &at).map_err(|e| e.to_string())
}

fn checked(text: &str) -> Result<String, TemplateError> {
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err(refuse("it has a control character or a backslash", "use / between directories"));
    }
    if text.split('/').any(|component| component == "..") {
        return Err(refuse("it has a .. component", "keys stay below the destination's root"));
    }
    Ok(text.to_owned())
}

/// Drops empty components (an empty `{dir}`) and refuses what would not stay below the root or fit.
fn normal(key: &str) -> Result<String, String> {
    let components: Vec<&str> = key.split('/').filter(|c| !c.is_empty()).collect();
    for component in &components {
        if matches!(*component, "." | "..") {
            return Err(format!("the key {key:?} would have the component {component:?}"));
        }
        if component.len() > MAX_COMPONENT {
            return Err(format!(
                "the key would have a component of {} bytes; at most {MAX_COMPONENT} fit",
                component.len()
            ));
        }
    }
    let normal = components.join("/");
    if normal.is_empty() {
        return Err("the key would be empty".to_owned());
    }
    if normal.len() > MAX_KEY {
        return Err(format!("the key would have {} bytes; at most {MAX_KEY} fit", normal.len()));
    }
    Ok(normal)
}

/// The key with `~<tag>` before the extension of its last component: `in/a.csv` and `1f2e3d4c` give `in/a~1f2e3d4c.csv`.
#[must_use]
pub fn suffixed(key: &str, tag: &str) -> String {
    let (dir, name) = key.rsplit_once('/').map_or(("", key), |(dir, name)| (dir, name));
    let (stem, extension) = match name.rfind('.') {
        // A leading dot is no extension, nor is half a sentence.
        Some(at) if at > 0 && name.len() - at <= 64 => name.split_at(at),
        Some(_) | None => (name, ""),
    };
    let room = MAX_COMPONENT.saturating_sub(tag.len() + 1 + extension.len());
    let mut cut = stem.len().min(room);
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    let stem = stem.get(..cut).unwrap_or(stem);
    let slash = if dir.is_empty() { "" } else { "/" };
    format!("{dir}{slash}{stem}~{tag}{extension}")
}

#[cfg(test)]
mod tests;
