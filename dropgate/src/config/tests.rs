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
fn a_mistake_in_the_file_shows_though_something_stands_over_it() {
    let listen = [setting("DROPGATE__OPS__LISTEN", "127.0.0.1:0")];
    let found = problems("[ops]\nlisten = 8080\n", &listen);
    assert!(found.len() == 1 && found[0].starts_with("dropgate.toml:2: ops.listen"), "{found:#?}");
    // But what the file leaves out may come from outside.
    let file = "[[destination]]\nkind = 'directory'\nname = 'a'\n";
    let found = problems(file, &[]);
    assert!(found[0].contains("the key \"path\" is missing; add path"), "{found:#?}");
    let path = [setting("DROPGATE__DESTINATION__1__PATH", "/srv/a")];
    let (config, _) = load::load::<Config>("dropgate.toml", file, &path).unwrap();
    assert_eq!(config.destination.len(), 1);
}

#[test]
fn what_is_printed_reads_back() {
    let printed = print(&Config::default()).unwrap();
    let (again, _) = load::load::<Config>("printed.toml", &printed, &[]).unwrap();
    assert_eq!(again, Config::default());
}

/// The shipped file with its settings (`#key = value`), its example (`#: …`), or neither uncommented.
fn shipped(settings: bool, example: bool) -> String {
    let text = include_str!("../../../config/local.toml");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && settings => rest.to_owned(),
        Some(rest) if rest.starts_with(':') && example => rest.trim_start_matches(':').to_owned(),
        Some(_) => String::new(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Config {
    load::load::<Config>("config/local.toml", text, &[]).unwrap_or_else(|e| panic!("{e}")).0
}

#[test]
fn the_shipped_config_says_every_default() {
    assert_eq!(parsed(&shipped(false, false)), Config::default());
    let said = parsed(&shipped(true, false));
    assert_eq!(said, Config::default(), "a default in config/local.toml is not the program's");
    // And leaves none out but those that depend on the machine.
    let all = toml::Table::try_from(Config::default()).unwrap();
    let written: toml::Table = shipped(true, false).parse().unwrap();
    let left_out: Vec<String> = leaves(&toml::Value::Table(all), "")
        .into_iter()
        .filter(|path| written_at(&written, path).is_none())
        .filter(|path| path != "gateway.listener.auth.hashes_at_once")
        .collect();
    assert!(left_out.is_empty(), "config/local.toml does not mention {left_out:?}");
}

#[test]
fn the_shipped_example_has_no_problems_and_names_every_key() {
    let config = parsed(&shipped(false, true));
    let problems = dropgate_workers::check(&config.workers, &config.destination, &config.route);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((config.destination.len(), config.route.len()), (3, 2));
    // What is printed has every key; what is written must have it too.
    let printed = toml::Table::try_from(&config).unwrap();
    let written: toml::Table = shipped(false, true).parse().unwrap();
    for list in ["destination", "route"] {
        let (printed, written) = (printed[list].as_array().unwrap(), written[list].as_array().unwrap());
        for key in printed.iter().flat_map(|element| element.as_table().unwrap().keys()) {
            assert!(
                written.iter().any(|e| e.get(key).is_some()),
                "config/local.toml does not mention {list}.{key}"
            );
        }
    }
}

fn leaves(value: &toml::Value, path: &str) -> Vec<String> {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| {
                leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") })
            })
            .collect(),
        toml::Value::Array(_) => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

fn written_at<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let value = table.get(first)?;
    match rest {
        Some(rest) => written_at(value.as_table()?, rest),
        None => Some(value),
    }
}
