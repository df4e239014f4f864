//! Do marks and status columns tell what no row tells, and do several tables tell one conversation (rule 2)?

use postgres::error::SqlState;
use std::thread;
use talkmeter_tests::{
    Database, PLAN, Session, attach, instant, messages_mapping, metered, quoted, standing_charges, tell, told,
};

const NOTHING: [&str; 0] = [];

/// Marks the conversation `c`.
fn mark(session: &mut Session, kind: &str, at: &str) {
    session.run(&format!("SELECT talkmeter.mark('acme', 'c', '{kind}', {})", instant(at)));
}

/// Start, end, reason of the end and reason against of each part in the order of time, times of 2026-03-01.
fn outcomes(session: &mut Session) -> Vec<String> {
    let lines = session.table(
        "SELECT conversation, started_at, ended_at, end_reason, not_billable_because
         FROM talkmeter.parts ORDER BY tenant, conversation, parts.started_at",
    );
    lines.iter().map(|line| line.replace("2026-03-01 ", "").replace(":00+00", "")).collect()
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT source, message_id, reason, mark_kind FROM talkmeter.quarantine ORDER BY 1, 2, 3, 4")
}

/// What was marked, in order.
fn marked(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, mark, kind FROM talkmeter.marked ORDER BY 1, 2")
}

// --- Marks ---

#[test]
fn a_mark_is_an_event_of_its_kind() {
    for (policy, kind, wanted) in [
        ("agent_red", "close", "c|10:00|10:10|close|no_ai_reply"),
        ("agent_red", "escalate", "c|10:00|10:10|escalate|no_ai_reply"),
        ("lutingenie", "resolve", "c|10:00|10:10|resolve|no_ai_reply"),
        ("lutingenie", "new_topic", "c|10:00|10:10|new_topic|no_ai_reply"),
        ("agent_red", "error", "c|10:00|10:50|idle|error_before_reply"),
        ("agent_red", "note", "c|10:00|10:50|idle|"),
        ("agent_red", "system_message", "c|10:00|10:50|idle|"),
        ("agent_red", "reopen", "c|10:00|10:50|idle|"),
    ] {
        let (_database, mut session) = told(policy, "10:00 customer_message");
        mark(&mut session, kind, "10:10");
        tell(&mut session, "acme", "c", "10:20 ai_reply");
        assert_eq!(
            outcomes(&mut session),
            ["conversation|started_at|ended_at|end_reason|not_billable_because", wanted],
            "{kind}"
        );
        // Late, it is the same.
        let (_database, mut session) = told(policy, "10:00 customer_message, 10:20 ai_reply");
        mark(&mut session, kind, "10:10");
        assert_eq!(
            outcomes(&mut session),
            ["conversation|started_at|ended_at|end_reason|not_billable_because", wanted],
            "{kind}, late"
        );
    }
}

#[test]
fn a_reopening_mark_opens_a_part_under_the_policy_of_the_part_before() {
    let (_database, mut session) = told("ai_resolution", "10:00 exchange, 10:10 close");
    mark(&mut session, "reopen", "10:20");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|started_at|ended_at|end_reason|not_billable_because",
            "c|10:00|10:10|close|",
            "c|10:20|13:20|quiet_review|no_ai_reply"
        ]
    );
    let parts = session.lines("SELECT part, policy, policy_version, message_count FROM talkmeter.parts ORDER BY 1");
    assert_eq!(parts, ["1|ai_resolution|1|2", "2|ai_resolution|1|0"]);
}

#[test]
fn a_mark_without_a_time_is_of_now() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "c", "now exchange");
    session.run("SELECT talkmeter.mark('acme', 'c', 'close')");
    let ended = session.line("SELECT ended_at BETWEEN now() - interval '1 minute' AND now() FROM talkmeter.parts");
    assert_eq!(ended, "t");
}

#[test]
fn a_mark_counts_when_its_transaction_commits_and_after_flush() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    let reason = "SELECT end_reason FROM talkmeter.part";
    session.run("BEGIN");
    mark(&mut session, "close", "10:10");
    assert_eq!(session.lines(reason), [""]);
    session.run("SELECT talkmeter.flush()");
    assert_eq!(session.lines(reason), ["close"]);
    session.run("ROLLBACK");
    assert_eq!(session.lines(reason), [""]);
    mark(&mut session, "close", "10:10");
    assert_eq!(session.lines(reason), ["close"]);
}

#[test]
fn a_mark_of_a_rolled_back_savepoint_was_never_made() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("BEGIN; SAVEPOINT s");
    mark(&mut session, "close", "10:10");
    session.run("ROLLBACK TO SAVEPOINT s; SAVEPOINT t");
    mark(&mut session, "note", "10:11");
    session.run("RELEASE SAVEPOINT t; SAVEPOINT u");
    mark(&mut session, "escalate", "10:12");
    session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT u; COMMIT");
    assert_eq!(marked(&mut session), ["c|1|note"]);
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:30|idle|"]
    );
}

#[test]
fn a_mark_at_repeatable_read_is_folded_with_what_others_committed_since() {
    let (database, mut session) = told("agent_red", "10:00 customer_message");
    let mut other = database.connect();
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM messages");
    tell(&mut other, "acme", "c", "10:05 ai_reply, 10:20 customer_message");
    mark(&mut session, "close", "10:10");
    session.run("COMMIT");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|started_at|ended_at|end_reason|not_billable_because",
            "c|10:00|10:10|close|",
            "c|10:20|10:50|idle|no_ai_reply"
        ]
    );
}

#[test]
fn a_mark_waits_for_a_commit_of_its_conversation_and_is_folded_after_it() {
    let (database, mut session) = told("agent_red", "10:00 exchange");
    let mut marker = database.connect();
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:20 customer_message");
    session.run("SELECT talkmeter.flush()");
    let pid = marker.pid();
    let marking = thread::spawn(move || mark(&mut marker, "close", "10:10"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    marking.join().expect("the marker");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|started_at|ended_at|end_reason|not_billable_because",
            "c|10:00|10:10|close|",
            "c|10:20|10:50|idle|no_ai_reply"
        ]
    );
}

#[test]
fn a_mark_that_a_gap_held_back_is_made_when_it_is_tried_again() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SET talkmeter.enabled = off");
    mark(&mut session, "close", "10:10");
    assert_eq!(quarantined(&mut session), ["||disabled|close"]);
    session.run("RESET talkmeter.enabled; SELECT talkmeter.retry_quarantine()");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
}

#[test]
fn misuse_of_mark_is_an_error_at_once() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    let now = "now()";
    let long = "repeat('x', 513)";
    for (tenant, conversation, kind, at, code) in [
        ("'acme'", "'c'", "'customer_message'", now, SqlState::INVALID_PARAMETER_VALUE),
        ("'acme'", "'c'", "'ai_reply'", now, SqlState::INVALID_PARAMETER_VALUE),
        ("'acme'", "'c'", "'staff_reply'", now, SqlState::INVALID_PARAMETER_VALUE),
        ("'acme'", "'c'", "'ignore'", now, SqlState::INVALID_PARAMETER_VALUE),
        ("'acme'", "'c'", "'Close'", now, SqlState::INVALID_PARAMETER_VALUE),
        ("'acme'", "'c'", "''", now, SqlState::INVALID_PARAMETER_VALUE),
        ("NULL", "'c'", "'close'", now, SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'acme'", "NULL", "'close'", now, SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'acme'", "'c'", "NULL", now, SqlState::NULL_VALUE_NOT_ALLOWED),
        (long, "'c'", "'close'", now, SqlState::STRING_DATA_RIGHT_TRUNCATION),
        ("'acme'", long, "'close'", now, SqlState::STRING_DATA_RIGHT_TRUNCATION),
        ("'acme'", "'c'", "'close'", "now() + interval '6 minutes'", SqlState::DATETIME_FIELD_OVERFLOW),
        ("'acme'", "'c'", "'close'", "'infinity'", SqlState::DATETIME_FIELD_OVERFLOW),
        ("'acme'", "'c'", "'close'", "'-infinity'", SqlState::DATETIME_FIELD_OVERFLOW),
        ("'acme'", "'c'", "'close'", "'0001-12-31 BC'", SqlState::DATETIME_FIELD_OVERFLOW),
    ] {
        let call = format!("SELECT talkmeter.mark({tenant}, {conversation}, {kind}, {at})");
        assert_eq!(session.refused(&call), code, "{call:.200}");
    }
    assert_eq!(marked(&mut session), NOTHING);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn who_may_execute_mark_needs_no_other_right() {
    let (database, mut session) = told("agent_red", "10:00 exchange");
    let app = database.role("app");
    session.run(&format!("GRANT USAGE ON SCHEMA talkmeter TO {app}"));
    let mut marker = database.connect_as(&app);
    let call = "SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:10')";
    assert_eq!(marker.refused(call), SqlState::INSUFFICIENT_PRIVILEGE);
    session.run(&format!("GRANT EXECUTE ON FUNCTION talkmeter.mark TO {app}"));
    marker.run(call);
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
    assert_eq!(session.line("SELECT marked_by FROM talkmeter.marked"), app);
}

// --- The order at one instant ---

#[test]
fn a_row_at_the_instant_of_a_closing_mark_comes_before_it_whichever_is_told_first() {
    for row_first in [true, false] {
        let (_database, mut session) = told("ai_resolution", "10:00 exchange");
        if row_first {
            tell(&mut session, "acme", "c", "10:10 staff_reply");
        }
        mark(&mut session, "close", "10:10");
        if !row_first {
            assert_eq!(standing_charges(&mut session, "part"), ["1"]);
            tell(&mut session, "acme", "c", "10:10 staff_reply");
        }
        assert_eq!(
            outcomes(&mut session),
            ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|staff_replied"]
        );
        assert_eq!(standing_charges(&mut session, "part"), NOTHING);
    }
}

#[test]
fn a_row_at_the_instant_of_a_new_topic_or_a_reopening_comes_after_it_whichever_is_told_first() {
    for row_first in [true, false] {
        let (_database, mut session) = told("lutingenie", "10:00 exchange");
        if row_first {
            tell(&mut session, "acme", "c", "10:10 customer_message");
        }
        mark(&mut session, "new_topic", "10:10");
        if !row_first {
            tell(&mut session, "acme", "c", "10:10 customer_message");
        }
        assert_eq!(
            outcomes(&mut session),
            [
                "conversation|started_at|ended_at|end_reason|not_billable_because",
                "c|10:00|10:10|new_topic|",
                "c|10:10|10:40|idle|no_ai_reply"
            ]
        );
    }
    // Reopened and closed at one instant: the customer's message is in the part between.
    let (_database, mut session) = told("ai_resolution", "10:00 exchange, 10:10 close");
    mark(&mut session, "close", "10:20");
    tell(&mut session, "acme", "c", "10:20 ai_reply");
    mark(&mut session, "reopen", "10:20");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|started_at|ended_at|end_reason|not_billable_because",
            "c|10:00|10:10|close|",
            "c|10:20|10:20|close|"
        ]
    );
}

#[test]
fn marks_of_one_instant_come_in_the_order_of_their_calls() {
    for kinds in [["close", "resolve"], ["resolve", "close"]] {
        let (_database, mut session) = told("lutingenie", "10:00 exchange");
        for kind in kinds {
            mark(&mut session, kind, "10:10");
        }
        assert_eq!(
            outcomes(&mut session),
            [
                "conversation|started_at|ended_at|end_reason|not_billable_because".to_owned(),
                format!("c|10:00|10:10|{}|", kinds[0])
            ]
        );
        // In one transaction, in a savepoint, and after a flush they do too.
        let (_database, mut session) = told("lutingenie", "10:00 exchange");
        session.run("BEGIN");
        mark(&mut session, kinds[0], "10:10");
        session.run("SAVEPOINT s");
        mark(&mut session, kinds[1], "10:10");
        session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT s");
        mark(&mut session, kinds[1], "10:10");
        session.run("COMMIT");
        assert_eq!(marked(&mut session), [format!("c|1|{}", kinds[0]), format!("c|2|{}", kinds[1])]);
        assert_eq!(
            outcomes(&mut session),
            [
                "conversation|started_at|ended_at|end_reason|not_billable_because".to_owned(),
                format!("c|10:00|10:10|{}|", kinds[0])
            ]
        );
    }
}

// --- Marks before any part ---

#[test]
fn an_opening_mark_without_a_part_before_it_waits_and_leaves_quarantine_by_itself() {
    let (_database, mut session) = metered("ai_resolution");
    mark(&mut session, "reopen", "10:30");
    assert_eq!(quarantined(&mut session), ["|1|unknown_policy|"]);
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(quarantined(&mut session), ["|1|unknown_policy|"]);
    assert_eq!(outcomes(&mut session), ["conversation|started_at|ended_at|end_reason|not_billable_because"]);
    tell(&mut session, "acme", "c", "10:00 exchange, 10:10 close");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|started_at|ended_at|end_reason|not_billable_because",
            "c|10:00|10:10|close|",
            "c|10:30|13:30|quiet_review|no_ai_reply"
        ]
    );
}

#[test]
fn an_opening_mark_whose_part_before_moves_away_goes_to_quarantine() {
    let (_database, mut session) = told("ai_resolution", "10:00 exchange, 10:10 close");
    mark(&mut session, "reopen", "10:30");
    session.run("UPDATE messages SET conversation_id = 'd'");
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "d|10:00|10:10|close|"]
    );
    assert_eq!(quarantined(&mut session), ["|1|unknown_policy|"]);
    session.run("UPDATE messages SET conversation_id = 'c'");
    assert_eq!(outcomes(&mut session).len(), 3, "two parts after their heading");
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_subscriptions_policy_judges_an_opening_mark() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter', since => '2026-01-01', policy => 'ai_resolution')",
    );
    mark(&mut session, "reopen", "10:30");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:30|13:30|quiet_review|no_ai_reply"]
    );
}

// --- Status columns ---

/// A database with the conversation `c` and a table of conversations whose `id` is its id, both attached; the column
/// `status` is of that type.
fn with_status(policy: &str, status_type: &str, status: &str, more: &str) -> (Database, Session) {
    let (database, mut session) = told(policy, "10:00 exchange");
    session.run(&format!(
        r#"CREATE TYPE state AS ENUM ('open', 'done', 'odd');
           CREATE TABLE conversations (id text PRIMARY KEY, tenant_id text, status {status_type}, updated_at timestamptz,
               title text);
           SELECT talkmeter.attach_status('conversations', '{{"status": {status}{more}}}')"#
    ));
    (database, session)
}

const STATES: &str = r#"{"done": "resolve", "open": "reopen"}"#;
const UPDATED: &str = r#", "occurred_at": "updated_at""#;

/// The conversation `c` in that state at that time.
fn set(session: &mut Session, status: &str, at: &str) {
    session.run(&format!("UPDATE conversations SET status = {status}, updated_at = {}", instant(at)));
}

#[test]
fn a_status_of_any_type_that_can_be_one_makes_marks() {
    for (status_type, status, [open, done, odd]) in [
        ("text", STATES, ["'open'", "'done'", "'odd'"]),
        ("varchar(9)", STATES, ["'open'", "'done'", "'odd'"]),
        ("state", STATES, ["'open'", "'done'", "'odd'"]),
        ("boolean", r#"{"true": "resolve", "false": "reopen"}"#, ["false", "true", "NULL"]),
        ("integer", r#"{"1": "resolve", "0": "reopen"}"#, ["0", "1", "7"]),
        ("smallint", r#"{"-1": "resolve", "0": "reopen"}"#, ["0", "-1", "7"]),
    ] {
        let (_database, mut session) = with_status("ai_resolution", status_type, status, UPDATED);
        session.run(&format!("INSERT INTO conversations VALUES ('c', 'acme', {open}, '2026-03-01 10:00+00')"));
        set(&mut session, odd, "10:01");
        set(&mut session, done, "10:10");
        set(&mut session, open, "10:20");
        set(&mut session, done, "10:30");
        assert_eq!(marked(&mut session), ["c|1|resolve", "c|2|reopen", "c|3|resolve"], "{status_type}");
        assert_eq!(
            outcomes(&mut session),
            [
                "conversation|started_at|ended_at|end_reason|not_billable_because",
                "c|10:00|10:10|resolve|",
                "c|10:20|10:30|resolve|no_ai_reply"
            ],
            "{status_type}"
        );
    }
}

#[test]
fn a_status_without_a_time_is_marked_at_the_clocks() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, "");
    session.run("INSERT INTO conversations VALUES ('c', 'acme', 'open')");
    let before = session.line("SELECT clock_timestamp()");
    session.run("BEGIN; SELECT pg_sleep(0.01); UPDATE conversations SET status = 'done'; COMMIT");
    let marked = format!("SELECT occurred_at > '{before}' AND occurred_at < clock_timestamp() FROM talkmeter.marked");
    assert_eq!(session.line(&marked), "t");
}

#[test]
fn an_inserted_conversation_makes_only_ending_marks() {
    let every = r#"{"a": "close", "b": "resolve", "c": "escalate", "d": "reopen", "e": "new_topic", "f": "note",
        "g": "system_message", "h": "error"}"#;
    let (_database, mut session) = with_status("agent_red", "text", every, "");
    session.run("INSERT INTO conversations SELECT v, 'acme', v FROM unnest('{a,b,c,d,e,f,g,h,i}'::text[]) AS v");
    assert_eq!(marked(&mut session), ["a|1|close", "b|1|resolve", "c|1|escalate"]);
    session.run("UPDATE conversations SET status = 'h'; UPDATE conversations SET status = 'e' WHERE id = 'd'");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.marked WHERE kind = 'error'"), "8");
    assert_eq!(session.line("SELECT max(mark) FROM talkmeter.marked WHERE conversation = 'd'"), "2");
}

#[test]
fn only_a_change_of_the_status_makes_a_mark() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run(
        "INSERT INTO conversations VALUES ('c', 'acme', 'open', '2026-03-01 10:05+00');
         UPDATE conversations SET title = 'x';
         UPDATE conversations SET status = status, updated_at = '2026-03-01 10:06+00';
         UPDATE conversations SET tenant_id = 'acme', status = NULL;
         UPDATE conversations SET status = 'done', updated_at = '2026-03-01 10:07+00';
         UPDATE conversations SET status = 'done', updated_at = '2026-03-01 10:08+00', title = 'y';
         DELETE FROM conversations",
    );
    assert_eq!(session.lines("SELECT kind, occurred_at FROM talkmeter.marked"), ["close|2026-03-01 10:07:00+00"]);
}

#[test]
fn a_status_changed_and_changed_back_in_one_transaction_makes_both_marks() {
    let (_database, mut session) = with_status("ai_resolution", "text", STATES, "");
    session.run(
        "INSERT INTO conversations VALUES ('c', 'acme', 'open');
         UPDATE conversations SET status = 'done'; UPDATE conversations SET status = 'open'",
    );
    assert_eq!(marked(&mut session), ["c|1|resolve", "c|2|reopen"]);
    session.run("BEGIN; SAVEPOINT s; UPDATE conversations SET status = 'done'; ROLLBACK TO SAVEPOINT s; COMMIT");
    assert_eq!(marked(&mut session).len(), 2);
}

#[test]
fn a_status_changed_by_a_trigger_of_the_applications_makes_a_mark() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run(
        "CREATE FUNCTION finish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.status := 'done'; NEW.updated_at := '2026-03-01 10:10+00';
             RETURN NEW; END $$;
         CREATE TRIGGER finish BEFORE UPDATE ON conversations FOR EACH ROW EXECUTE FUNCTION finish();
         INSERT INTO conversations VALUES ('c', 'acme', 'open', '2026-03-01 10:05+00');
         UPDATE conversations SET title = 'x'",
    );
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
}

#[test]
fn a_status_of_a_row_without_a_tenant_waits_in_quarantine_until_the_row_is_mended() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run("INSERT INTO conversations VALUES ('c', NULL, 'done', '2026-03-01 10:10+00')");
    assert_eq!(quarantined(&mut session), ["conversations|c|null_key|close"]);
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(quarantined(&mut session), ["conversations|c|null_key|close"]);
    session.run("UPDATE conversations SET tenant_id = 'acme'");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
}

#[test]
fn a_status_of_the_future_is_marked_by_the_sweep_once_its_time_has_come() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run("SET talkmeter.max_future = 0");
    session.run("INSERT INTO conversations VALUES ('c', 'acme', 'done', clock_timestamp() + interval '1 second')");
    assert_eq!(quarantined(&mut session), ["conversations|c|future|close"]);
    session.run("RESET talkmeter.max_future; SELECT talkmeter.sweep(now() + interval '10 seconds')");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(marked(&mut session), ["c|1|close"]);
}

#[test]
fn a_status_that_changes_while_its_mapping_is_broken_goes_to_quarantine() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run("INSERT INTO conversations VALUES ('c', 'acme', 'open', '2026-03-01 10:10+00')");
    session.run("ALTER TABLE conversations DROP COLUMN updated_at");
    session.run("INSERT INTO conversations VALUES ('d', 'acme', 'done')");
    assert_eq!(quarantined(&mut session), ["conversations|d|mapping_broken|"]);
    session.run("UPDATE conversations SET status = 'done' WHERE id = 'c'");
    assert_eq!(quarantined(&mut session), ["conversations|c|mapping_broken|", "conversations|d|mapping_broken|"]);
}

#[test]
fn a_renamed_status_column_is_followed() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run("INSERT INTO conversations VALUES ('c', 'acme', 'open', '2026-03-01 10:05+00')");
    session.run("ALTER TABLE conversations RENAME updated_at TO changed; ALTER TABLE conversations RENAME status TO s");
    session.run("UPDATE conversations SET s = 'done', changed = '2026-03-01 10:10+00'");
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
}

#[test]
fn a_detached_status_table_makes_no_marks() {
    let (_database, mut session) = with_status("agent_red", "text", r#"{"done": "close"}"#, UPDATED);
    session.run("INSERT INTO conversations VALUES ('c', 'acme', 'open', '2026-03-01 10:10+00')");
    session.run("SELECT talkmeter.detach('conversations')");
    session.run("UPDATE conversations SET status = 'done'");
    assert_eq!(marked(&mut session), NOTHING);
    assert_eq!(session.lines("SELECT source FROM talkmeter.sources"), ["messages"]);
    assert_eq!(session.lines("SELECT tgname FROM pg_trigger WHERE tgrelid = 'conversations'::regclass"), NOTHING);
}

#[test]
fn keys_and_status_may_have_other_names_and_the_tenant_may_be_constant() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run(
        r#"CREATE TABLE tickets (id bigint PRIMARY KEY, thread text, state text, closed timestamp);
           SELECT talkmeter.attach_status('tickets', '{"tenant": {"constant": "acme"}, "conversation": "thread",
               "column": "state", "status": {"done": "close"}, "occurred_at": "closed", "timezone": "Asia/Tokyo"}');
           INSERT INTO tickets VALUES (1, 'c', 'done', '2026-03-01 19:10')"#,
    );
    assert_eq!(
        outcomes(&mut session),
        ["conversation|started_at|ended_at|end_reason|not_billable_because", "c|10:00|10:10|close|"]
    );
}

#[test]
fn misuse_of_attach_status_is_an_error_and_attaches_nothing() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        "CREATE TYPE state AS ENUM ('open', 'done');
         CREATE TYPE pair AS (a int, b int);
         CREATE TABLE conversations (id text PRIMARY KEY, tenant_id text, status text, state state, number int, pair pair,
             updated_at timestamptz, day date);
         CREATE TABLE nameless (number int, status text);
         CREATE VIEW seen AS SELECT * FROM conversations",
    );
    let done = r#""status": {"done": "close"}"#;
    for (table, mapping, code) in [
        ("conversations", "[]".to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", "{}".to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", r#"{"status": {}}"#.to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", r#"{"status": "status"}"#.to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", r#"{"status": {"done": "ai_reply"}}"#.to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", r#"{"status": {"done": "finish"}}"#.to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", r#"{"status": {"done": 1}}"#.to_owned(), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", format!(r#"{{{done}, "stat": "x"}}"#), SqlState::INVALID_PARAMETER_VALUE),
        ("conversations", format!(r#"{{{done}, "column": "stat"}}"#), SqlState::UNDEFINED_COLUMN),
        ("conversations", format!(r#"{{{done}, "tenant": "account"}}"#), SqlState::UNDEFINED_COLUMN),
        ("conversations", format!(r#"{{{done}, "occurred_at": "day"}}"#), SqlState::DATATYPE_MISMATCH),
        ("conversations", format!(r#"{{{done}, "column": "pair"}}"#), SqlState::DATATYPE_MISMATCH),
        ("conversations", format!(r#"{{{done}, "column": "number"}}"#), SqlState::DATATYPE_MISMATCH),
        (
            "conversations",
            r#"{"status": {"dine": "close"}, "column": "state"}"#.to_owned(),
            SqlState::DATATYPE_MISMATCH,
        ),
        ("nameless", format!("{{{done}}}"), SqlState::UNDEFINED_COLUMN),
        ("seen", format!("{{{done}}}"), SqlState::WRONG_OBJECT_TYPE),
        ("talkmeter.part", format!("{{{done}}}"), SqlState::WRONG_OBJECT_TYPE),
    ] {
        let call = format!("SELECT talkmeter.attach_status('{table}', {})", quoted(&mapping));
        assert_eq!(session.refused(&call), code, "{call}");
    }
    let null = SqlState::NULL_VALUE_NOT_ALLOWED;
    assert_eq!(session.refused("SELECT talkmeter.attach_status(NULL, '{}')"), null);
    assert_eq!(session.refused("SELECT talkmeter.attach_status('conversations', NULL)"), null);
    assert_eq!(session.lines("SELECT source FROM talkmeter.sources"), ["messages"]);
    let attach = format!("SELECT talkmeter.attach_status('conversations', {})", quoted(&format!("{{{done}}}")));
    session.run(&attach);
    assert_eq!(session.refused(&attach), SqlState::DUPLICATE_OBJECT);
}

// --- Several tables ---

/// Two message tables: `messages`, whose ids are integers and keys texts, and `mails`, whose ids are of that type and
/// whose conversations of another.
fn with_mails(id_type: &str, conversation_type: &str) -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    session.run(&format!(
        "CREATE TABLE mails (id {id_type} PRIMARY KEY, tenant_id text, conversation_id {conversation_type},
             created_at timestamptz, kind text, excluded boolean);
         CREATE INDEX ON mails (conversation_id)"
    ));
    attach(&mut session, "mails", "agent_red", PLAN, &messages_mapping());
    (database, session)
}

fn mail(session: &mut Session, id: &str, conversation: &str, at: &str, kind: &str) {
    session.run(&format!("INSERT INTO mails VALUES ('{id}', 'acme', '{conversation}', {}, '{kind}')", instant(at)));
}

#[test]
fn a_conversation_may_be_told_by_tables_whose_ids_and_keys_are_of_different_types() {
    let number = "7";
    let uuid = "6f9619ff-8b86-d011-b42d-00c04fc964ff";
    for (id_type, id, key_type, key) in [
        ("uuid", uuid, "integer", number),
        ("text", "m-1", "bigint", number),
        ("integer", "1", "uuid", uuid),
        ("bigint", "1", "smallint", number),
        ("text", "1", "text", "any"),
    ] {
        let (_database, mut session) = with_mails(id_type, key_type);
        tell(&mut session, "acme", key, "10:00 customer_message, 10:40 ai_reply");
        mail(&mut session, id, key, "10:20", "error");
        // Late: both tables are read.
        tell(&mut session, "acme", key, "10:15 customer_message");
        let parts = session.lines("SELECT part, message_count, not_billable_because FROM talkmeter.parts");
        assert_eq!(parts, ["1|3|error_before_reply"], "{key_type} with ids of {id_type}");
        session.run(&format!("UPDATE mails SET kind = 'note' WHERE id = '{id}'"));
        let parts = session.lines("SELECT part, message_count, billable FROM talkmeter.parts");
        assert_eq!(parts, ["1|3|t"], "{key_type} with ids of {id_type}");
        assert_eq!(quarantined(&mut session), NOTHING, "{key_type} with ids of {id_type}");
    }
}

#[test]
fn a_conversation_whose_key_one_table_cannot_hold_is_told_by_the_others() {
    for (key_type, keys) in [
        ("smallint", ["c", "40000", "007", "-", "", "1 ", "9999999999999999999999"]),
        ("bigint", ["c", "9223372036854775808", "+7", "7.0", "", "0x1", "1e3"]),
        ("uuid", ["c", "6F9619FF-8B86-D011-B42D-00C04FC964FF", "6f9619ff8b86d011b42d00c04fc964ff", "", "{}", "7", "x"]),
    ] {
        let (_database, mut session) = with_mails("bigint", key_type);
        for key in keys {
            tell(&mut session, "acme", key, "10:10 ai_reply");
            tell(&mut session, "acme", key, "10:00 customer_message");
        }
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), keys.len().to_string(), "{key_type}");
        assert_eq!(quarantined(&mut session), NOTHING, "{key_type}");
    }
}

#[test]
fn at_one_instant_tables_come_in_the_order_of_their_first_attach() {
    let (_database, mut session) = with_mails("bigint", "text");
    // Attached again, `messages` is still the first.
    session.run("SELECT talkmeter.detach('messages')");
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    mail(&mut session, "1", "c", "10:00", "ai_reply");
    session.run("INSERT INTO messages VALUES (2, 'acme', 'c', '2026-03-01 10:00+00', 'customer_message')");
    mail(&mut session, "3", "d", "10:00", "customer_message");
    session.run("INSERT INTO messages VALUES (4, 'acme', 'd', '2026-03-01 10:00+00', 'ai_reply')");
    let replies = session.lines("SELECT conversation, ai_replies FROM talkmeter.parts ORDER BY 1");
    assert_eq!(replies, ["c|1", "d|0"]);
}

#[test]
fn a_part_is_judged_by_the_policy_of_the_table_whose_row_opens_it_now() {
    let (_database, mut session) = metered("lutingenie");
    session.run("CREATE TABLE mails (LIKE messages INCLUDING ALL)");
    attach(&mut session, "mails", "agent_red", PLAN, &messages_mapping());
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.line("SELECT policy FROM talkmeter.parts"), "lutingenie");
    mail(&mut session, "1", "c", "09:50", "customer_message");
    assert_eq!(session.line("SELECT policy, started_at FROM talkmeter.parts"), "agent_red|2026-03-01 09:50:00+00");
    assert_eq!(standing_charges(&mut session, "policy"), ["agent_red"]);
}
