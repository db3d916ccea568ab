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
fn further_listeners_are_checked_where_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.toml");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let global = Global { config: Some(file.clone()), ..Global::default() };
        Loaded::read(&global, &Start::default()).map_err(|problems| problems.to_string())
    };
    let good = "[[gateway.more_listeners]]\nlisten = '127.0.0.1:2223'\n\
                [[gateway.more_listeners]]\nlisten = '127.0.0.1:0'\nalgorithms = 'legacy'\n\
                [[gateway.more_listeners]]\nlisten = '127.0.0.1:0'\nalgorithms = 'compatible'\n\
                [gateway.listener]\nidle_seconds = 17\n";
    let config = read(good).unwrap().config.gateway;
    let all: Vec<_> = config.more_listeners.iter().map(|more| more.beside(&config.listener)).collect();
    let names: Vec<&str> = all.iter().map(|listener| listener.ssh.algorithms.name()).collect();
    assert_eq!(names, ["modern", "legacy", "compatible"]);
    assert!(all.iter().all(|listener| listener.idle_seconds == 17));
    for (wrong, said) in [
        (
            "[[gateway.more_listeners]]\nlisten = '127.0.0.1:2222'\n",
            ":2: gateway.more_listeners[1].listen: 127.0.0.1:2222 is",
        ),
        ("[[gateway.more_listeners]]\nalgorithms = 'legacy'\n", "the key \"listen\" is missing"),
        (
            "[[gateway.more_listeners]]\nlisten = '[::1]:1'\nalgorithms = 'old'\n",
            ":3: gateway.more_listeners[1].algorithms",
        ),
        ("[[gateway.more_listeners]]\nlisten = '[::1]:1'\nident = 'x'\n", "unknown key \"ident\""),
        ("[gateway.listener.ssh]\nident = 'OpenSSH_9'\n", ":2: gateway.listener.ssh.ident: "),
    ] {
        let problems = read(wrong).unwrap_err();
        assert!(problems.contains(said), "{wrong}{problems}");
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

/// A shipped file: its name and its text.
type Shipped = (&'static str, &'static str);
const LOCAL: Shipped = ("config/local.toml", include_str!("../../../config/local.toml"));
const CLUSTER: Shipped = ("config/cluster.toml", include_str!("../../../config/cluster.toml"));
const SECTIONS: [&str; 6] = ["blob", "state", "queue", "events", "credentials", "secrets"];

/// A shipped file with its settings (`#key = value`), its example (`#: …`), or neither uncommented.
fn shipped((_, text): Shipped, settings: bool, example: bool) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && settings => rest.to_owned(),
        Some(rest) if rest.starts_with(':') && example => rest.trim_start_matches(':').to_owned(),
        Some(_) => String::new(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn parsed((name, _): Shipped, text: &str) -> Config {
    load::load::<Config>(name, text, &[]).unwrap_or_else(|e| panic!("{e}")).0
}

#[test]
fn the_shipped_config_says_every_default() {
    assert_eq!(parsed(LOCAL, &shipped(LOCAL, false, false)), Config::default());
    let said = parsed(LOCAL, &shipped(LOCAL, true, false));
    assert_eq!(said, Config::default(), "a default in config/local.toml is not the program's");
    // And leaves none out but those that depend on the machine.
    let all = toml::Table::try_from(Config::default()).unwrap();
    let written: toml::Table = shipped(LOCAL, true, false).parse().unwrap();
    let left_out: Vec<String> = leaves(&toml::Value::Table(all), "")
        .into_iter()
        .filter(|path| written_at(&written, path).is_none())
        .filter(|path| path != "gateway.listener.auth.hashes_at_once")
        .collect();
    assert!(left_out.is_empty(), "config/local.toml does not mention {left_out:?}");
    every_key_of_the_backends_is_mentioned(LOCAL);
}

#[test]
fn the_shipped_cluster_config_says_every_default_and_has_no_problems() {
    let text = shipped(CLUSTER, false, false);
    let (config, said) = (parsed(CLUSTER, &text), parsed(CLUSTER, &shipped(CLUSTER, true, false)));
    assert_eq!(said, config, "a default in config/cluster.toml is not the program's");
    every_key_of_the_backends_is_mentioned(CLUSTER);
    // Nothing of it is embedded, and what it leaves out is as in the other file.
    let (ours, embedded) = (toml::Table::try_from(&config).unwrap(), Config::default());
    let theirs = toml::Table::try_from(&embedded).unwrap();
    for section in SECTIONS {
        assert_ne!(ours["backends"][section]["kind"], theirs["backends"][section]["kind"], "{section}");
    }
    assert_eq!(
        (&config.workers, &config.ops, &config.log),
        (&embedded.workers, &embedded.ops, &embedded.log)
    );
    assert_eq!(config.gateway.listener, embedded.gateway.listener);
    // As `dropgate config check` does it.
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(CLUSTER.0);
    let global = Global { config: Some(file), ..Global::default() };
    Loaded::read(&global, &Start::default()).unwrap_or_else(|e| panic!("{e}"));
    // A secret is a reference, wherever one is taken.
    for (path, value) in texts(&toml::Value::Table(ours), "") {
        let reference = ["env:", "file:", "vault:"].iter().any(|scheme| value.starts_with(scheme));
        assert!(reference || !print::is_secret(&path), "{path}");
    }
}

/// Also those without a default, which are explained in words: `# key: …`.
fn every_key_of_the_backends_is_mentioned(file: Shipped) {
    let config = toml::Table::try_from(parsed(file, &shipped(file, false, false))).unwrap();
    for section in SECTIONS {
        let kind = config["backends"][section]["kind"].as_str().unwrap();
        let head = format!("[backends.{section}]");
        let text = format!("{head}\nkind = {kind:?}\nno_such_key = 1\n").replace("backends.", "");
        let error = toml::from_str::<BackendsConfig>(&text).unwrap_err().to_string();
        let part = file.1.split_once(&format!("\n{head}\n")).unwrap().1;
        let part = part.split("\n[").next().unwrap();
        for key in known_keys(&error) {
            assert!(part.lines().any(|line| mentions(line, &key)), "{}: {head} {key}", file.0);
        }
    }
}

/// What an error about `no_such_key` says that there is.
fn known_keys(error: &str) -> Vec<String> {
    let keys = error.split('`').skip(1).step_by(2).filter(|key| *key != "no_such_key");
    let keys: Vec<String> = keys.map(str::to_owned).collect();
    assert!(error.contains("unknown field `no_such_key`") && !keys.is_empty(), "{error}");
    keys
}

fn mentions(line: &str, key: &str) -> bool {
    let set = line.trim_start_matches('#').split_once(" = ").is_some_and(|(name, _)| name == key);
    let words = line.strip_prefix("# ").and_then(|rest| rest.split_once(": "));
    set || words.is_some_and(|(names, _)| names.split(", ").any(|name| name == key))
}

#[test]
fn the_shipped_example_has_no_problems_and_names_every_key() {
    let text = shipped(LOCAL, false, true);
    let config = parsed(LOCAL, &text);
    let problems = dropgate_workers::check(&config.workers, &config.destination, &config.route);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(config.gateway.more_listeners.len(), 1);
    let written: toml::Table = text.parse().unwrap();
    let every = |list: &str| written[list].as_array().unwrap().iter();
    let mentioned = |list: &str, key: &str| every(list).any(|e| e.get(key).is_some());
    // One of each kind, with every key that it knows.
    let kinds: Vec<&str> = every("destination").map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["directory", "sftp", "s3", "azure"]);
    for (kind, example) in kinds.into_iter().zip(every("destination")) {
        let text = format!("kind = {kind:?}\nno_such_key = 1\n");
        let error = toml::from_str::<DestinationConfig>(&text).unwrap_err().to_string();
        for key in known_keys(&error) {
            let instead = ["identity", "client_id", "account_key"].contains(&key.as_str());
            assert!(instead || example.get(&key).is_some(), "config/local.toml: {kind} {key}");
        }
    }
    let error = toml::from_str::<RouteConfig>("no_such_key = 1").unwrap_err().to_string();
    for key in known_keys(&error) {
        assert!(mentioned("route", &key), "config/local.toml does not mention route.{key}");
    }
}

/// Every text and where it stands.
fn texts(value: &toml::Value, path: &str) -> Vec<(String, String)> {
    match value {
        toml::Value::String(text) => vec![(path.to_owned(), text.clone())],
        toml::Value::Table(table) => table.iter().flat_map(|(key, value)| texts(value, key)).collect(),
        toml::Value::Array(array) => array.iter().flat_map(|value| texts(value, path)).collect(),
        _ => Vec::new(),
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
