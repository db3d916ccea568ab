use dropgate_schemas::{account::DestinationName, delivery::OnCollision};
use serde::{Deserialize, Serialize};

/// One `[[route]]`: which uploads it takes, and where they go. Conditions that are left out hold always; those that are
/// there hold together. In patterns `*` is any text without `/`, `**` any text, `?` one character, `[…]` a set and `{a,b}`
/// a choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// What it is called in audit entries. Default: `route <number>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Patterns, one of which the account's name must match.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub account: OneOrMany,
    /// Patterns, one of which the partner's name must match.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub partner: OneOrMany,
    /// Patterns, one of which the path below `/upload` must match: `invoices/*.xml`.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub path: OneOrMany,
    /// Patterns, one of which the content type or its short label must match: `application/xml`, `edifact`, `text/*`.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub content_type: OneOrMany,
    /// Fewest bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_min: Option<u64>,
    /// Most bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_max: Option<u64>,
    /// Names of the destinations.
    pub destinations: Vec<DestinationName>,
    /// Template of the key: text, `/` and the atoms `{partner}`, `{account}`, `{dir}`, `{name}`, `{version}`, `{upload_id}`,
    /// `{sha256}` and `{date:%Y/%m/%d}` (the date of acceptance, UTC). Default: `{partner}/{account}/{dir}/{name}`.
    #[serde(default = "key")]
    pub key: String,
    /// Whether the routes after it are asked too. Default: false.
    #[serde(default, rename = "continue")]
    pub go_on: bool,
    /// What happens when the key is taken by something else: `fail`, `suffix` or `replace`. Default: `fail`.
    #[serde(default)]
    pub on_collision: OnCollision,
}

fn key() -> String {
    "{partner}/{account}/{dir}/{name}".to_owned()
}

impl RouteConfig {
    /// The embedded default: everything goes to `destination`, in the order of partner, account and path.
    #[must_use]
    pub fn catch_all(destination: DestinationName) -> Self {
        Self { destinations: vec![destination], key: key(), ..Self::default() }
    }
}

/// A list that may be written as one value: `account = "acme"` or `account = ["acme", "bolt-*"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct OneOrMany(pub Vec<String>);

impl OneOrMany {
    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Written {
    One(String),
    Many(Vec<String>),
}

impl From<Written> for OneOrMany {
    fn from(written: Written) -> Self {
        match written {
            Written::One(one) => Self(vec![one]),
            Written::Many(many) => Self(many),
        }
    }
}

impl From<OneOrMany> for Written {
    fn from(list: OneOrMany) -> Self {
        match <[String; 1]>::try_from(list.0) {
            Ok([one]) => Self::One(one),
            Err(many) => Self::Many(many),
        }
    }
}
