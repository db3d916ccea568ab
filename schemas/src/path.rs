//! Names as partners see them. [`VirtualPath`] is the only path type the tree takes: whoever holds one knows that it
//! passed the one canonicaliser. It never becomes a path of the host.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Longest name of one component, in bytes.
pub const MAX_COMPONENT: usize = 255;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 1024;
/// Deepest path, in components.
pub const MAX_DEPTH: usize = 32;

/// The directories of the tree. Everything a partner sees lies in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// `/upload`: where partners write.
    Upload,
    /// `/inbox`: entries that outside systems registered for the account.
    Inbox,
    /// `/sent`: delivered to every destination.
    Sent,
    /// `/failed`: gave up, or refused.
    Failed,
}

impl Area {
    /// All areas, in the order in which `/` lists them.
    pub const ALL: [Self; 4] = [Self::Upload, Self::Inbox, Self::Sent, Self::Failed];

    /// The name of its directory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Inbox => "inbox",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

/// Where a path points, as far as its first component tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/` itself.
    Root,
    /// One of the four system directories itself.
    System(Area),
    /// Something below one of them.
    Below(Area),
    /// A name directly under `/` that is none of the four, or anything below it.
    Outside,
}

/// Why a name was refused. The text is written for the partner who chose the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not UTF-8.
    #[error("the name is not UTF-8: set the client's file name encoding to UTF-8")]
    NotUtf8,
    /// A NUL, a control character, a line separator or a bidirectional control.
    #[error("the name has a control character: rename the file")]
    Control,
    /// A backslash.
    #[error("the name has a backslash: use / between directories")]
    Backslash,
    /// A space at an end of a component.
    #[error("the name begins or ends with a space: rename the file")]
    Space,
    /// A dot at the end of a component.
    #[error("the name ends with a dot: rename the file")]
    TrailingDot,
    /// A component of more than [`MAX_COMPONENT`] bytes.
    #[error("the name is longer than 255 bytes: shorten it")]
    ComponentTooLong,
    /// A path of more than [`MAX_PATH`] bytes.
    #[error("the path is longer than 1024 bytes: shorten it")]
    TooLong,
    /// A path of more than [`MAX_DEPTH`] components.
    #[error("the path is deeper than 32 directories: use fewer levels")]
    TooDeep,
}

/// An absolute, canonical path of a partner's tree: no `.`, no `..`, no empty component, no trailing slash, every
/// component allowed by the naming rules. Two spellings are kept: the one the client sent, which it sees again, and
/// the key (Unicode NFC) by which names are compared, stored and routed. Equality and order go by the key.
#[derive(Clone)]
pub struct VirtualPath {
    raw: String,
    /// Only where it differs from `raw`.
    nfc: Option<String>,
}

impl VirtualPath {
    /// `/`.
    #[must_use]
    pub fn root() -> Self {
        Self { raw: "/".to_owned(), nfc: None }
    }

    /// The one canonicaliser: takes what a client sent, relative paths being relative to `/`. Lexical: `.` and empty
    /// components vanish, `..` goes up and stops at `/`.
    ///
    /// # Errors
    /// [`PathError`], for any component that was not taken away again by a `..` and for the result as a whole.
    pub fn parse(sent: &[u8]) -> Result<Self, PathError> {
        if sent.len() > MAX_PATH * 4 {
            return Err(PathError::TooLong);
        }
        let text = std::str::from_utf8(sent).map_err(|_| PathError::NotUtf8)?;
        if text.contains('\0') {
            return Err(PathError::Control);
        }
        let mut components: Vec<&str> = Vec::new();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    components.pop();
                }
                name => components.push(name),
            }
        }
        let mut raw = String::with_capacity(text.len() + 1);
        for component in &components {
            check_component(component)?;
            raw.push('/');
            raw.push_str(component);
        }
        if components.is_empty() {
            return Ok(Self::root());
        }
        if components.len() > MAX_DEPTH {
            return Err(PathError::TooDeep);
        }
        if raw.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        if is_nfc(&raw) {
            return Ok(Self { raw, nfc: None });
        }
        let nfc: String = raw.nfc().collect();
        // Normalisation can lengthen a name; both spellings keep the bounds, so that a path made of either parses.
        if nfc.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        for component in nfc.split('/').skip(1) {
            check_component(component)?;
        }
        Ok(Self { raw, nfc: Some(nfc) })
    }

    /// The path as the client spelled it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// The key by which names are compared: Unicode NFC.
    #[must_use]
    pub fn key(&self) -> &str {
        self.nfc.as_deref().unwrap_or(&self.raw)
    }

    /// The last component as the client spelled it; empty for `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.raw.rsplit('/').next().unwrap_or_default()
    }

    /// The key of the last component; empty for `/`.
    #[must_use]
    pub fn name_key(&self) -> &str {
        self.key().rsplit('/').next().unwrap_or_default()
    }

    /// The directory above; `/` for `/`.
    #[must_use]
    pub fn parent(&self) -> Self {
        let up = |s: &str| match s.rfind('/') {
            None | Some(0) => "/".to_owned(),
            Some(at) => s.get(..at).unwrap_or("/").to_owned(),
        };
        let raw = up(&self.raw);
        let nfc = self.nfc.as_deref().map(up).filter(|nfc| *nfc != raw);
        Self { raw, nfc }
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// [`PathError`], if the name breaks a rule or the result a bound; also for `.`, `..` and names with `/`.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(PathError::Control);
        }
        Self::parse(format!("{}/{name}", self.raw).as_bytes())
    }

    /// Where it points.
    #[must_use]
    pub fn place(&self) -> Place {
        let mut components = self.key().split('/').skip(1).filter(|c| !c.is_empty());
        let Some(first) = components.next() else { return Place::Root };
        match Area::ALL.into_iter().find(|area| area.name() == first) {
            None => Place::Outside,
            Some(area) if components.next().is_some() => Place::Below(area),
            Some(area) => Place::System(area),
        }
    }

    /// The part below the system directory, as spelled, without a leading slash: `a/b.csv` for `/upload/a/b.csv`;
    /// empty where there is none.
    #[must_use]
    pub fn below(&self) -> &str {
        below(&self.raw)
    }

    /// [`Self::below`] of the key.
    #[must_use]
    pub fn below_key(&self) -> &str {
        below(self.key())
    }

    /// The same place in another area: `/upload/a/b` in [`Area::Sent`] is `/sent/a/b`. `/` and paths outside the
    /// areas map to the area's directory itself.
    #[must_use]
    pub fn in_area(&self, area: Area) -> Self {
        let moved = |rest: &str| {
            if rest.is_empty() { format!("/{}", area.name()) } else { format!("/{}/{rest}", area.name()) }
        };
        Self { raw: moved(self.below()), nfc: self.nfc.as_ref().map(|_| moved(self.below_key())) }
    }
}

fn below(path: &str) -> &str {
    path.get(1..).and_then(|rest| rest.split_once('/')).map_or("", |(_, rest)| rest)
}

/// Checks one component against the naming rules.
fn check_component(name: &str) -> Result<(), PathError> {
    if name.len() > MAX_COMPONENT {
        return Err(PathError::ComponentTooLong);
    }
    for c in name.chars() {
        match c {
            '\\' => return Err(PathError::Backslash),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                return Err(PathError::Control);
            }
            // Bidirectional controls make a name read differently from what it is.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                return Err(PathError::Control);
            }
            _ => {}
        }
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(PathError::Space);
    }
    if name.ends_with('.') {
        return Err(PathError::TrailingDot);
    }
    Ok(())
}

impl PartialEq for VirtualPath {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for VirtualPath {}
impl PartialOrd for VirtualPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for VirtualPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(other.key())
    }
}
impl std::hash::Hash for VirtualPath {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}
impl fmt::Debug for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.raw, f)
    }
}
impl std::str::FromStr for VirtualPath {
    type Err = PathError;
    fn from_str(s: &str) -> Result<Self, PathError> {
        Self::parse(s.as_bytes())
    }
}
impl Serialize for VirtualPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.raw)
    }
}
impl<'de> Deserialize<'de> for VirtualPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
impl JsonSchema for VirtualPath {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "VirtualPath".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/", "maxLength": MAX_PATH, "description": "Absolute path in the account's tree."})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(s: &str) -> VirtualPath {
        VirtualPath::parse(s.as_bytes()).unwrap()
    }

    #[test]
    fn canonicalises_lexically() {
        for (sent, canonical) in [
            ("", "/"),
            (".", "/"),
            ("/", "/"),
            ("..", "/"),
            ("/../..", "/"),
            ("upload", "/upload"),
            ("/upload//a/./b/../c", "/upload/a/c"),
            ("/upload/a/", "/upload/a"),
            ("/upload/../../sent/x", "/sent/x"),
            ("/upload/.hidden", "/upload/.hidden"),
            ("/upload/a b", "/upload/a b"),
        ] {
            assert_eq!(p(sent).as_str(), canonical, "{sent:?}");
        }
    }

    #[test]
    fn refuses_what_the_rules_refuse() {
        let long = "x".repeat(256);
        let deep = "/a".repeat(33);
        let wide = format!("/{}", "a23456789/".repeat(30).repeat(4));
        for (sent, error) in [
            (&b"\xff\xfe"[..], PathError::NotUtf8),
            (b"a\0b", PathError::Control),
            (b"a\nb", PathError::Control),
            ("a\u{85}b".as_bytes(), PathError::Control),
            (b"a\x7f", PathError::Control),
            ("a\u{2028}".as_bytes(), PathError::Control),
            ("invoice\u{202e}fdp.exe".as_bytes(), PathError::Control),
            (b"a\\b", PathError::Backslash),
            (b"/upload/ a", PathError::Space),
            (b"/upload/a ", PathError::Space),
            (b"/upload/a.", PathError::TrailingDot),
            (b"/upload/...", PathError::TrailingDot),
            (long.as_bytes(), PathError::ComponentTooLong),
            (deep.as_bytes(), PathError::TooDeep),
            (wide.as_bytes(), PathError::TooDeep),
        ] {
            assert_eq!(VirtualPath::parse(sent).unwrap_err(), error, "{:?}", String::from_utf8_lossy(sent));
        }
        let wide = format!("/{}", ["a"; 8].map(|_| "b".repeat(200)).join("/"));
        assert_eq!(VirtualPath::parse(wide.as_bytes()).unwrap_err(), PathError::TooLong);
    }

    #[test]
    fn nfd_and_nfc_are_one_name_but_each_client_sees_its_own() {
        let nfd = p("/upload/Mu\u{308}ller.csv");
        let nfc = p("/upload/M\u{fc}ller.csv");
        assert_eq!(nfd, nfc);
        assert_eq!(nfd.key(), nfc.key());
        assert_ne!(nfd.as_str(), nfc.as_str());
        assert_eq!(nfd.in_area(Area::Sent), nfc.in_area(Area::Sent));
        assert_eq!(nfd.in_area(Area::Sent).as_str(), "/sent/Mu\u{308}ller.csv");
    }

    #[test]
    fn knows_its_place() {
        assert_eq!(p("/").place(), Place::Root);
        assert_eq!(p("/upload").place(), Place::System(Area::Upload));
        assert_eq!(p("/sent/a/b").place(), Place::Below(Area::Sent));
        assert_eq!(p("/etc/passwd").place(), Place::Outside);
        assert_eq!(p("/upload/a/b").below(), "a/b");
        assert_eq!(p("/upload").below(), "");
        assert_eq!(p("/upload/a/b").parent(), p("/upload/a"));
        assert_eq!(p("/upload").parent(), p("/"));
        assert_eq!(p("/upload/a/b").name(), "b");
        assert!(p("/upload").join("..").is_err());
        assert_eq!(p("/upload").join("x").unwrap(), p("/upload/x"));
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_escapes(sent in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(path) = VirtualPath::parse(&sent) {
                let again = VirtualPath::parse(path.as_str().as_bytes()).unwrap();
                prop_assert_eq!(again.as_str(), path.as_str());
                prop_assert_eq!(again.key(), path.key());
                let by_key = VirtualPath::parse(path.key().as_bytes()).unwrap();
                prop_assert_eq!(by_key.key(), path.key());
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(path.as_str().split('/').skip(1).all(|c| c != ".." && c != "."));
            }
        }

        #[test]
        fn agrees_with_a_naive_stack_machine(parts in proptest::collection::vec(prop_oneof!["[a-c]{1,3}", Just("..".to_owned()), Just(".".to_owned()), Just(String::new())], 0..12)) {
            let mut stack: Vec<String> = Vec::new();
            for part in &parts {
                if part == ".." { stack.pop(); } else if !part.is_empty() && part != "." { stack.push(part.clone()); }
            }
            let path = VirtualPath::parse(parts.join("/").as_bytes()).unwrap();
            prop_assert_eq!(path.as_str(), format!("/{}", stack.join("/")));
        }
    }
}
