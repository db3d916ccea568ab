use super::*;

/// A file with these bytes.
fn edges(content: &[u8]) -> Edges {
    let mut edges = Edges::default();
    edges.update(content);
    edges
}

/// Waits as long as it takes.
fn patient() -> Learned {
    Learned::new(&ContentTypeConfig { learned: true, budget_ms: 300_000, cpu_percent: 100_000 })
}

async fn named(learned: &Learned, content: &[u8]) -> ContentType {
    let edges = edges(content);
    let found = super::super::by_rules(edges.head(), edges.length());
    learned.refine(found, &edges).await
}

const PYTHON: &str = "import os\nimport sys\n\n\ndef total(orders: list[dict]) -> float:\n    if not orders:\n        \
    raise ValueError('no orders')\n    return sum(order['amount'] for order in orders)\n\n\nif __name__ == '__main__':\n    \
    print(total([{'amount': 1.5}]), file=sys.stderr)\n    os.remove(sys.argv[1])\n";
const GO: &str = "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfor i, arg := range os.Args {\n\t\t\
    if _, err := fmt.Fprintln(os.Stderr, i, arg); err != nil {\n\t\t\tpanic(err)\n\t\t}\n\t}\n}\n";
const MARKDOWN: &str = "# Orders\n\nHow orders are taken in, see [the manual](https://example.com/):\n\n- first, the **file** is \
    read\n- then it is *sent*\n\n```\nput orders.csv\n```\n\n## Errors\n\n1. `no_route`: add one\n2. `denied`: ask\n";

/// What the PyPI package `magika` 1.0.3 says of these, label and score.
#[tokio::test]
async fn names_what_rules_leave_open() {
    let learned = patient();
    let script = format!("#!/usr/bin/env python3\n{PYTHON}");
    let table: &[(&[u8], &str, &str, u16)] = &[
        (PYTHON.as_bytes(), "python", "text/x-python", 1000),
        (script.as_bytes(), "python", "text/x-python", 1000),
        (GO.as_bytes(), "go", "text/x-golang", 1000),
        (MARKDOWN.as_bytes(), "markdown", "text/markdown", 997),
        (b"12345678", "txt", "text/plain", 984),
        (&[0; 5000], "iso", "application/x-iso9660-image", 999),
    ];
    for (content, label, mime, score) in table {
        let found = named(&learned, content).await;
        assert_eq!(
            (found.label.as_str(), found.mime.as_str(), found.found_by.as_str()),
            (*label, *mime, "magika")
        );
        let apart = found.score_permille.unwrap().abs_diff(*score);
        assert!(apart <= 1, "{label}: {:?} instead of {score}", found.score_permille);
    }
}

#[tokio::test]
async fn what_the_rules_decide_is_never_asked() {
    let learned = patient();
    for (content, expected) in [
        (&b"UNB+UNOA:2+SENDER+RECEIVER+260105:0930+REF00001'UNH+1+INVOIC:D:01B:UN:EAN010'BGM+380+RE4711+9'"[..], "edifact"),
        (b"{\"a\": [1, 2, {\"b\": null}]}\n", "json"),
        (b"\x1F\x8B\x08\0\0\0\0\0\0\x03\x4B\x4C\x4A\x06\0", "gz"),
        (b"", "empty"),
        // Asked, but it holds too little.
        (b"1234567", "txt"),
    ] {
        let found = named(&learned, content).await;
        assert_eq!((found.label.as_str(), found.score_permille, found.model_missed), (expected, None, None));
    }
    assert!(learned.shared.model.get().is_none(), "nothing was to be learned");
}

#[test]
fn a_magic_number_is_not_talked_over() {
    let model = Model::load().unwrap();
    let about = |label: &str| {
        Doubt::about(&ContentType {
            mime: String::new(),
            label: label.to_owned(),
            found_by: "none".to_owned(),
            score_permille: None,
            model_missed: None,
        })
    };
    let python = features::features(PYTHON.as_bytes(), PYTHON.as_bytes()).unwrap();
    let python = model.identify(&python).unwrap().kind;
    let zeros = model.identify(&features::features(&[0; 100], &[0; 100]).unwrap()).unwrap().kind;
    for (found, python_settles, zeros_settle) in [
        ("txt", true, false),
        ("sh", true, false),
        ("zip", false, false),
        ("ole", false, false),
        ("unknown", true, true),
    ] {
        let doubt = about(found).unwrap();
        assert_eq!(doubt.is_settled_by(&python), python_settles, "{found} and python");
        assert_eq!(doubt.is_settled_by(&zeros), zeros_settle, "{found} and {}", zeros.label);
    }
    assert_eq!(about("edifact"), None);
}

#[tokio::test]
async fn without_time_or_share_the_rules_stand_and_the_record_says_so() {
    let hasty = Learned::new(&ContentTypeConfig { learned: true, budget_ms: 0, cpu_percent: 100 });
    let found = named(&hasty, PYTHON.as_bytes()).await;
    assert_eq!((found.label.as_str(), found.model_missed), ("txt", Some(ModelMissed::Late)));
    assert_eq!(found.found_by, "rule:text-utf8");

    let busy = Learned::new(&ContentTypeConfig { learned: true, budget_ms: 300_000, cpu_percent: 1 });
    busy.shared.allowance().used(Duration::from_secs(2), Instant::now());
    let found = named(&busy, PYTHON.as_bytes()).await;
    assert_eq!((found.label.as_str(), found.model_missed), ("txt", Some(ModelMissed::Busy)));
    assert!(busy.shared.model.get().is_none(), "nothing ran");
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_keeps_its_turn() {
    let learned = Learned::new(&ContentTypeConfig { learned: true, budget_ms: 50, cpu_percent: 100_000 });
    // All turns are taken, as by runs that never end.
    let turns = u32::try_from(learned.turns.available_permits()).unwrap();
    let held = learned.turns.acquire_many(turns).await.unwrap();
    let found = named(&learned, PYTHON.as_bytes()).await;
    assert_eq!(found.model_missed, Some(ModelMissed::Late));
    drop(held);
    assert_eq!(learned.turns.available_permits(), turns as usize, "a wait that was given up holds nothing");
}
