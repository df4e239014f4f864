//! Is the house in order: floors whose arrows point down, files that say what they answer, functions that one can read?
//!
//! Needs no server. `docs/design.md` draws the floors; this reads them off the code.

mod floors;
mod journal;
mod manners;
mod pgxn;
mod references;
mod releases;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// The text of a file, by its path below the root.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file that we wrote.
#[derive(Clone)]
struct Source {
    /// Its path below the root.
    path: String,
    text: String,
}

/// The files below some directories whose names end so, by path.
fn sources(directories: &[&str], ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = directories.iter().map(|directory| root().join(directory)).collect();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("an entry").path();
            // What is frozen follows the rules of its time.
            if path.ends_with("released") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = std::fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no file *{ending} in {directories:?}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file.
fn rust() -> Vec<Source> {
    sources(&["src", "engine", "report", "tests"], ".rs")
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}
