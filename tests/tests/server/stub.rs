//! Has the development stub what an application calls and reads, on a server where talkmeter is not, and nowhere else?

use crate::docs::INNER_VIEWS;
use postgres::error::SqlState;
use std::path::Path;
use talkmeter_tests::stock::Stock;
use talkmeter_tests::{Database, Session, assert_same_rows};

/// What only views and functions of talkmeter's own call.
const INNER: &str = "proname ~ '^(own_|is_|refuse_)' OR proname IN (
    'adopt_partitions', 'chain', 'chain_link', 'class_of', 'columns_of', 'evidence_lines', 'fleet_clear',
    'fleet_schemas', 'fleet_server', 'fleet_union', 'import_begin', 'import_rows', 'import_end', 'move_head', 'move_differences',
    'rules_of_source', 'journal_row',
    'known_period', 'instant_meant', 'month_meant', 'number_reader', 'periods_named', 'on_table_ddl', 'origin_of',
    'periods_of_month', 'periods_starting', 'show_progress', 'statement_lines', 'statement_of', 'units_of_statement', 'bill_file_of', 'subject_of', 'forget_noted',
    'forget_at_commit', 'arrives_whole')";

fn stub() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/talkmeter_stub.sql");
    std::fs::read_to_string(file).expect("the stub")
}

fn functions(session: &mut Session, but: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), prokind, provolatile
         FROM pg_proc WHERE pronamespace = 'talkmeter'::regnamespace AND NOT ({but}) ORDER BY 1, 2",
    ))
}

/// Those that are yours to fill: a migration may.
fn tables(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, atthasdef, attcollation::regcollation
         FROM pg_attribute
         WHERE attrelid IN ('talkmeter.holidays'::regclass, 'talkmeter.threshold'::regclass) AND attnum > 0
         ORDER BY attrelid::regclass::text, attname",
    )
}

fn views(session: &mut Session, but: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT relname, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
         FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
         WHERE relkind = 'v' AND relnamespace = 'talkmeter'::regnamespace AND NOT ({but})
         GROUP BY pg_class.oid ORDER BY 1",
    ))
}

#[test]
fn it_has_the_calls_and_views_of_the_extension_with_their_names_and_types_and_no_others() {
    let (real, stubbed) = (Database::fresh("real"), Database::empty("stubbed"));
    let (mut real, mut stubbed) = (real.connect(), stubbed.connect());
    stubbed.run(&stub());
    assert_same_rows(&functions(&mut stubbed, "false"), &functions(&mut real, INNER));
    assert_same_rows(&views(&mut stubbed, "false"), &views(&mut real, &format!("relname IN {INNER_VIEWS}")));
    assert_same_rows(&tables(&mut stubbed), &tables(&mut real));
    let percents = "SELECT * FROM talkmeter.threshold ORDER BY kind";
    assert_eq!(stubbed.lines(percents), real.lines(percents));
    for parts in ["'42', 'a/b%'", "'a', NULL", "'a'", "'', '%2F'"] {
        let key = format!("SELECT talkmeter.conversation_key({parts})");
        assert_eq!(stubbed.line(&key), real.line(&key), "{parts}");
    }
    let document = "SELECT array_agg(key ORDER BY key) FROM jsonb_object_keys(talkmeter.explain_json('a', 'b')) AS key";
    assert_eq!(stubbed.line(document), real.line(document));
}

#[test]
fn on_a_server_without_the_extension_every_call_works_for_everybody_and_every_view_is_empty() {
    let stock = Stock::start();
    let mut owner = stock.create("app");
    assert_eq!(owner.lines("SELECT name FROM pg_available_extensions WHERE name = 'talkmeter'"), [""; 0]);
    owner.run("CREATE ROLE developer LOGIN; CREATE ROLE application LOGIN; GRANT CREATE ON DATABASE app TO developer");
    stock.connect("app", "developer").run(&stub());
    let mut session = stock.connect("app", "application");
    session.run("SELECT set_config('search_path', '', false)");
    let calls = session.lines(
        "SELECT format(CASE prokind WHEN 'p' THEN 'CALL talkmeter.%I(%s)' ELSE 'SELECT * FROM talkmeter.%I(%s)' END, proname,
             (SELECT string_agg('NULL::' || CASE type WHEN 'anyelement'::regtype THEN 'integer' ELSE type::regtype::text END,
                  ', ' ORDER BY place) FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS t (type, place)))
         FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND prorettype <> 'trigger'::regtype
             AND proname NOT IN ('create_roles', 'conversation_key')",
    );
    assert!(calls.len() > 40, "{calls:?}");
    calls.iter().for_each(|call| session.run(call));
    assert_eq!(session.lines("SELECT talkmeter.balance(42), talkmeter.balance('acme')"), ["|"]);
    for view in session.lines("SELECT viewname FROM pg_views WHERE schemaname = 'talkmeter' AND viewname <> 'clock'") {
        assert_eq!(session.lines(&format!("SELECT * FROM talkmeter.{view}")), [""; 0], "{view}");
    }
    assert_eq!(owner.lines("SELECT talkmeter.create_roles()").len(), 4);
    owner.run("GRANT talkmeter_application TO application");
}

#[test]
fn it_says_loudly_that_nothing_is_metered() {
    let database = Database::empty("stubbed");
    let (mut session, heard) = database.connect_heard();
    session.run(&stub());
    let heard = heard.lock().expect("no other thread").join("\n");
    assert!(heard.contains("WARNING") && heard.contains("NOTHING IS METERED"), "{heard}");
    assert_eq!(session.line("SELECT problem FROM talkmeter.health()"), "stub");
}

#[test]
fn it_is_never_beside_the_extension() {
    let database = Database::fresh("never");
    let mut session = database.connect();
    assert_eq!(session.refused(&stub()), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run("ROLLBACK; DROP EXTENSION talkmeter CASCADE");
    session.run(&stub());
    assert_eq!(session.refused(&stub()), SqlState::DUPLICATE_SCHEMA);
    session.run("ROLLBACK");
    assert_eq!(session.refused("CREATE EXTENSION talkmeter"), SqlState::DUPLICATE_SCHEMA);
    session.run("DROP SCHEMA talkmeter CASCADE; CREATE EXTENSION talkmeter");
    assert_eq!(session.lines("SELECT problem FROM talkmeter.health() WHERE problem = 'stub'"), [""; 0]);
}
