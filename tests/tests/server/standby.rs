//! Do reports answer on a hot standby as they do on its primary (rule 5)?

use postgres::error::SqlState;
use talkmeter_tests::standby::Standby;
use talkmeter_tests::{Database, tell};

/// What reads, besides the views.
const FUNCTIONS: [&str; 8] = [
    "SELECT talkmeter.balance('acme')",
    "SELECT * FROM talkmeter.explain('acme', 'c')",
    "SELECT talkmeter.explain_json('acme', 'c')",
    "SELECT * FROM talkmeter.simulate('ai_resolution', 'ai_resolution/usage', '2026-03-01', '2026-04-01')",
    "SELECT * FROM talkmeter.simulate_parts(NULL, 'ai_resolution/usage', '2026-03-01', '2026-04-01')",
    "SELECT * FROM talkmeter.statement('acme', '2026-03-01')",
    "SELECT * FROM talkmeter.verify()",
    "SELECT * FROM talkmeter.own_tenants()",
];

#[test]
fn every_report_answers_on_a_hot_standby_as_on_its_primary_and_what_writes_is_refused() {
    let database = Database::with_messages("standby", "agent_red", Some("agent_red/starter"));
    let mut primary = database.connect();
    tell(&mut primary, "acme", "c", "10:00 exchange, 10:05 note, 11:00 customer_message, 11:05 ai_reply, 11:06 close");
    primary.run("SELECT talkmeter.sweep()");
    let standby = Standby::of_now();
    let mut reader = standby.connect(&database);
    Standby::wait_for(&mut primary, &mut reader);
    assert_eq!(reader.line("SELECT pg_is_in_recovery()"), "t");
    let views = primary.lines(
        "SELECT 'SELECT * FROM talkmeter.' || relname || ' AS v ORDER BY v::text' FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'v' AND relname <> 'clock'",
    );
    assert!(views.len() > 30, "{views:?}");
    for report in views.iter().map(String::as_str).chain(FUNCTIONS) {
        assert_eq!(reader.lines(report), primary.lines(report), "{report}");
    }
    for call in WRITING {
        assert_eq!(reader.refused(call), SqlState::READ_ONLY_SQL_TRANSACTION, "{call}");
    }
}

/// A call of everything that writes.
const WRITING: [&str; 6] = [
    "SELECT talkmeter.mark('acme', 'c', 'close')",
    "SELECT talkmeter.sweep()",
    "SELECT talkmeter.retry_quarantine()",
    "SELECT talkmeter.credit('acme', 1, 'a gift')",
    "SELECT talkmeter.subscribe('acme', 'agent_red/starter')",
    "SELECT talkmeter.reconcile('2026-03-01')",
];

#[test]
fn what_writes_is_refused_in_a_transaction_that_may_not_write() {
    let database = Database::with_messages("read_only", "agent_red", Some("agent_red/starter"));
    let mut session = database.connect();
    for call in WRITING {
        session.run("BEGIN READ ONLY");
        assert_eq!(session.refused(call), SqlState::READ_ONLY_SQL_TRANSACTION, "{call}");
        session.run("ROLLBACK");
    }
}
