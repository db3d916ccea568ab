use super::*;
use crate::harness::record;
use dropgate_schemas::content::ContentType;

fn routes(text: &str) -> Routes {
    #[derive(serde::Deserialize)]
    struct File {
        route: Vec<RouteConfig>,
    }
    Routes::compile(&toml::from_str::<File>(text).unwrap().route).unwrap()
}

fn chosen(routes: &Routes, upload: &Upload) -> Vec<(String, String)> {
    let name = |c: &Choice| (c.destination.to_string(), c.key.clone().unwrap());
    routes.evaluate(upload).iter().map(name).collect()
}

fn went(routes: &Routes, path: &str, size: u64, mime: Option<(&str, &str)>) -> String {
    let mut upload = record(path);
    upload.size = Some(size);
    upload.content_type = mime.map(|(mime, label)| ContentType {
        mime: mime.into(),
        label: label.into(),
        found_by: "test".into(),
        score_permille: None,
        model_missed: None,
    });
    chosen(routes, &upload).into_iter().map(|(d, _)| d).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_route_that_takes_it_wins_unless_it_says_continue() {
    let routes = routes(
        r#"
        [[route]]
        path = "copy/**"
        destinations = ["audit"]
        key = "audit/{name}"
        continue = true
        [[route]]
        account = ["bert", "anna"]
        path = "{copy,in}/*.csv"
        destinations = ["csv", "audit"]
        key = "{name}"
        [[route]]
        destinations = ["rest"]
        key = "{dir}/{name}"
        "#,
    );
    let at = |path: &str| chosen(&routes, &record(path));
    let pair = |d: &str, k: &str| (d.to_owned(), k.to_owned());
    assert_eq!(at("/upload/in/a.csv"), [pair("csv", "a.csv"), pair("audit", "a.csv")]);
    // A destination gets it once, from the first route that names it.
    assert_eq!(at("/upload/copy/a.csv"), [pair("audit", "audit/a.csv"), pair("csv", "a.csv")]);
    assert_eq!(
        at("/upload/copy/deep/a.csv"),
        [pair("audit", "audit/a.csv"), pair("rest", "copy/deep/a.csv")]
    );
    assert_eq!(at("/upload/a.csv"), [pair("rest", "a.csv")]);
}

#[test]
fn every_condition_counts() {
    let routes = routes(
        r#"
        [[route]]
        size_min = 10
        size_max = 20
        destinations = ["sized"]
        [[route]]
        content_type = "edifact"
        destinations = ["by-label"]
        [[route]]
        content_type = "text/*"
        destinations = ["by-mime"]
        [[route]]
        partner = "ac*"
        path = "/upload/whole/path.txt"
        destinations = ["by-path"]
        "#,
    );
    assert_eq!(went(&routes, "/upload/x", 9, None), "");
    assert_eq!(went(&routes, "/upload/x", 10, None), "sized");
    assert_eq!(went(&routes, "/upload/x", 20, None), "sized");
    assert_eq!(went(&routes, "/upload/x", 21, None), "");
    assert_eq!(went(&routes, "/upload/x", 1, Some(("application/edifact", "edifact"))), "by-label");
    assert_eq!(went(&routes, "/upload/x", 1, Some(("text/csv", "csv"))), "by-mime");
    assert_eq!(went(&routes, "/upload/whole/path.txt", 1, None), "by-path");
}

#[test]
fn no_route_means_no_choice() {
    assert_eq!(routes("route = []").evaluate(&record("/upload/a")), []);
}
