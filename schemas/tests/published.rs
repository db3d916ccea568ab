//! What the repository publishes of its data: JSON Schemas in `schemas/json/`, generated from the types, and one example of
//! every event in `schemas/json/examples/`. A type that changes without them fails here.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p dropgate-schemas --test published` writes them anew; read the diff before you commit it:
//! consumers have built on what is there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail by panicking"
)]

use dropgate_schemas::{
    account::Account, audit::AuditEntry, delivery::Delivery, event::Event, inbox::InboxEntry, job::Job,
    upload::Upload,
};
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf};

mod examples;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("json")
}

fn schema<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

/// The schema of one event type: the envelope with `type` and `data` of that branch only, and the definitions it refers to.
fn narrowed(event: &Value, branch: &Value) -> Value {
    let mut schema = event.clone();
    let root = schema.as_object_mut().unwrap();
    root.remove("oneOf");
    root.insert("title".into(), branch["properties"]["type"]["const"].clone());
    if let Some(description) = branch.get("description") {
        root.insert("description".into(), description.clone());
    }
    let properties = root["properties"].as_object_mut().unwrap();
    properties.extend(branch["properties"].as_object().unwrap().clone());
    root["required"].as_array_mut().unwrap().extend(branch["required"].as_array().unwrap().clone());
    let definitions = root.remove("$defs").unwrap();
    let mut kept = Map::new();
    let mut open = vec![schema.clone()];
    while let Some(value) = open.pop() {
        for name in references(&value) {
            if !kept.contains_key(&name) {
                kept.insert(name.clone(), definitions[&name].clone());
                open.push(definitions[&name].clone());
            }
        }
    }
    schema.as_object_mut().unwrap().insert("$defs".into(), Value::Object(kept));
    schema
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| match inner.as_str().and_then(|s| s.strip_prefix("#/$defs/")) {
                Some(name) if key == "$ref" => vec![name.to_owned()],
                _ => references(inner),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn all_schemas() -> BTreeMap<String, Value> {
    let event = schema::<Event>();
    let mut schemas = BTreeMap::from([
        ("upload".to_owned(), schema::<Upload>()),
        ("delivery".to_owned(), schema::<Delivery>()),
        ("account".to_owned(), schema::<Account>()),
        ("audit-entry".to_owned(), schema::<AuditEntry>()),
        ("inbox-entry".to_owned(), schema::<InboxEntry>()),
        ("job".to_owned(), schema::<Job>()),
    ]);
    for branch in event["oneOf"].as_array().unwrap() {
        let name = branch["properties"]["type"]["const"].as_str().unwrap();
        schemas.insert(name.to_owned(), narrowed(&event, branch));
    }
    schemas.insert("event".to_owned(), event);
    schemas
}

/// Compares `files` with what `folder` holds, or writes them if asked to. Files that nothing generates any more count as well.
fn compare(folder: PathBuf, files: &BTreeMap<String, Value>) {
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    if update {
        fs::create_dir_all(&folder).unwrap();
    }
    let mut wrong = Vec::new();
    for (name, value) in files {
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(value).unwrap() + "\n";
        if update {
            fs::write(&path, text).unwrap();
        } else if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            wrong.push(path);
        }
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !files.contains_key(&name) {
            if update { fs::remove_file(&path).unwrap() } else { wrong.push(path) }
        }
    }
    assert!(
        wrong.is_empty(),
        "out of date: {wrong:#?}\nrun: UPDATE_SCHEMAS=1 cargo test -p dropgate-schemas --test published, and read the diff"
    );
}

fn validate(schema: &Value, instance: &Value) -> Result<(), String> {
    let mut compiler = boon::Compiler::new();
    compiler.enable_format_assertions();
    compiler.add_resource("mem:///schema.json", schema.clone()).unwrap();
    let mut schemas = boon::Schemas::new();
    let index = compiler.compile("mem:///schema.json", &mut schemas).map_err(|e| format!("{e:#}"))?;
    schemas.validate(instance, index).map_err(|e| format!("{e:#}"))
}

#[test]
fn json_schemas_are_up_to_date() {
    compare(directory(), &all_schemas());
}

#[test]
fn every_event_type_has_an_example_that_parses_and_fits_its_schema() {
    let schemas = all_schemas();
    let mut files = BTreeMap::new();
    for event in examples::events() {
        let name = event.body.type_name();
        let value = serde_json::to_value(&event).unwrap();
        validate(&schemas[name], &value).unwrap_or_else(|e| panic!("{name}: {e}"));
        validate(&schemas["event"], &value).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(serde_json::from_value::<Event>(value.clone()).unwrap(), event);
        assert!(files.insert(name.to_owned(), value).is_none(), "{name} twice");
    }
    let types: Vec<&String> = schemas.keys().filter(|name| name.starts_with("dropgate.")).collect();
    assert_eq!(files.keys().collect::<Vec<_>>(), types);
    compare(directory().join("examples"), &files);
}

#[test]
fn a_consumer_of_today_takes_the_fields_of_tomorrow() {
    for event in examples::events() {
        let mut value = serde_json::to_value(&event).unwrap();
        value["deployment"] = json!("blue");
        value["data"]["a_field_of_tomorrow"] = json!({"x": 1});
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }
}

#[test]
fn schemas_refuse_what_is_not_an_event() {
    let schemas = all_schemas();
    let [first, ..] = &examples::events()[..] else { panic!("no examples") };
    let schema = &schemas[first.body.type_name()];
    let good = serde_json::to_value(first).unwrap();
    for (key, bad) in [
        ("type", json!("dropgate.upload.eaten.v1")),
        ("id", json!("not-a-uuid")),
        ("time", json!("yesterday")),
        ("account", json!("NOT A NAME")),
        ("data", json!({})),
    ] {
        let mut value = good.clone();
        value[key] = bad;
        assert!(validate(schema, &value).is_err(), "{key}");
    }
    assert!(validate(schema, &good).is_ok());
}
