//! Is what was moved aside still where it was, to whoever reads (rule 4.6.17)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, Session, assert_same_rows, attach, create_messages, messages_mapping, tell};

/// `acme` on a plan that includes two units a month and charges in three months, of which January and February are
/// finalized; with a credit, a dispute, a part that is not billable, a reversal and marks.
fn billed() -> (Database, Session) {
    let database = Database::fresh("archive");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "USD"}');
           SELECT talkmeter.subscribe('acme', 'two', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.subscribe('late', 'two', '2026-01-01', anchor_day => 1)"#,
    );
    for month in ["01", "02", "03"] {
        for day in 1..=4 {
            let at = format!("2026-{month}-0{day}");
            tell(&mut session, "acme", &format!("{month} {day}"), &format!("{at} 12:00 exchange, {at} 12:05 exchange"));
            tell(&mut session, "late", &format!("{month} {day}"), &format!("{at} 12:00 exchange"));
        }
        tell(&mut session, "acme", "long", &format!("2026-{month}-10 12:00 exchange"));
        tell(&mut session, "acme", &format!("{month} unanswered"), &format!("2026-{month}-11 12:00 customer_message"));
        session.run(&format!("SELECT talkmeter.mark('acme', 'long', 'escalate', '2026-{month}-10 12:10+00')"));
    }
    session.run(
        "UPDATE messages SET created_at = '2026-01-20 12:00+00' WHERE conversation_id = '01 2' AND tenant_id = 'acme';
         SELECT talkmeter.credit('acme', charge_id, 'too dear') FROM talkmeter.charges
         WHERE tenant = 'acme' AND conversation = '01 3';
         SELECT talkmeter.dispute('acme', '01 4', 1, 'no');
         SELECT talkmeter.sweep();
         SELECT talkmeter.finalize('acme', '2026-01-01');
         SELECT talkmeter.finalize('acme', '2026-02-01');
         SELECT talkmeter.finalize('late', '2026-01-01')",
    );
    (database, session)
}

const ALL: &str = "CALL talkmeter.archive(now())";

/// What anybody can read of the books.
fn readings(session: &mut Session) -> Vec<String> {
    let views = session.lines(
        "SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'v'
             AND relname NOT IN ('clock', 'journal', 'progress', 'my_journal')",
    );
    assert!(views.len() > 20);
    let views = views.iter().map(|view| format!("SELECT '{view}', v::text FROM talkmeter.{view} AS v"));
    let functions = [
        "SELECT 'statement', s::text FROM talkmeter.period AS p, talkmeter.statement(p.tenant, p.period_start) AS s",
        "SELECT 'evidence', e::text FROM talkmeter.period AS p, talkmeter.evidence(p.tenant, p.period_start) AS e
         WHERE p.finalized_at IS NOT NULL",
        "SELECT 'explain', e::text
         FROM talkmeter.conversation AS c, talkmeter.explain(c.tenant, c.conversation) AS e",
        "SELECT 'balance', talkmeter.balance(t)::text FROM unnest(ARRAY['acme', 'late']) AS t",
        "SELECT 'verify', v::text FROM talkmeter.verify() AS v",
    ];
    let all: Vec<String> = views.chain(functions.map(str::to_owned)).collect();
    session.lines(&format!("{} ORDER BY 1, 2", all.join(" UNION ALL ")))
}

/// Rows that are still in the first table and that were moved.
fn places(session: &mut Session, table: &str) -> (i64, i64) {
    let line = session.line(&format!(
        "SELECT (SELECT count(*) FROM ONLY talkmeter.{table}), (SELECT count(*) FROM talkmeter_archive.{table})"
    ));
    let (first, moved) = line.split_once('|').expect("two numbers");
    (first.parse().expect("a number"), moved.parse().expect("a number"))
}

/// The conversations of which a table still holds rows.
fn left(session: &mut Session, table: &str) -> Vec<String> {
    session.lines(&format!("SELECT DISTINCT tenant, conversation FROM ONLY talkmeter.{table} ORDER BY 1, 2"))
}

// --- What is moved ---

#[test]
fn all_of_finalized_periods_is_moved_and_whoever_reads_sees_no_difference() {
    let (_database, mut session) = billed();
    let before = readings(&mut session);
    session.run(ALL);
    assert_same_rows(&readings(&mut session), &before);
    // January and February of acme, January of the other tenant.
    assert_eq!(
        left(&mut session, "ended_part"),
        [
            "acme|03 1",
            "acme|03 2",
            "acme|03 3",
            "acme|03 4",
            "acme|03 unanswered",
            "acme|long",
            "late|02 1",
            "late|02 2",
            "late|02 3",
            "late|02 4",
            "late|03 1",
            "late|03 2",
            "late|03 3",
            "late|03 4"
        ]
    );
    let not_finalized = "SELECT count(*) FROM ONLY talkmeter.charge AS c JOIN talkmeter.period AS p
         ON (p.tenant, p.period_start) = (c.tenant, c.posted_period_start) WHERE p.finalized_at IS NOT NULL";
    assert_eq!(session.line(not_finalized), "0");
    let reversals =
        "SELECT reason, count(*) FROM talkmeter_archive.charge WHERE reverses IS NOT NULL GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(reversals), ["credit|1", "refold|1"]);
    assert_eq!(places(&mut session, "marked"), (1, 2));
}

#[test]
fn nothing_is_moved_of_a_period_that_ends_later() {
    let (_database, mut session) = billed();
    session.run("CALL talkmeter.archive('2026-02-28 23:59:59+00')");
    let periods = session.lines("SELECT DISTINCT posted_period_start FROM talkmeter_archive.charge");
    assert_eq!(periods, ["2026-01-01 00:00:00+00"]);
    session.run("CALL talkmeter.archive('2026-03-01')");
    let periods = session.lines("SELECT DISTINCT posted_period_start FROM talkmeter_archive.charge ORDER BY 1");
    assert_eq!(periods, ["2026-01-01 00:00:00+00", "2026-02-01 00:00:00+00"]);
}

#[test]
fn a_part_whose_conversation_goes_on_is_moved_and_the_conversation_goes_on() {
    let (_database, mut session) = billed();
    session.run(ALL);
    tell(&mut session, "acme", "long", "2026-04-10 12:00 exchange");
    let parts = "SELECT part, count(*) FROM talkmeter.parts WHERE conversation = 'long' GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(parts), ["1|1", "2|1", "3|1", "4|1"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_conversation_that_somebody_has_locked_is_left_for_the_next_time() {
    let (database, mut session) = billed();
    let mut other = database.connect();
    other.run("BEGIN; SELECT FROM talkmeter.conversation WHERE (tenant, conversation) = ('acme', '01 1') FOR UPDATE");
    session.run(ALL);
    assert!(left(&mut session, "ended_part").contains(&"acme|01 1".to_owned()));
    assert!(!left(&mut session, "ended_part").contains(&"acme|01 2".to_owned()));
    other.run("COMMIT");
    session.run(ALL);
    assert!(!left(&mut session, "ended_part").contains(&"acme|01 1".to_owned()));
}

#[test]
fn a_conversation_whose_tenant_and_id_are_empty_is_moved_too() {
    let (_database, mut session) = billed();
    session.run("SELECT talkmeter.subscribe('', 'two', '2026-01-01', anchor_day => 1)");
    for id in ["", "a"] {
        tell(&mut session, "", id, "2026-01-03 12:00 visit");
    }
    session.run("SELECT talkmeter.finalize('', '2026-01-01')");
    session.run(ALL);
    for table in ["ended_part", "charge"] {
        assert!(!left(&mut session, table).iter().any(|key| key.starts_with('|')), "{table}");
    }
}

#[test]
fn it_commits_after_so_many_conversations() {
    let (_database, mut session) = billed();
    let before = session.line("SELECT pg_current_xact_id()");
    session.run("CALL talkmeter.archive('2026-04-01', batch => 2)");
    let passed = session.line(&format!("SELECT pg_current_xact_id()::text::bigint - {before}"));
    assert!(passed.parse::<i64>().expect("a number") > 15, "{passed} transactions");
    let said = session.line("SELECT arguments FROM talkmeter.journal WHERE call = 'archive'");
    assert_eq!(said, r#"{"before": "2026-04-01T00:00:00+00:00"}"#);
}

// --- What is done to it later ---

/// Does the same to the books with and without an archive, and compares them.
fn assert_as_if_never_moved(changes: &str) {
    let (database, session) = billed();
    drop(session);
    let copy = database.copy("file_copy");
    let (mut session, mut twin) = (database.connect(), copy.connect());
    session.run(ALL);
    for session in [&mut session, &mut twin] {
        session.run(changes);
    }
    let books = |session: &mut Session| {
        session.lines(
            "SELECT 'part', p::text FROM talkmeter.parts AS p
             UNION ALL
             SELECT 'charge', concat_ws(' ', tenant, charge_id, conversation, part, charged_at, period_start,
                 posted_period_start, tier, amount, reverses, reason)
             FROM talkmeter.charges
             UNION ALL
             SELECT 'usage', u::text FROM talkmeter.usage_history AS u
             ORDER BY 1, 2",
        )
    };
    assert_same_rows(&books(&mut session), &books(&mut twin));
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_late_row_of_what_was_moved_is_metered_as_if_it_had_not_been() {
    assert_as_if_never_moved(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', '01 1', '2026-01-01 11:50+00', 'exchange'), ('acme', 'long', '2026-01-10 13:00+00', 'exchange')",
    );
}

#[test]
fn changed_and_deleted_rows_of_what_was_moved_take_their_charges_back() {
    assert_as_if_never_moved(
        "UPDATE messages SET created_at = created_at + interval '50 days' WHERE conversation_id = '01 1';
         DELETE FROM messages WHERE conversation_id IN ('01 2', '02 2');
         UPDATE messages SET conversation_id = '01 4' WHERE conversation_id = 'long' AND created_at < '2026-02-01'",
    );
}

#[test]
fn a_part_that_was_credited_and_moved_is_never_charged_again() {
    let (_database, mut session) = billed();
    session.run(ALL);
    session.run("UPDATE messages SET kind = 'customer_message' WHERE conversation_id = '01 3' AND tenant_id = 'acme'");
    session.run("UPDATE messages SET kind = 'exchange' WHERE conversation_id = '01 3' AND tenant_id = 'acme'");
    let charges = "SELECT count(*) FILTER (WHERE reverses IS NULL), count(*) FROM talkmeter.charges
        WHERE tenant = 'acme' AND conversation = '01 3'";
    assert_eq!(session.line(charges), "1|2");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_charge_that_was_moved_can_be_credited_once() {
    let (_database, mut session) = billed();
    session.run(ALL);
    let credit = "SELECT talkmeter.credit('acme', charge_id, 'late') FROM talkmeter.charges
        WHERE tenant = 'acme' AND conversation = '02 1'";
    session.run(credit);
    assert_eq!(session.refused(credit), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run("SELECT talkmeter.resolve_dispute('acme', 1, 'credited', 'so be it')");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
    let before = readings(&mut session);
    session.run(ALL);
    assert_same_rows(&readings(&mut session), &before);
}

#[test]
fn what_was_fetched_back_is_moved_again() {
    let (_database, mut session) = billed();
    session.run(ALL);
    let moved = places(&mut session, "ended_part");
    tell(&mut session, "acme", "01 1", "2026-01-01 12:02 exchange");
    assert!(left(&mut session, "ended_part").contains(&"acme|01 1".to_owned()));
    session.run(ALL);
    assert_eq!(places(&mut session, "ended_part"), moved);
}

#[test]
fn a_transaction_that_began_before_the_move_finds_what_was_moved() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let (database, mut session) = billed();
        let mut early = database.connect();
        early.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM talkmeter.parts"));
        session.run(ALL);
        tell(&mut early, "acme", "01 1", "2026-01-01 12:02 exchange");
        early.run("COMMIT");
        let count =
            "SELECT count(*), sum(message_count) FROM talkmeter.parts WHERE (tenant, conversation) = ('acme', '01 1')";
        assert_eq!(session.line(count), "1|6", "{level}");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "{level}");
    }
}

// --- Misuse ---

#[test]
fn what_makes_no_sense_is_refused() {
    let (_database, mut session) = billed();
    assert_eq!(session.refused("CALL talkmeter.archive(NULL)"), SqlState::NULL_VALUE_NOT_ALLOWED);
    assert_eq!(session.refused("CALL talkmeter.archive(now(), 0)"), SqlState::INVALID_PARAMETER_VALUE);
    session.run("BEGIN");
    assert_eq!(session.refused(ALL), SqlState::INVALID_TRANSACTION_TERMINATION);
    session.run("ROLLBACK");
    let code = session.refused("SELECT talkmeter.attach('talkmeter_archive.charge', 'lutingenie', '{}')");
    assert_ne!(code, SqlState::SUCCESSFUL_COMPLETION);
}

#[test]
fn a_row_that_is_in_both_places_is_named_by_verify() {
    let (_database, mut session) = billed();
    session.run(ALL);
    session.run("INSERT INTO talkmeter.ended_part SELECT * FROM talkmeter_archive.ended_part WHERE conversation = '01 unanswered'");
    let problems = "SELECT problem, object FROM talkmeter.verify()";
    assert_eq!(
        session.lines(problems),
        ["parts_overlap|part 1 of 01 unanswered", "is_there_twice|part 1 of 01 unanswered"]
    );
}
