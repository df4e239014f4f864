//! Which tenants could not be swept, and since when? What `talkmeter.health()` says of it.

use crate::pg::sql::{Connection, OverRows, arg, column, insert_rows};
use std::collections::{BTreeMap, BTreeSet};

// Two sweeps at once do not wait for each other.
const FORGET: &str = "
    DELETE FROM talkmeter.sweep_failure AS f
    WHERE f.tenant IN (
        SELECT other.tenant FROM talkmeter.sweep_failure AS other
        WHERE other.tenant <> ALL ($1)
        FOR UPDATE SKIP LOCKED)";

const REMEMBER: OverRows = insert_rows!(
    "talkmeter.sweep_failure",
    [1 tenant text, 2 error_code text, 3 error text],
    "ON CONFLICT (tenant) DO UPDATE SET error_code = excluded.error_code, error = excluded.error
    WHERE (sweep_failure.error_code, sweep_failure.error) <> (excluded.error_code, excluded.error)"
);

/// Remembers the tenants that a sweep has left because of an error, each with its SQLSTATE and message, and forgets all
/// others but those that were locked.
pub fn record(connection: &Connection, failed: &BTreeMap<String, (String, String)>, locked: &BTreeSet<String>) {
    let left: Vec<&str> = failed.keys().chain(locked).map(String::as_str).collect();
    connection.run(FORGET, &[arg(left)]);
    if failed.is_empty() {
        return;
    }
    let failed: Vec<(&String, &(String, String))> = failed.iter().collect();
    let args = [
        column(&failed, |(tenant, _)| tenant.as_str()),
        column(&failed, |(_, error)| error.0.as_str()),
        column(&failed, |(_, error)| error.1.as_str()),
    ];
    connection.run_over(&REMEMBER, failed.len(), &args);
}
