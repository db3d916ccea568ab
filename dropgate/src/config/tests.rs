use super::*;

fn setting(name: &str, text: &str) -> Setting {
    environment([(name.into(), text.into())].into_iter()).next().unwrap()
}

fn problems(text: &str, settings: &[Setting]) -> Vec<String> {
    let problems = load::load::<Config>("dropgate.toml", text, settings).unwrap_err();
    problems.0.iter().map(ToString::to_string).collect()
}

#[test]
fn every_problem_is_named_with_file_line_and_key() {
    let text = "data_dir = 'd'\nbanana = 1\n\n[ops]\nlisten = 'nowhere'\nhealth_listen = 17\nlisen = '127.0.0.1:1'\n\n[log]\n\
                format = 'yaml'\n[backends.state]\npath = 3\n";
    let found = problems(text, &[]);
    let expected = [
        ("dropgate.toml:2: banana: unknown key \"banana\"", "known here: "),
        ("dropgate.toml:5: ops.listen: ", "the default is \"127.0.0.1:8080\""),
        ("dropgate.toml:6: ops.health_listen: invalid type: integer `17`", "correct it"),
        ("dropgate.toml:7: ops.lisen: unknown key \"lisen\"", "did you mean \"listen\"?"),
        ("dropgate.toml:10: log.format: unknown variant `yaml`", "the default is \"auto\""),
        ("dropgate.toml:12: backends.state.path: ", "the default is \"dropgate.db\""),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, (start, remedy)) in found.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}");
        assert!(problem.contains(remedy), "{problem}");
    }
}

#[test]
fn every_syntax_error_is_named_with_its_line() {
    let found = problems("[ops]\nlisten = \nhealth_listen = 127.0.0.1\n", &[]);
    assert!(found.len() >= 2, "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("dropgate.toml:2: not TOML")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("dropgate.toml:3: not TOML")), "{found:#?}");
}

#[test]
fn the_environment_wins_over_the_file_and_options_over_both() {
    let text = "data_dir = 'from-file'\n[ops]\nlisten = '127.0.0.1:1'\n[log]\nfilter = 'warn'\n";
    let global = Global { data_dir: Some("from-option".into()), ..Global::default() };
    let settings: Vec<Setting> = [
        setting("DROPGATE__DATA_DIR", "from-env"),
        setting("DROPGATE__OPS__LISTEN", "127.0.0.1:2"),
        setting("DROPGATE__BACKENDS__STATE__PATH", "1234"),
    ]
    .into_iter()
    .chain(options(&global, &Start::default()))
    .collect();
    let (config, places) = load::load::<Config>("f.toml", text, &settings).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("from-option"));
    assert_eq!(config.ops.listen.port(), 2);
    assert_eq!(config.log.filter, "warn");
    // It spells a number and means a string.
    let printed = print(&config).unwrap();
    assert!(printed.contains("path = \"1234\""), "{printed}");
    assert_eq!(places.find("data_dir").to_string(), "--data-dir");
    assert_eq!(places.find("ops.listen").to_string(), "DROPGATE__OPS__LISTEN");
    assert_eq!(places.find("log.filter").to_string(), "f.toml:5");
    assert_eq!(places.find("log.format").to_string(), "f.toml:4");
    assert_eq!(places.find("nothing.at.all").to_string(), "f.toml");
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let found =
        problems("", &[setting("DROPGATE__OPS__LISEN", "x"), setting("DROPGATE__OPS__LISTEN", "nowhere")]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found.iter().any(|p| p.starts_with("DROPGATE__OPS__LISEN: ops.lisen: unknown key")),
        "{found:#?}"
    );
    assert!(found.iter().any(|p| p.starts_with("DROPGATE__OPS__LISTEN: ops.listen: ")), "{found:#?}");
    let found = problems("data_dir = 'd'\n", &[setting("DROPGATE__DATA_DIR__X", "1")]);
    assert!(found[0].contains("data_dir is a string and has no keys"), "{found:#?}");
}

#[test]
fn what_is_printed_reads_back() {
    let printed = print(&Config::default()).unwrap();
    let (again, _) = load::load::<Config>("printed.toml", &printed, &[]).unwrap();
    assert_eq!(again, Config::default());
}
