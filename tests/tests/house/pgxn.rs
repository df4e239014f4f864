//! Is META.json what PGXN takes (its specification 1.0.0)?

use crate::{assert_none, read, root};
use serde_json::Value;

/// What a line `key = value` assigns, without its quotes.
fn assigned(path: &str, key: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    value.unwrap_or_else(|| panic!("{path} has no {key}")).trim().trim_matches(['\'', '"']).to_owned()
}

pub fn meta() -> Value {
    serde_json::from_str(&read("META.json")).expect("META.json is JSON")
}

/// What the specification demands, and is not there or not so.
fn flaws(meta: &Value) -> Vec<String> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let mut flaws = Vec::new();
    for key in ["name", "abstract", "version", "maintainer", "license"] {
        if !is_text(&meta[key]) {
            flaws.push(format!("{key} is no text"));
        }
    }
    if meta["meta-spec"]["version"] != "1.0.0" {
        flaws.push("meta-spec is not that of version 1.0.0".to_owned());
    }
    let provides = meta["provides"].as_object().cloned().unwrap_or_default();
    if provides.is_empty() {
        flaws.push("provides names no extension".to_owned());
    }
    for (extension, provided) in provides {
        let (has_file, has_version) = (is_text(&provided["file"]), is_semantic(&provided["version"]));
        if !has_file || !has_version {
            flaws.push(format!("{extension} has no file or no version of three numbers"));
        }
    }
    if !is_semantic(&meta["version"]) {
        flaws.push("version is not three numbers".to_owned());
    }
    if !["stable", "testing", "unstable"].map(Value::from).contains(&meta["release_status"]) {
        flaws.push("release_status is none".to_owned());
    }
    flaws
}

fn is_semantic(version: &Value) -> bool {
    let parts: Vec<&str> = version.as_str().unwrap_or_default().split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok_and(|number| number.to_string() == *part))
}

#[test]
fn the_description_for_pgxn_has_what_its_specification_demands() {
    let meta = meta();
    assert_none("flaws of META.json", flaws(&meta));
    // The licence's name in that specification, which Cargo.toml has as SPDX writes it.
    assert_eq!(meta["license"], "postgresql");
    assert_eq!(assigned("Cargo.toml", "license"), "PostgreSQL");
    for (extension, provided) in meta["provides"].as_object().expect("extensions") {
        for key in ["file", "docfile"] {
            let path = provided[key].as_str().expect("a path");
            assert!(root().join(path).is_file(), "{extension}: {path}");
        }
    }
}

#[test]
fn a_description_that_lacks_something_is_noticed() {
    for key in ["name", "abstract", "version", "maintainer", "license", "meta-spec", "provides", "release_status"] {
        let mut meta = meta();
        meta.as_object_mut().expect("an object").remove(key);
        assert!(!flaws(&meta).is_empty(), "{key}");
    }
    let mut other = meta();
    other["version"] = "0.1".into();
    assert_eq!(flaws(&other), ["version is not three numbers"]);
}
