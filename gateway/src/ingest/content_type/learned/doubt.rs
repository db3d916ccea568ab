//! What the rules leave open, and which answers of the model go with what they saw.

use super::model::Kind;
use dropgate_schemas::content::ContentType;

/// The model's labels for what is a ZIP archive inside.
const ZIPS: [&str; 15] = [
    "apk", "docx", "epub", "jar", "npz", "nupkg", "odp", "ods", "odt", "pptx", "pytorch", "xlsb", "xlsx",
    "xpi", "zip",
];
/// The model's labels for what is an OLE container inside.
const OLES: [&str; 6] = ["doc", "msi", "outlook", "ppt", "thumbsdb", "xls"];

/// What the rules found that may be said closer. The magic number is evidence, the model's answer is a guess: it counts only
/// where it agrees with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Text of no known format.
    Text,
    /// A script, of whatever language: begins with `#!`.
    Script,
    /// Some ZIP archive.
    Zip,
    /// Some OLE container: old Office files, mails, installers.
    Ole,
    /// Nothing at all.
    Unknown,
}

impl Doubt {
    pub(super) fn about(found: &ContentType) -> Option<Self> {
        match (found.label.as_str(), found.found_by.as_str()) {
            ("txt", _) => Some(Self::Text),
            ("sh", _) => Some(Self::Script),
            ("zip", _) => Some(Self::Zip),
            ("ole", _) => Some(Self::Ole),
            ("unknown", "none") => Some(Self::Unknown),
            _ => None,
        }
    }

    /// Whether a file of this kind may look as the rules saw it, and the kind says at least as much as they do.
    pub(super) fn is_settled_by(self, kind: &Kind) -> bool {
        match self {
            Self::Text => kind.is_text,
            Self::Script => kind.is_text && !kind.is_generic(),
            Self::Zip => ZIPS.contains(&kind.label.as_str()),
            Self::Ole => OLES.contains(&kind.label.as_str()),
            Self::Unknown => true,
        }
    }
}
