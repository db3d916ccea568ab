//! Temp names: names under which clients write what they rename when it is complete. A complete file under such a name is
//! held, and its rename is the acceptance.

/// The temp-name grammar of one account: the built-in forms and the account's own patterns.
#[derive(Clone, Debug, Default)]
pub struct TempNames {
    /// The account's patterns, split at their one `*`: (prefix, suffix).
    own: Vec<(String, String)>,
}

impl TempNames {
    /// Takes the account's own patterns (`*.tmp`, `.~*`). A pattern without exactly one `*` is ignored, since the final
    /// name could not be told from it; `account add` refuses those.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let own = patterns
            .iter()
            .filter_map(|p| p.split_once('*'))
            .filter(|(prefix, suffix)| !(suffix.contains('*') || prefix.is_empty() && suffix.is_empty()))
            .map(|(prefix, suffix)| (prefix.to_owned(), suffix.to_owned()))
            .collect();
        Self { own }
    }

    /// The final name that the temp name `name` stands for; none if it is not a temp name.
    #[must_use]
    pub fn final_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        // WinSCP
        if let Some(stem) = name.strip_suffix(".filepart") {
            return non_empty(stem);
        }
        // rclone: name.1a2b3c4d.partial
        if let Some(stem) = name.strip_suffix(".partial")
            && let Some((stem, random)) = stem.rsplit_once('.')
            && random.len() == 8
            && random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return non_empty(stem);
        }
        // lftp
        if let Some(stem) = name.strip_prefix(".in.") {
            return non_empty(stem.strip_suffix('.').unwrap_or(stem));
        }
        // ownCloud and Nextcloud: name.ocTransferId123456.part
        if let Some(stem) = name.strip_suffix(".part")
            && let Some((stem, id)) = stem.rsplit_once(".ocTransferId")
            && !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_digit())
        {
            return non_empty(stem);
        }
        self.own.iter().find_map(|(prefix, suffix)| {
            let stem = name.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
            non_empty(stem)
        })
    }

    /// Whether a complete file of this name waits for its rename.
    #[must_use]
    pub fn is_temp(&self, name: &str) -> bool {
        self.final_name(name).is_some()
    }
}

fn non_empty(stem: &str) -> Option<&str> {
    (!stem.is_empty()).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_temp_names_of_clients_and_accounts() {
        let names =
            TempNames::new(&["*.tmp".into(), ".~*".into(), "*".into(), "a*b*c".into(), "none".into()]);
        for (temp, target) in [
            ("x.csv.filepart", Some("x.csv")),
            ("x.csv.0a1b2c3d.partial", Some("x.csv")),
            (".in.x.csv", Some("x.csv")),
            ("x.csv.ocTransferId4711.part", Some("x.csv")),
            ("x.csv.tmp", Some("x.csv")),
            (".~x.csv", Some("x.csv")),
            ("x.csv", None),
            (".filepart", None),
            ("x.partial", None),
            ("x.0A1B2C3D.partial", None),
            ("x.part", None),
            ("aXbYc", None),
        ] {
            assert_eq!(names.final_name(temp), target, "{temp}");
        }
        assert!(!TempNames::default().is_temp("report.tmp"), "a partner may well mean report.tmp");
    }
}
