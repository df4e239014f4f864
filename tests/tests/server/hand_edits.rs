//! What if somebody edits talkmeter's own tables by hand? Every call goes on, or fails with an error that has a name;
//! what looks for damage never fails.

use crate::verify::books;
use postgres::error::SqlState;
use talkmeter_tests::{Database, Random, Session, at_length};

/// Edits made; at length more.
const EDITS: [usize; 2] = [60, 5_000];
/// Calls made upon each.
const CALLS: usize = 8;

/// Values that no work of talkmeter's writes, or seldom, as SQL, by type.
fn odd_values(data_type: &str) -> &'static [&'static str] {
    match data_type {
        "text" | "name" => &["''", "'x'", "repeat('y', 600)", "E'\\x01'", "'custom@1'", "'-1'", "'UTC'"],
        "bigint" => &["0", "-1", "7", "9223372036854775807", "-9223372036854775808"],
        "integer" | "smallint" => &["0", "-1", "7", "32767", "-32768"],
        "numeric" => &["0", "-1", "0.001", "1e26", "'NaN'", "'Infinity'", "1.00000000000000000000000000001"],
        "timestamp with time zone" => &[
            "'-infinity'",
            "'infinity'",
            "'0001-01-01'",
            "'4713-01-01 BC'",
            "'9999-12-31'",
            "'200000-01-01'",
            "'2026-03-10 12:00'",
        ],
        "date" => &["'-infinity'", "'infinity'", "'0001-01-01'", "'200000-01-01'"],
        "boolean" => &["true", "false"],
        "bytea" => {
            &["''", "'\\x00'", "'\\xffffffffffffffffffff'", "'\\x8000000000000000'", "decode(repeat('80', 40), 'hex')"]
        }
        "text[]" => &["'{}'", "'{NULL}'", "'{x}'", "'{customer_message}'", "'{{a,b},{c,d}}'"],
        "integer[]" => &["'{}'", "'{NULL}'", "'{0}'", "'{-1,99}'", "'{{1},{2}}'"],
        "interval" => &["'0'", "'-1 day'", "'1 month'", "'178000000 years'", "'0.000001 s'"],
        "jsonb" => &["'null'", "'{}'", "'[]'", "'1'", "'[null]'", "'[{}]'", "'{\"kinds\": 1}'"],
        "regclass" | "oid" => &["0", "1259", "4294967295"],
        _ => &[],
    }
}

/// One edit of one row, as SQL that says what was done.
fn edit(random: &mut Random, session: &mut Session) -> String {
    let columns = session.lines(
        "SELECT c.relname, quote_ident(a.attname), format_type(a.atttypid, NULL), c.oid::regclass::text
         FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'talkmeter'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY 1, a.attnum",
    );
    let column: Vec<&str> = columns[random.below(columns.len())].split('|').collect();
    let (name, data_type, table) = (column[1], column[2], column[3]);
    let values = odd_values(data_type);
    let value = match random.below(values.len() + 1) {
        chosen if chosen < values.len() => values[chosen],
        _ => "NULL",
    };
    let share = random.below(100);
    let row = format!(
        "ctid = (SELECT ctid FROM {table} ORDER BY ctid OFFSET (SELECT count(*) * {share} / 100 FROM {table}) LIMIT 1)"
    );
    match random.below(10) {
        0 => format!("DELETE FROM {table} WHERE {row}"),
        1 => format!("UPDATE {table} SET {name} = {value}"),
        _ => format!("UPDATE {table} SET {name} = {value} WHERE {row}"),
    }
}

const STATEMENTS: [&str; 33] = [
    "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'two', '2026-03-11 10:30+00', 'exchange')",
    "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'm1', now(), 'exchange')",
    "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'new', '2026-03-11 10:30+00', 'visit')",
    "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('bravo', 'b2', now(), 'exchange')",
    "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('dana', 'd9', now(), 'exchange')",
    "UPDATE messages SET kind = 'note' WHERE conversation_id IN ('f8', 'm3', 'parts', 'b1', 'd3')",
    "DELETE FROM messages WHERE conversation_id = 'm4'",
    "SELECT talkmeter.mark('acme', 'parts', 'error', '2026-03-12 09:00+00')",
    "SELECT talkmeter.sweep()",
    "SELECT talkmeter.retry_quarantine()",
    "SELECT * FROM talkmeter.verify()",
    "SELECT * FROM talkmeter.health()",
    "SELECT talkmeter.reconcile('2026-03-10')",
    "SELECT talkmeter.finalize('acme', '2026-03-01'), talkmeter.finalize('bravo', '2026-03-01 05:00+00')",
    "SELECT * FROM talkmeter.statement('acme', '2026-02-01'), talkmeter.evidence('acme', '2026-02-01')",
    "SELECT * FROM talkmeter.explain('acme', 'two')",
    "SELECT * FROM talkmeter.explain_json('acme', 'parts')",
    "SELECT * FROM talkmeter.simulate('agent_red', 'three', '2026-01-01', '2026-05-01')",
    "SELECT * FROM talkmeter.simulate('lutingenie', NULL, '2026-01-01', '2026-05-01')",
    "SELECT talkmeter.balance('acme'), talkmeter.balance('bravo'), talkmeter.balance('dana')",
    "SELECT talkmeter.buy_pack('acme', 'pair', 'key')",
    "SELECT talkmeter.refund_pack('acme', 2)",
    "SELECT talkmeter.credit('acme', 1, 'goodwill')",
    "SELECT talkmeter.dispute('acme', 'm5', 1, 'not ours')",
    "SELECT talkmeter.resolve_dispute('acme', 1, 'credited')",
    "SELECT talkmeter.subscribe('acme', 'dollars', '2026-03-20'), talkmeter.subscribe('carl', 'three', '2026-01-01')",
    "SELECT talkmeter.change_plan('bravo', 'some')",
    "SELECT talkmeter.cancel('dana')",
    "SELECT talkmeter.report_external('acme', '2026-03-10', 5), talkmeter.review('acme', '2026-03-10')",
    "SELECT talkmeter.grant_tenant(session_user::text, 'acme'), talkmeter.my_balance()",
    "SELECT talkmeter.detach('messages')",
    "SELECT (SELECT count(u.*::text) FROM talkmeter.usage AS u), (SELECT count(u.*::text) FROM talkmeter.usage_history AS u),
         (SELECT count(u.*::text) FROM talkmeter.usage_daily AS u), (SELECT count(u.*::text) FROM talkmeter.usage_projection AS u)",
    "SELECT (SELECT count(v.*::text) FROM talkmeter.parts AS v), (SELECT count(v.*::text) FROM talkmeter.audit_trail AS v),
         (SELECT count(v.*::text) FROM talkmeter.charges AS v), (SELECT count(v.*::text) FROM talkmeter.alerts AS v),
         (SELECT count(v.*::text) FROM talkmeter.quarantine AS v), (SELECT count(v.*::text) FROM talkmeter.sources AS v)",
];

/// What a session that is new to the edit says of some calls; those that fail without a name.
fn nameless(random: &mut Random, database: &Database, edit: &str) -> Vec<String> {
    let mut session = database.connect();
    session.run("BEGIN");
    if session.client.batch_execute(edit).is_err() {
        return Vec::new();
    }
    let mut nameless = Vec::new();
    for _ in 0..CALLS {
        nameless.extend(fails_without_a_name(&mut session, edit, STATEMENTS[random.below(STATEMENTS.len())]));
    }
    nameless
}

/// What a call says, upon an edit, if it fails without a name.
fn fails_without_a_name(session: &mut Session, edit: &str, call: &str) -> Option<String> {
    session.run("SAVEPOINT before");
    let failed = session.client.batch_execute(&format!("{call}; SELECT talkmeter.flush()")).err();
    let nameless = failed.and_then(|error| match error.as_db_error() {
        Some(error) if *error.code() != SqlState::INTERNAL_ERROR => None,
        Some(error) => Some(format!("{edit};\n  {call};\n  {}", error.message())),
        None => panic!("the connection was lost: {edit}; {call}; {error}"),
    });
    session.run("ROLLBACK TO before");
    nameless
}

/// Fails unless every call goes on upon an edit, or fails with a name, and what looks for damage answers.
fn every_call_answers(edit: &str) {
    let (database, _session) = books();
    let mut session = database.connect();
    session.run("BEGIN");
    session.run(edit);
    for call in STATEMENTS {
        assert_eq!(fails_without_a_name(&mut session, edit, call), None);
    }
    for call in ["verify()", "health()"] {
        session.run(&format!("SELECT * FROM talkmeter.{call}"));
    }
}

#[test]
fn whatever_is_edited_no_call_fails_without_a_name_and_no_connection_is_lost() {
    let (mut random, seed) = Random::seeded();
    let (database, mut session) = books();
    let mut found = Vec::new();
    for _ in 0..EDITS[usize::from(at_length())] {
        let edit = edit(&mut random, &mut session);
        found.extend(nameless(&mut random, &database, &edit));
    }
    assert!(found.is_empty(), "seed {seed}: {} calls failed without a name:\n{}", found.len(), found.join("\n"));
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "an edit was kept");
}

#[test]
fn verify_and_health_answer_whatever_is_edited() {
    let (mut random, seed) = Random::seeded();
    let (database, mut session) = books();
    let mut found = Vec::new();
    for _ in 0..EDITS[usize::from(at_length())] {
        let edit = edit(&mut random, &mut session);
        let mut session = database.connect();
        session.run("BEGIN");
        if session.client.batch_execute(&edit).is_err() {
            continue;
        }
        for call in ["verify()", "health()"] {
            session.run("SAVEPOINT before");
            if let Err(error) = session.client.batch_execute(&format!("SELECT * FROM talkmeter.{call}")) {
                found.push(format!("{edit};\n  {call}: {}", error.as_db_error().expect("a connection").message()));
            }
            session.run("ROLLBACK TO before");
        }
    }
    assert!(found.is_empty(), "seed {seed}: {} failed:\n{}", found.len(), found.join("\n"));
}

#[test]
fn numbers_at_the_end_of_their_type_are_named_errors() {
    let ends = [
        ("account", "last_subscription_id", i64::MAX),
        ("conversation", "event_count", i64::MIN),
        ("ended_part", "staff_replies", i64::MAX),
        ("period", "finalization", i64::MIN),
        ("charge", "charge_id", i64::MAX),
        ("conversation", "last_mark", i64::MAX),
    ];
    for (table, column, end) in ends {
        let edit = format!(
            "UPDATE talkmeter.{table} SET {column} = {end}
             WHERE ctid = (SELECT max(ctid::text)::tid FROM talkmeter.{table} WHERE {column} IS NOT NULL)"
        );
        every_call_answers(&edit);
    }
    every_call_answers("UPDATE talkmeter.period SET alerted = '{{a,b},{c,d}}'");
    every_call_answers("UPDATE talkmeter.source SET relation_name = ''");
    every_call_answers("UPDATE talkmeter.pack_offer SET valid_for = '178000000 years'");
}
