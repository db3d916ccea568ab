use super::*;
use dropgate_schemas::{account::Account, time::Timestamp};
use std::time::Duration;

#[derive(Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct File {
    workers: WorkersConfig,
    destination: Vec<DestinationConfig>,
    route: Vec<RouteConfig>,
}

const GOOD: &str = r#"
[workers]
parallel = 4
[workers.retry]
base_seconds = 0.5
budget_seconds = 3600

[[destination]]
name = "archive"
kind = "directory"
path = "/srv/archive"
file_mode = "0600"

[[destination]]
name = "bank"
kind = "sftp"
host = "sftp.example.com"
username = "dropgate"
private_key = "file:/etc/dropgate/bank.key"
host_keys = ["SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"]

[[destination]]
name = "lake"
kind = "azure"
account = "acmelake"
container = "landing"
identity = "managed"

[[route]]
account = "acme-*"
path = ["payments/**", "swift/*.txt"]
destinations = ["bank"]
continue = true

[[route]]
destinations = ["archive"]
key = "{date:%Y/%m/%d}/{upload_id}-{name}"
on_collision = "suffix"
"#;

fn problems(text: &str) -> Vec<String> {
    let file: File = toml::from_str(text).unwrap();
    check(&file.workers, &file.destination, &file.route).iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_config_is_good_and_prints_as_it_was() {
    assert_eq!(problems(GOOD), Vec::<String>::new());
    let file: File = toml::from_str(GOOD).unwrap();
    assert_eq!(file.workers.parallel, 4);
    assert_eq!(file.workers.retry.base_seconds.duration(), Duration::from_millis(500));
    assert_eq!(file.workers.retry.permanent_tries, 3);
    let printed = toml::to_string(&file).unwrap();
    assert_eq!(toml::from_str::<File>(&printed).unwrap(), file, "{printed}");
}

#[test]
fn nothing_means_the_embedded_default() {
    let (destinations, routes) = or_embedded(vec![], vec![]).unwrap();
    assert_eq!(check(&WorkersConfig::default(), &destinations, &routes), []);
    assert_eq!(destinations[0].name().as_str(), "local");
    assert_eq!(routes[0].key, "{partner}/{account}/{dir}/{name}");
    let kept = or_embedded(destinations.clone(), vec![]).unwrap();
    assert_eq!(kept, (destinations, vec![]));
}

#[test]
fn every_mistake_is_named_with_its_key() {
    for (from, to, expected) in [
        (
            "[\"bank\"]",
            "[\"banc\"]",
            "route[1].destinations: no destination is called \"banc\"; add a [[destination]] of that name, or use one of archive, bank",
        ),
        ("[\"bank\"]", "[]", "route[1].destinations: it is empty"),
        ("[\"bank\"]", "[\"bank\", \"bank\"]", "route[1].destinations: \"bank\" is named twice"),
        (
            "name = \"archive\"",
            "name = \"bank\"",
            "destination[2].name: another destination is called \"bank\" too",
        ),
        ("{upload_id}", "{uploadid}", "route[2].key: {uploadid} is not an atom"),
        ("{upload_id}-{name}", "{dir}", "route[2].key: different files would get the same key"),
        ("{date:%Y/%m/%d}", "{date:%Q/%!}", "route[2].key: {date:%Q/%!}"),
        ("payments/**", "payments/[", "route[1].path: \"payments/[\" is not a pattern"),
        (
            "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "SHA256:47DEQ",
            "destination[2].host_keys: \"SHA256:47DEQ\" is not a SHA256 fingerprint",
        ),
        (
            "host_keys = [\"SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\"]",
            "host_keys = []",
            "destination[2].host_keys: the server's host key is not pinned",
        ),
        (
            "private_key = \"file:/etc/dropgate/bank.key\"",
            "",
            "destination[2].password: there is neither a password nor a private key",
        ),
        ("host = \"sftp.example.com\"", "host = \"\"", "destination[2].host: it is empty"),
        ("parallel = 4", "parallel = 0", "workers.parallel: 0 is out of range"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let found = problems(&text);
        assert!(found.iter().any(|p| p.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn every_mistake_of_a_bucket_is_named_with_its_key() {
    let good = r#"
[[destination]]
name = "lake"
kind = "s3"
bucket = "partners"
prefix = "incoming"
region = "eu-central-1"
access_key_id = "vault:dropgate/lake#id"
secret_access_key = "vault:dropgate/lake#key"
"#;
    assert_eq!(problems(good), Vec::<String>::new());
    for (from, to, expected) in [
        (
            "\"partners\"",
            "\"partners/in\"",
            "destination[1].bucket: it is not the name of a bucket; name the bucket alone",
        ),
        ("\"incoming\"", "\"/in\"", "destination[1].prefix: it begins with /"),
        ("\"incoming\"", "\"a/../b\"", "destination[1].prefix: it begins with /"),
        ("region = \"eu-central-1\"", "", "destination[1].region: there is none; set it"),
        (
            "region = \"eu-central-1\"",
            "endpoint = \"minio\"",
            "destination[1].endpoint: it is not an address",
        ),
        (
            "secret_access_key = \"vault:dropgate/lake#key\"",
            "",
            "destination[1].access_key_id: access_key_id and secret_access_key go together",
        ),
        (
            "vault:dropgate/lake#key",
            "hunter2",
            "destination[1].secret_access_key: it is not a secret reference",
        ),
        ("region =", "part_bytes = 1000\nregion =", "destination[1].part_bytes: it is out of range"),
        ("region =", "parts_in_flight = 0\nregion =", "destination[1].parts_in_flight: it is out of range"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let found = problems(&text).join("\n");
        assert!(found.contains(expected) && !found.contains("hunter2"), "{expected}: {found}");
    }
}

#[test]
fn a_secret_in_clear_is_refused_and_not_repeated() {
    let text = GOOD.replace("private_key = \"file:/etc/dropgate/bank.key\"", "password = \"hunter2\"");
    let found = problems(&text).join("\n");
    assert!(found.contains("destination[2].password: it is not a secret reference"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn unknown_keys_and_wrong_types_are_errors() {
    for (from, to, expected) in [
        ("parallel = 4", "paralel = 4", "unknown field `paralel`"),
        ("base_seconds = 0.5", "base_seconds = 0", "0 is not a duration"),
        ("base_seconds = 0.5", "base_seconds = \"soon\"", "a number of seconds"),
        ("host =", "hots =", "unknown field `hots`"),
        ("kind = \"sftp\"", "kind = \"ftp\"", "unknown variant `ftp`"),
        ("\"0600\"", "\"9\"", "\"9\" is not a mode"),
        ("on_collision = \"suffix\"", "on_collision = \"shrug\"", "unknown variant `shrug`"),
    ] {
        let error = toml::from_str::<File>(&GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn accounts_without_a_catch_all_are_named() {
    let account = |name: &str| Account {
        name: name.parse().unwrap(),
        partner: "p".parse().unwrap(),
        enabled: true,
        removed: false,
        revision: 1,
        revocation_epoch: 0,
        temp_patterns: vec![],
        on_duplicate: dropgate_schemas::account::OnDuplicate::Deliver,
        quota: dropgate_schemas::account::Quota::default(),
        minimum_grade: dropgate_schemas::upload::Grade::CloseOnly,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    };
    let accounts = [account("acme-1"), account("bolt")];
    let file: File = toml::from_str(GOOD).unwrap();
    assert_eq!(check_accounts(&file.route, &accounts), []);
    let (without, _) = file.route.split_at(1);
    let found = check_accounts(without, &accounts);
    assert_eq!(found.len(), 2, "payments only is not everything");
    assert!(found[1].what.contains("\"bolt\""), "{found:?}");
    let mut all_of_acme = without.to_vec();
    all_of_acme[0].path = OneOrMany::default();
    assert_eq!(check_accounts(&all_of_acme, &accounts).len(), 1);
}
