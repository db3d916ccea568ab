//! Where an upload goes: the routes, asked once in the order of the file.

pub mod template;

mod handler;

pub(crate) use handler::{Routed, route, siblings};

use crate::config::{OneOrMany, Problem, RouteConfig};
use dropgate_schemas::{
    account::{AccountName, DestinationName, PartnerName},
    delivery::OnCollision,
    upload::Upload,
};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use template::Template;

/// All routes, ready to be asked.
#[derive(Clone, Debug)]
pub struct Routes(Vec<Route>);

#[derive(Clone, Debug)]
struct Route {
    name: String,
    account: Patterns,
    partner: Patterns,
    path: Patterns,
    content_type: Patterns,
    size_min: u64,
    size_max: u64,
    destinations: Vec<DestinationName>,
    key: Template,
    go_on: bool,
    on_collision: OnCollision,
}

/// Patterns of one condition; none: it holds always.
#[derive(Clone, Debug)]
struct Patterns(Option<GlobSet>);

/// One destination chosen for an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub destination: DestinationName,
    /// The route that chose it.
    pub route: String,
    /// The key there, or why there can be none.
    pub key: Result<String, String>,
    /// What happens if it is taken.
    pub on_collision: OnCollision,
}

impl Routes {
    /// Compiles routes.
    ///
    /// # Errors
    /// Every pattern and template that can't be understood.
    pub fn compile(routes: &[RouteConfig]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut compiled = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            let number = at + 1;
            let mut patterns = |field: &str, list: &OneOrMany| {
                Patterns::compile(list).unwrap_or_else(|what| {
                    let remedy = "patterns take *, **, ?, […] and {a,b}";
                    problems.push(Problem::new(format!("route[{number}].{field}"), what, remedy));
                    Patterns(None)
                })
            };
            let (account, partner) =
                (patterns("account", &route.account), patterns("partner", &route.partner));
            let path = patterns("path", &below_upload(&route.path));
            let content_type = patterns("content_type", &route.content_type);
            // A template that does not parse is reported where the key is checked.
            let Ok(key) = Template::parse(&route.key) else { continue };
            compiled.push(Route {
                name: route.name.clone().unwrap_or_else(|| format!("route {number}")),
                account,
                partner,
                path,
                content_type,
                size_min: route.size_min.unwrap_or(0),
                size_max: route.size_max.unwrap_or(u64::MAX),
                destinations: route.destinations.clone(),
                key,
                go_on: route.go_on,
                on_collision: route.on_collision,
            });
        }
        if problems.is_empty() { Ok(Self(compiled)) } else { Err(problems) }
    }

    /// Where `upload` goes: the first route that takes it, and those after it for as long as they say `continue`. A
    /// destination named by several of them gets it once, from the first. Empty: nobody wants it.
    #[must_use]
    pub fn evaluate(&self, upload: &Upload) -> Vec<Choice> {
        let mut choices: Vec<Choice> = Vec::new();
        for route in self.0.iter().filter(|route| route.takes(upload)) {
            for destination in &route.destinations {
                if choices.iter().any(|choice| choice.destination == *destination) {
                    continue;
                }
                choices.push(Choice {
                    destination: destination.clone(),
                    route: route.name.clone(),
                    key: route.key.render(upload),
                    on_collision: route.on_collision,
                });
            }
            if !route.go_on {
                break;
            }
        }
        choices
    }

    /// Whether some route takes everything that an account may upload.
    #[must_use]
    pub fn catches_all(&self, account: &AccountName, partner: &PartnerName) -> bool {
        self.0.iter().any(|route| {
            route.account.hold(account.as_str())
                && route.partner.hold(partner.as_str())
                && route.path.hold_always()
                && route.content_type.hold_always()
                && route.size_min == 0
                && route.size_max == u64::MAX
        })
    }
}

impl Route {
    fn takes(&self, upload: &Upload) -> bool {
        let size = upload.size.unwrap_or(0);
        self.account.hold(upload.account.as_str())
            && self.partner.hold(upload.partner.as_str())
            && self.path.hold(upload.path.below_key())
            && (self.size_min..=self.size_max).contains(&size)
            && match &upload.content_type {
                None => self.content_type.0.is_none(),
                Some(found) => self.content_type.hold(&found.mime) || self.content_type.hold(&found.label),
            }
    }
}

/// Paths are matched below `/upload`; a pattern that spells the whole path means the same.
fn below_upload(list: &OneOrMany) -> OneOrMany {
    let below =
        |p: &String| p.strip_prefix("/upload/").or_else(|| p.strip_prefix('/')).unwrap_or(p).to_owned();
    OneOrMany(list.0.iter().map(below).collect())
}

impl Patterns {
    fn compile(list: &OneOrMany) -> Result<Self, String> {
        if list.is_empty() {
            return Ok(Self(None));
        }
        let mut set = GlobSetBuilder::new();
        for pattern in &list.0 {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(glob.map_err(|e| format!("{pattern:?} is not a pattern: {}", e.kind()))?);
        }
        set.build().map(|set| Self(Some(set))).map_err(|e| e.to_string())
    }

    fn hold(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|set| set.is_match(text))
    }

    /// Whether they hold for any text, as far as a few odd ones tell.
    fn hold_always(&self) -> bool {
        ["a", "a/b", "zz/.y/x.0", "ä ö/(1)"].iter().all(|text| self.hold(text))
    }
}

#[cfg(test)]
mod tests;
