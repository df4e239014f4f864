//! Does each function that changes something write the journal, or is it said why not?

use crate::{assert_none, sources};
use std::collections::{BTreeMap, BTreeSet};

/// Functions that change something and do not write the journal, and why.
const WITHOUT: [(&str, &str); 16] = [
    ("mark", "each mark is a row of its own, with who made it and when"),
    ("flush", "does what the commit would do"),
    ("sweep", "what time has ended is the same whoever looks; posted_at and ended_at say when"),
    ("start_worker", "what it starts does what sweep and reconcile do, until the server restarts"),
    ("show_progress", "changes nothing that lasts"),
    ("adopt_partitions", "a partition is metered as its table is, of which the journal knows"),
    ("forget_customer", "notes what forget_conversation is to do at the commit, which writes it"),
    ("forget_noted", "does what forget_conversation does, in its name"),
    ("my_dispute", "files what dispute files, in its name"),
    ("fleet", "makes views of the caller's, with his rights, and touches nothing of talkmeter's"),
    ("fleet_clear", "removes such views"),
    ("fleet_server", "makes what fleet asks for"),
    ("import_begin", "changes nothing"),
    ("import_rows", "does what import_tenant does, in its name"),
    ("import_end", "does what import_tenant does, in its name"),
    ("look_up", "a trigger of the application's"),
];

/// The volatile functions that the install script makes, but for triggers.
fn volatile() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for script in sources(&["sql"], ".sql") {
        for created in script.text.split("CREATE FUNCTION talkmeter.").skip(1) {
            let (name, rest) = created.split_once('(').expect("a function");
            let head = rest.split("REVOKE").next().unwrap_or_default();
            let head = head.split("AS $$").next().unwrap_or_default();
            let is_fixed = [" STABLE", " IMMUTABLE", "RETURNS trigger", "RETURNS event_trigger"]
                .iter()
                .any(|word| head.contains(word));
            if !is_fixed {
                found.insert(name.to_owned());
            }
        }
    }
    assert!(found.len() > 15, "the install script is not read: {found:?}");
    found
}

#[test]
fn each_function_that_changes_something_writes_the_journal_or_it_is_said_why_not() {
    let without: BTreeMap<&str, &str> = WITHOUT.into_iter().collect();
    let calls: String = sources(&["src/calls"], ".rs").into_iter().map(|file| file.text).collect();
    let writes = |name: &str| calls.contains(&format!("journal::note(connection, \"{name}\""));
    let silent = volatile().into_iter().filter(|name| !without.contains_key(name.as_str()) && !writes(name));
    assert_none("functions that do not write the journal", silent.collect());
    let both = without.keys().filter(|name| writes(name)).map(|name| (*name).to_owned());
    assert_none("functions that write it, and are said not to", both.collect());
}
