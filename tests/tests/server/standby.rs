//! Do reports answer on a hot standby as they do on its primary (rule 5)?

use postgres::error::SqlState;
use talkmeter_tests::standby::Standby;
use talkmeter_tests::{Database, Session, tell};

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

/// Functions that may be called where nothing is written: they change no more than what is remembered of the session,
/// or, called by hand, nothing at all; those that make what is not talkmeter's, which the server itself refuses; and what
/// writes by other functions only.
const HARMLESS: [&str; 8] = [
    "flush",
    "show_progress",
    "start_worker",
    "adopt_partitions",
    "fleet",
    "fleet_clear",
    "fleet_server",
    "import_tenant",
];

#[test]
fn whatever_may_write_is_refused_on_a_standby_and_the_message_says_so() {
    let database = Database::with_messages("standby", "agent_red", Some("agent_red/starter"));
    let mut primary = database.connect();
    tell(&mut primary, "acme", "c", "10:00 exchange");
    let calls = calls(&mut primary);
    assert!(calls.len() > 25, "{calls:?}");
    let standby = Standby::of_now();
    let mut reader = standby.connect(&database);
    Standby::wait_for(&mut primary, &mut reader);
    let mut wrong = Vec::new();
    for call in calls {
        let error = reader.client.batch_execute(&call).expect_err(&call);
        let error = error.as_db_error().expect("an error of the server's");
        let is_clear = error.message().contains("during recovery") || error.message().contains("read-only");
        if *error.code() != SqlState::READ_ONLY_SQL_TRANSACTION || !is_clear {
            wrong.push(format!("{call}: {} {}", error.code().code(), error.message()));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// A call of each function and procedure that may write, with arguments that it takes on the primary.
fn calls(session: &mut Session) -> Vec<String> {
    let found = session.lines(
        "SELECT p.prokind, p.proname, array_to_string(ARRAY(
             SELECT format_type(a.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)
             WHERE a.n <= p.pronargs - p.pronargdefaults ORDER BY a.n), ';')
         FROM pg_proc AS p
         WHERE p.pronamespace = 'talkmeter'::regnamespace AND p.provolatile = 'v' AND p.prorettype NOT IN
             ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 2",
    );
    let call = |line: &String| {
        let [kind, name, types] = line.splitn(3, '|').collect::<Vec<_>>().try_into().expect("three columns");
        let verb = if kind == "p" { "CALL" } else { "SELECT" };
        let usual = || types.split(';').filter(|of| !of.is_empty()).map(argument).collect::<Vec<_>>().join(", ");
        let special = SPECIAL.iter().find(|(special, _)| *special == name);
        let arguments = special.map_or_else(usual, |(_, arguments)| (*arguments).to_owned());
        (!HARMLESS.contains(&name)).then(|| format!("{verb} talkmeter.{name}({arguments})"))
    };
    found.iter().filter_map(call).collect()
}

/// Arguments of functions that would be refused for others.
const SPECIAL: [(&str, &str); 15] = [
    ("attach", r#"'messages', 'agent_red', '{"kinds": [{"kind": "note"}]}'::jsonb"#),
    ("attach_status", r#"'messages', '{"column": "kind", "status": {"done": "close"}}'::jsonb"#),
    ("backfill", "'messages', '-infinity', '2026-03-02'"),
    ("buy_pack", "'acme', 'agent_red/1000'"),
    ("change_plan", "'acme', 'agent_red/starter'"),
    ("define_pack", r#"'{"name": "p", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}'::jsonb"#),
    ("define_plan", r#"'{"name": "p", "included": 1, "overage_rate": 1, "currency": "EUR"}'::jsonb"#),
    (
        "define_policy",
        r#"'{"name": "p", "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close"}'::jsonb"#,
    ),
    ("end_move", "'acme', gen_random_uuid()"),
    ("grant_tenant", "current_user, 'acme'"),
    ("import_rows", "'acme', 'talkmeter.account', '{}'"),
    ("mark", "'acme', 'c', 'close'"),
    ("resolve_dispute", "'acme', 1, 'rejected'"),
    ("revoke_tenant", "current_user, 'acme'"),
    ("subscribe", "'acme', 'agent_red/starter'"),
];

fn argument(of: &str) -> String {
    let value = match of {
        "text" | "name" => "acme",
        "regclass" => "messages",
        "jsonb" => r#"{"kinds": [{"kind": "note"}]}"#,
        "date" | "timestamp with time zone" => "2026-03-01",
        "boolean" => "false",
        _ => "1",
    };
    format!("'{value}'::{of}")
}

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
