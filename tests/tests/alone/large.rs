//! What does one large row cost, in whichever column it is large?
//!
//! Tens of megabytes; at length, nearly what a row can hold.

use crate::{alone, bulk::timed};
use talkmeter_tests::{Database, at_length, attach};

const COLUMNS: &str = "(id text PRIMARY KEY, tenant_id text, conversation_id text,
    created_at timestamptz DEFAULT now(), sender text, padded char(1000000), extra jsonb, document json, body text)";
const MAPPING: &str = r#"{"kinds": [
    {"when": {"extra->a->by": "user", "document->a->by": "user", "padded": "x", "sender": "user"}, "kind": "note"},
    {"kind": ["customer_message", "ai_reply"]}]}"#;

/// Inserts a row that is large in one column, where it is bare and where it is metered, and fails unless that takes at
/// most twice the row's size more, and leaves nothing.
fn costs_at_most_twice_its_size(column: &str, value: &str, size: u64) {
    /// Whatever a session takes that meters its first row.
    const SESSION: u64 = 16 << 10;
    let database = Database::fresh("large");
    let mut session = database.connect();
    session.run(&format!("CREATE TABLE bare {COLUMNS}; CREATE TABLE metered {COLUMNS}"));
    // An index cannot hold a large key.
    session.run("ALTER TABLE bare DROP CONSTRAINT bare_pkey; ALTER TABLE metered ADD number bigserial UNIQUE");
    if column == "id" {
        session.run("ALTER TABLE metered DROP CONSTRAINT metered_pkey");
    }
    let id = if column == "id" { "number" } else { "id" };
    let mapping = MAPPING.replacen('{', &format!(r#"{{"message_id": "{id}", "#), 1);
    attach(&mut session, "metered", "agent_red", None, &mapping);
    let insert = |table: &str| {
        let others = ["id", "tenant_id", "conversation_id"].into_iter().filter(|other| *other != column);
        let others: Vec<&str> = others.collect();
        let values = others.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        format!("INSERT INTO {table} ({}, {column}) VALUES ({values}, {value})", others.join(", "))
    };
    let measured = |table: &str| {
        let mut session = database.connect();
        let (time, peak) = timed(&mut session, &insert(table));
        (time, peak, timed(&mut session, "SELECT pg_sleep(0.1)").1)
    };
    let (bare_time, bare, bare_left) = measured("bare");
    let (time, metered, left) = measured("metered");
    println!(
        "{column} of {} MB: {bare_time:.1} s and {} MB bare, {time:.1} s and {} MB metered, {} MB left",
        size >> 20,
        bare >> 10,
        metered >> 10,
        left >> 10,
    );
    assert_eq!(session.line("SELECT count(*) FROM metered"), "1", "{column}");
    let listed = "SELECT count(*), max(octet_length(tenant)) <= 512, max(octet_length(conversation)) <= 512
        FROM talkmeter.quarantine HAVING count(*) > 0";
    let expected = if column.ends_with("_id") { vec!["1|t|t".to_owned()] } else { Vec::new() };
    assert_eq!(session.lines(listed), expected, "{column}");
    assert!(metered <= bare + 2 * (size >> 10) + SESSION, "{column}: {metered} kB, {bare} kB without metering");
    assert!(left <= bare_left + SESSION, "{column}: {left} kB stay, {bare_left} kB without metering");
}

#[test]
fn a_row_that_is_large_in_any_column_is_inserted_costs_at_most_twice_its_size_and_leaves_nothing() {
    let _alone = alone();
    let megabytes: u64 = if at_length() { 1_000 } else { 50 };
    let size = megabytes << 20;
    // Of jsonb the server takes 256 MB in all.
    let some = size.min(200 << 20);
    for column in ["body", "sender", "tenant_id", "conversation_id", "id"] {
        costs_at_most_twice_its_size(column, &format!("repeat('x', {size})"), size);
    }
    let text = format!(r#"('{{"a": {{"by": "me"}}, "b": ["' || repeat('x', {some}) || '"]}}')"#);
    costs_at_most_twice_its_size("extra", &format!("{text}::jsonb"), some);
    costs_at_most_twice_its_size("document", &format!("{text}::json"), some);
    // A number takes 12 bytes there, and 32 while the server builds the array, of which it takes 1 GB in all.
    let numbers = (some / 8).min(10_000_000);
    let array = format!("to_jsonb(array_fill(1234, ARRAY[{numbers}]))");
    costs_at_most_twice_its_size("extra", &array, 12 * numbers);
    costs_at_most_twice_its_size("tenant_id", &format!("repeat(chr(1), {})", size - 1), size);
}
