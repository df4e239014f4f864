//! Does a newcomer get on with README's commands on a bare Debian? Only at length: it makes one, and compiles there.
//!
//! Only root may make one; for others this test says that it is skipped.

use crate::alone;
use std::path::Path;
use std::process::Command;
use talkmeter_tests::{at_length, variable};

#[test]
fn readmes_commands_work_for_who_may_use_sudo_and_tell_who_may_not_what_to_ask_for() {
    let _alone = alone();
    if !at_length() {
        return;
    }
    if variable("TALKMETER_RUN_AS").is_empty() {
        println!("SKIPPED: a bare Debian: only root may make one");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bare-root.sh");
    let mut command = Command::new(script);
    // Those of the tests' own server, and the flags of the make that runs them, are not a newcomer's.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG") || name.starts_with("MAKE")) {
        command.env_remove(name);
    }
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.ends_with("bare-root: README's commands work\n"), "{said}");
}
