//! Is any report compiled by jit, which takes longer than the report itself?

use talkmeter_tests::{Database, Session, tell};

/// Functions in SQL without `jit = off`, and why.
const WITHOUT: [(&str, &str); 7] = [
    ("columns_of", "reads no table"),
    ("is_indexed", "reads some rows of the catalog, for each attached table"),
    ("is_reader", "finds two rows of the catalog, for each reader"),
    ("is_source", "finds one row of the catalog, for each attached table"),
    ("is_unique", "reads some rows of the catalog, for each attached table"),
    ("periods_starting", "finds some rows by index, for each period"),
    ("working", "reads what the server holds in memory"),
];

#[test]
fn each_function_in_sql_that_reads_much_is_run_without_jit_or_it_is_said_why_not() {
    let database = Database::fresh("jit_settings");
    let without = database.connect().lines(
        "SELECT DISTINCT p.proname FROM pg_proc AS p
         JOIN pg_language AS l ON l.oid = p.prolang
         WHERE p.pronamespace = 'talkmeter'::regnamespace AND l.lanname = 'sql'
             AND NOT 'jit=off' = ANY (COALESCE(p.proconfig, '{}'))
         ORDER BY 1",
    );
    assert_eq!(without, WITHOUT.map(|(name, _)| name));
}

const REPORTS: [&str; 14] = [
    "balance('acme')",
    "evidence('acme', '2026-02-01 00:00+00')",
    "explain('acme', 'c')",
    "explain_json('acme', 'c')",
    "health()",
    "my_balance()",
    "my_evidence('2026-02-01 00:00+00')",
    "my_explain('c')",
    "my_statement('2026-02-01 00:00+00')",
    "simulate('agent_red', NULL, '2026-02-01', '2026-03-01')",
    "simulate_parts('agent_red', NULL, '2026-02-01', '2026-03-01')",
    "statement('acme', '2026-02-01 00:00+00'::timestamptz)",
    "statement('acme', date '2026-02-01')",
    "verify()",
];

/// Whether a session that calls it loads the compiler. The call itself costs less than what it calls.
fn compiles(database: &Database, report: &str) -> bool {
    let mut session = database.connect();
    session.run("SET jit = on; SET jit_above_cost = 20");
    session.run(&format!("SELECT FROM talkmeter.{report}"));
    let memory = format!("/proc/{}/maps", session.pid());
    std::fs::read_to_string(memory).expect("the memory of a process on Linux").contains("llvmjit.so")
}

fn has_compiler(session: &mut Session) -> bool {
    session.line("SELECT pg_jit_available()") == "t"
}

#[test]
fn no_report_is_compiled_however_dear_its_plan() {
    let database = Database::with_messages("jit", "lutingenie", Some("agent_red/starter"));
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "2026-02-02 10:00 exchange");
    session.run(
        "SELECT talkmeter.finalize('acme', '2026-02-01 00:00+00');
         SELECT talkmeter.grant_tenant(session_user::text, 'acme')",
    );
    let compiled: Vec<&str> = REPORTS.into_iter().filter(|report| compiles(&database, report)).collect();
    assert_eq!(compiled, [""; 0]);
    // So that the test would notice.
    session.run("ALTER FUNCTION talkmeter.verify() RESET jit");
    assert!(compiles(&database, "verify()") || !has_compiler(&mut session));
}

#[test]
fn no_view_of_a_few_thousand_parts_seems_dear_enough_to_be_compiled() {
    let database = Database::with_messages("jit_views", "lutingenie", Some("agent_red/starter"));
    let mut session = database.connect();
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 't' || n % 20, 'c' || n, timestamptz '2026-01-01 10:00+00' + n % 300 * interval '1 day', 'exchange'
         FROM generate_series(1, 9000) AS n",
    );
    let views = session.lines(
        "SELECT oid::regclass FROM pg_class WHERE relkind = 'v' AND relnamespace = 'talkmeter'::regnamespace
             -- They look up the charge and read the messages of each part.
             AND relname NOT IN ('audited', 'audit_trail') ORDER BY 1",
    );
    let seems_dear = |analyzed: bool, session: &mut Session| -> Vec<String> {
        let cost = |view: &String| {
            let plan = session.lines(&format!("EXPLAIN SELECT * FROM {view}")).remove(0);
            let cost = plan.split("..").nth(1).and_then(|rest| rest.split(' ').next()).expect("a cost").to_owned();
            (view.clone(), cost.parse::<f64>().expect("a number"))
        };
        let dear = views.iter().map(cost).filter(|(_, cost)| *cost > 100_000.0);
        dear.map(|(view, cost)| format!("{view}, analyzed {analyzed}: {cost}")).collect()
    };
    let mut dear = seems_dear(false, &mut session);
    session.run("ANALYZE");
    dear.extend(seems_dear(true, &mut session));
    assert_eq!(dear, [""; 0]);
}
