use super::*;
use crate::harness::record;
use proptest::prelude::*;

fn render(template: &str, path: &str) -> Result<String, String> {
    let mut upload = record(path);
    upload.version = 7;
    upload.received_at = Some(Timestamp::from_millis(1_772_366_400_120));
    Template::parse(template).unwrap().render(&upload)
}

#[test]
fn atoms_are_filled_in() {
    for (template, path, key) in [
        ("{partner}/{account}/{dir}/{name}", "/upload/in/x/a b.csv", "acme/anna/in/x/a b.csv"),
        ("{partner}/{account}/{dir}/{name}", "/upload/a.csv", "acme/anna/a.csv"),
        ("{date:%Y/%m/%d}/v{version}-{name}", "/upload/a.csv", "2026/03/01/v7-a.csv"),
        ("in/{name}.done", "/upload/d/a.csv", "in/a.csv.done"),
        // NFD and NFC are one name, so they are one key.
        ("{name}", "/upload/Mu\u{308}ller", "M\u{fc}ller"),
    ] {
        assert_eq!(render(template, path).unwrap(), key, "{template}");
    }
    let mut upload = record("/upload/a");
    upload.sha256 = Some(dropgate_schemas::digest::Sha256::of(b""));
    let key = Template::parse("{sha256}/{upload_id}").unwrap().render(&upload).unwrap();
    assert!(key.starts_with("e3b0c44298fc") && key.ends_with(&upload.upload_id.to_string()));
}

#[test]
fn templates_that_can_not_work_are_refused() {
    for (template, what) in [
        ("/{name}", "begins with /"),
        ("{nme}", "{nme} is not an atom"),
        ("{name", "a brace is not closed"),
        ("name}", "a brace is not closed"),
        ("{a{name}}", "a brace is not closed"),
        ("../{name}", ".. component"),
        ("a\\{name}", "backslash"),
        ("{partner}/{date:%Y}", "the same key"),
        ("", "the same key"),
        ("{date:%Y/../..}/{name}", ".. component"),
    ] {
        let error = Template::parse(template).unwrap_err();
        assert!(error.what.contains(what), "{template:?}: {error}");
        assert!(!error.remedy.is_empty());
    }
}

#[test]
fn keys_that_would_not_fit_or_leave_the_root_are_refused() {
    assert!(
        render("{name}{name}", &format!("/upload/{}", "x".repeat(200))).unwrap_err().contains("at most 255")
    );
    assert!(render("./{name}", "/upload/a").unwrap_err().contains("component \".\""));
    assert!(render(".{dir}/{name}", "/upload/a").unwrap_err().contains("component \".\""));
    assert!(render(".{dir}./{name}", "/upload/a").unwrap_err().contains("component \"..\""));
}

#[test]
fn suffixes_go_before_the_extension() {
    for (key, with) in [
        ("in/a.csv", "in/a~12345678.csv"),
        ("a", "a~12345678"),
        (".hidden", ".hidden~12345678"),
        ("d.x/a.tar.gz", "d.x/a.tar~12345678.gz"),
    ] {
        assert_eq!(suffixed(key, "12345678"), with);
    }
    let long = suffixed(&format!("{}.csv", "ü".repeat(125)), "12345678");
    assert!(long.len() <= 255 && long.ends_with("~12345678.csv"));
}

proptest! {
    #[test]
    fn no_key_leaves_the_root(
        pieces in proptest::collection::vec(prop_oneof![
            Just("{dir}"), Just("{name}"), Just("."), Just("/"), Just(".."), Just("{account}"), Just("x")
        ], 0..8),
        path in "/upload/([.]?[a-c]{1,3}/){0,3}[.]?[a-c]",
    ) {
        if let Ok(template) = Template::parse(&pieces.concat())
            && let Ok(key) = template.render(&record(&path))
        {
            prop_assert!(!key.is_empty() && !key.starts_with('/'));
            prop_assert!(key.split('/').all(|c| !matches!(c, "" | "." | "..")), "{}", key);
        }
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}") {
        let _ = Template::parse(&text);
    }
}
