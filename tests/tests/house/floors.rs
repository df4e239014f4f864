//! Does each file of `src` ask only those below it, and is there no ring, neither here nor in the engine?

use crate::{Source, assert_none, sources};
use std::collections::{BTreeMap, BTreeSet};

/// From the top. Folders of one floor do not know each other.
const FLOORS: [&[&str]; 7] =
    [&["lib"], &["calls"], &["reports"], &["meter"], &["capture", "billing"], &["catalog"], &["pg"]];

fn floor(folder: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&folder))
        .unwrap_or_else(|| panic!("src/{folder} is on no floor: give it one here and in docs/design.md"))
}

/// The module of a file, such as `meter::batch`; a folder's `mod.rs` is the folder.
fn module(path: &str, below: &str) -> String {
    let inner = path.strip_prefix(below).and_then(|path| path.strip_suffix(".rs")).expect("a Rust file of that crate");
    inner.strip_suffix("/mod").unwrap_or(inner).replace('/', "::")
}

/// The paths that a file names after `crate::`, as far as they are lower-case modules: `crate::pg::sql::Row` is
/// `pg::sql`. A group is taken apart.
fn named(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut named = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            let members = group.split('}').next().unwrap_or_default();
            named.extend(members.split(',').map(|member| leading_modules(member.trim())));
            continue;
        }
        let path = leading_modules(rest);
        // `crate::catalog::{policies, sources}` names the modules within the braces too.
        if let Some(group) = rest.strip_prefix(path.as_str()).and_then(|rest| rest.strip_prefix("::{")) {
            let members = group.split('}').next().unwrap_or_default();
            let inner = members.split(',').map(|member| leading_modules(member.trim()));
            named.extend(inner.filter(|inner| !inner.is_empty()).map(|inner| format!("{path}::{inner}")));
        }
        named.insert(path);
    }
    named
}

fn leading_modules(path: &str) -> String {
    let is_module = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    let word_of = |segment: &'_ str| {
        segment.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(segment.len())
    };
    let words = path.split("::").map(|segment| (&segment[..word_of(segment)], word_of(segment) == segment.len()));
    let mut modules = Vec::new();
    for (word, goes_on) in words {
        if !is_module(&word) {
            break;
        }
        modules.push(word);
        if !goes_on {
            break;
        }
    }
    modules.join("::")
}

/// Which module asks which, of those that are files.
fn arrows(files: &[Source], below: &str) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<String> = files.iter().map(|file| module(&file.path, below)).collect();
    let of = |path: &str| {
        let mut path = path.to_owned();
        while !path.is_empty() && !modules.contains(&path) {
            path = path.rsplit_once("::").map_or(String::new(), |(before, _)| before.to_owned());
        }
        (!path.is_empty()).then_some(path)
    };
    files
        .iter()
        .map(|file| {
            let own = module(&file.path, below);
            let asked = named(&file.text).iter().filter_map(|path| of(path)).filter(|path| *path != own).collect();
            (own, asked)
        })
        .collect()
}

fn extension() -> BTreeMap<String, BTreeSet<String>> {
    arrows(&sources(&["src"], ".rs"), "src/")
}

fn folder(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

#[test]
fn no_file_of_src_asks_one_of_a_floor_above() {
    let mut wrong = Vec::new();
    for (own, asked) in extension() {
        for other in asked {
            let (from, to) = (folder(&own), folder(&other));
            if from != to && floor(from) >= floor(to) {
                wrong.push(format!("{own} asks {other}"));
            }
        }
    }
    assert_none("arrows that do not point down", wrong);
}

#[test]
fn src_and_engine_have_no_ring_of_files() {
    for (what, arrows) in [("src", extension()), ("engine", arrows(&sources(&["engine/src"], ".rs"), "engine/src/"))] {
        assert_eq!(ring(&arrows), None, "a ring in {what}");
    }
}

/// The modules of a ring, if there is one.
fn ring(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left = arrows.clone();
    // Who asks nobody that is left is in no ring; what remains in the end is, or asks one.
    loop {
        let done: Vec<String> =
            left.iter().filter(|(_, asked)| !asked.iter().any(|other| left.contains_key(other))).map(own).collect();
        if done.is_empty() {
            return (!left.is_empty()).then(|| left.into_keys().collect());
        }
        done.iter().for_each(|module| drop(left.remove(module)));
    }
}

fn own((module, _): (&String, &BTreeSet<String>)) -> String {
    module.clone()
}

#[test]
fn the_house_is_drawn_as_it_is() {
    let design = crate::read("docs/design.md");
    let missing = extension().into_keys().filter(|module| module.contains("::")).filter(|module| {
        let (folder, file) = module.split_once("::").expect("a module of a folder");
        let line = design.lines().find(|line| line.trim_start().starts_with(&format!("src/{folder}/")));
        !line.is_some_and(|line| line.split([' ', ',']).any(|word| word == file))
    });
    assert_none("modules that docs/design.md does not draw", missing.collect());
}

#[test]
fn an_arrow_up_and_a_ring_are_noticed() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let files = [
        file("src/pg/sql.rs", "use crate::meter::{batch::BATCH, work};"),
        file("src/meter/batch.rs", "fn f() { crate::pg::sql::connected(|_| ()) }"),
        file("src/meter/work.rs", "use crate::pg::sql::Row;"),
    ];
    let found = arrows(&files, "src/");
    assert_eq!(found["pg::sql"], BTreeSet::from(["meter::batch".to_owned(), "meter::work".to_owned()]));
    assert!(ring(&found).is_some());
    assert_eq!(ring(&arrows(&files[1..], "src/")), None);
}
