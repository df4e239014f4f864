//! Does every release stay what it was, and does each lead to the present version?

use crate::pgxn::meta;
use crate::{assert_none, read, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The version of the sources.
const CURRENT: &str = env!("CARGO_PKG_VERSION");

/// What the files of a directory are called between these.
fn names(directory: &str, begin: &str, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| Some(name.strip_prefix(begin)?.strip_suffix(end)?.to_owned())).collect()
}

fn released() -> BTreeSet<String> {
    names("sql/released", "talkmeter--", ".sql")
}

/// From which version to which there is a script.
fn steps() -> Vec<(String, String)> {
    let pairs = names("sql/upgrades", "talkmeter--", ".sql");
    let step = |pair: &String| {
        let (from, to) = pair.split_once("--").unwrap_or_else(|| panic!("sql/upgrades/talkmeter--{pair}.sql"));
        (from.to_owned(), to.to_owned())
    };
    pairs.iter().map(step).collect()
}

/// Whether the steps lead from a version to another.
fn leads(steps: &[(String, String)], from: &str, to: &str) -> bool {
    let mut reached = BTreeSet::from([from]);
    loop {
        let next: Vec<&str> = steps
            .iter()
            .filter(|(a, b)| reached.contains(&**a) && !reached.contains(&**b))
            .map(|(_, b)| &**b)
            .collect();
        if next.is_empty() {
            return reached.contains(to);
        }
        reached.extend(next);
    }
}

/// The install script as `make build` puts it together.
fn install_script() -> String {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for name in
        names("sql", "", ".sql").into_iter().filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
    {
        let text = read(&format!("sql/{name}.sql"));
        files.insert(name, text);
    }
    files.into_values().collect()
}

#[test]
fn every_file_that_names_the_version_names_the_same() {
    let line = format!("\nversion = \"{CURRENT}\"\n");
    let mut others: Vec<String> = ["Cargo.toml", "engine/Cargo.toml", "report/Cargo.toml", "tests/Cargo.toml"]
        .iter()
        .filter(|file| !read(file).contains(&line))
        .map(|file| (*file).to_owned())
        .collect();
    if !read("talkmeter.control").contains(&format!("\ndefault_version = '{CURRENT}'\n")) {
        others.push("talkmeter.control".to_owned());
    }
    let meta = meta();
    if meta["version"] != CURRENT || meta["provides"]["talkmeter"]["version"] != CURRENT {
        others.push("META.json".to_owned());
    }
    if !read("README.md").contains(&format!("\n| version | {CURRENT}")) {
        others.push("README.md".to_owned());
    }
    assert_none(&format!("not of version {CURRENT}"), others);
}

#[test]
fn the_changelog_has_a_section_of_the_version_and_of_every_release() {
    let changelog = read("CHANGELOG.md");
    let has_none = |version: &String| !changelog.contains(&format!("\n## [{version}]"));
    let versions = released().into_iter().chain([CURRENT.to_owned()]);
    assert_none("versions without a section in CHANGELOG.md", versions.filter(has_none).collect());
}

#[test]
fn the_install_script_of_a_release_stays_what_it_was() {
    if released().contains(CURRENT) {
        let frozen = read(&format!("sql/released/talkmeter--{CURRENT}.sql"));
        assert!(
            frozen == install_script(),
            "{CURRENT} is released, and sql/ is not as it was then: give the sources the next version, and \
             sql/upgrades/ a script (docs/adding.md)"
        );
    }
    for version in released() {
        for kind in ["story", "dump"] {
            read(&format!("tests/released/{version}.{kind}.sql"));
        }
    }
}

#[test]
fn every_release_leads_to_the_version() {
    let steps = steps();
    let lost = released().into_iter().filter(|version| !leads(&steps, version, CURRENT)).collect();
    assert_none(&format!("releases from which no script of sql/upgrades/ leads to {CURRENT}"), lost);
}

#[test]
fn the_library_knows_no_earlier_tables_but_those_of_releases() {
    let source = read("src/pg/version.rs");
    let (_, list) = source.split_once("const EARLIER: ").expect("the list");
    let (list, _) = list.split_once(';').and_then(|(_, rest)| rest.split_once(';')).expect("the list");
    let earlier: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_none("no releases", earlier.difference(&released()).cloned().collect());
}

#[test]
fn a_way_over_several_steps_is_found_and_a_missing_step_is_noticed() {
    let steps = [("1.0", "1.1"), ("1.1", "2.0"), ("3.0", "2.0")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert!(leads(&steps, "1.0", "2.0") && leads(&steps, "2.0", "2.0"));
    assert!(!leads(&steps[1..], "1.0", "2.0") && !leads(&steps, "2.0", "3.0"));
}
