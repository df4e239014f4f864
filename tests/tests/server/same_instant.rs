//! Which event comes first of those that happen at one instant, or in one transaction (rules 2.3, 2.8, 2.9)?

use talkmeter_tests::{Database, PLAN, Session, attach, metered};

const NOTHING: [&str; 0] = [];

/// A table of messages with ids of that type and a time of whole seconds, attached with what the mapping says more.
fn chats(id_type: &str, more: &str) -> (Database, Session) {
    let database = Database::fresh("same_instant");
    let mut session = database.connect();
    session.run(&format!(
        "CREATE TABLE chats (ref {id_type} PRIMARY KEY, tenant_id text, conversation_id text, at timestamptz(0),
             who text, seq int);
         CREATE INDEX ON chats (tenant_id, conversation_id, at)"
    ));
    let mapping = format!(
        r#"{{"message_id": "ref", "occurred_at": "at"{more}, "kinds": [
            {{"when": {{"who": "customer"}}, "kind": "customer_message"}}, {{"when": {{"who": "ai"}}, "kind": "ai_reply"}},
            {{"when": {{"who": "staff"}}, "kind": "staff_reply"}}, {{"when": {{"who": "note"}}, "kind": "note"}},
            {{"when": {{"who": "turn"}}, "kind": ["customer_message", "ai_reply"]}}]}}"#
    );
    attach(&mut session, "chats", "lutingenie", PLAN, &mapping);
    (database, session)
}

/// Rows of one second, one statement each: `"id who"`, and the sequence if there is one.
fn say(session: &mut Session, rows: &[&str]) {
    for row in rows {
        let cells: Vec<&str> = row.split(' ').collect();
        let sequence = cells.get(2).unwrap_or(&"NULL");
        session.run(&format!(
            "INSERT INTO chats VALUES ('{}', 'acme', 'c', '2026-03-01 10:00:00+00', '{}', {sequence})",
            cells[0], cells[1]
        ));
    }
}

/// What each event did, in order, as `explain` tells it.
fn order(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT message_id || ' ' || effect FROM talkmeter.explain('acme', 'c')
         WHERE message_id IS NOT NULL AND effect !~ 'billable' ORDER BY step",
    )
}

fn turns(session: &mut Session) -> String {
    session.line("SELECT concat_ws(' ', billable, message_count, turn_count) FROM talkmeter.parts")
}

#[test]
fn an_answer_of_the_same_second_comes_after_its_question_whatever_their_random_ids_are() {
    for (question, answer) in [("f0", "0a"), ("0a", "f0")] {
        let uuid = |byte: &str| format!("{byte}000000-0000-4000-8000-000000000000");
        for id_type in ["uuid", "text", "varchar(36)"] {
            let (_database, mut session) = chats(id_type, "");
            say(&mut session, &[&format!("{} customer", uuid(question)), &format!("{} ai", uuid(answer))]);
            assert_eq!(turns(&mut session), "t 2 1", "{id_type}, question {question}");
            // Told the other way round it is the same.
            let (_database, mut session) = chats(id_type, "");
            say(&mut session, &[&format!("{} ai", uuid(answer)), &format!("{} customer", uuid(question))]);
            assert_eq!(turns(&mut session), "t 2 1", "{id_type}, question {question}, answer told first");
        }
    }
}

#[test]
fn of_ids_that_say_nothing_the_customer_comes_first_then_notes_then_the_ai_then_staff() {
    let (_database, mut session) = chats("text", "");
    say(&mut session, &["a staff", "b ai", "c note", "d customer"]);
    let counted = |id: &str, how: &str| format!("{id} {how} part 1");
    assert_eq!(
        order(&mut session),
        [counted("d", "opened"), counted("c", "counted in"), counted("b", "counted in"), counted("a", "counted in")]
    );
}

#[test]
fn integer_ids_order_the_rows_of_one_instant_whoever_wrote() {
    let (_database, mut session) = chats("bigint", "");
    say(&mut session, &["9 ai", "10 customer"]);
    assert_eq!(turns(&mut session), "f 1 0");
}

#[test]
fn the_events_of_one_row_stay_together_and_take_the_turn_of_the_first() {
    let (_database, mut session) = chats("text", "");
    say(&mut session, &["b turn", "a turn", "0 ai"]);
    assert_eq!(turns(&mut session), "t 5 2");
}

#[test]
fn a_column_that_counts_up_orders_before_ids_and_turns() {
    let (_database, mut session) = chats("text", r#", "order": "seq""#);
    say(&mut session, &["a customer 1", "c customer 3", "b ai 2", "d ai 4"]);
    assert_eq!(turns(&mut session), "t 4 2");
    session.run("UPDATE chats SET seq = 5 WHERE ref = 'b'");
    assert_eq!(turns(&mut session), "t 4 1", "a change of the sequence moves the row");
}

#[test]
fn a_row_that_changes_its_kind_moves_to_the_turn_of_the_new_one() {
    let (_database, mut session) = chats("text", "");
    say(&mut session, &["a ai", "b customer", "c customer"]);
    session.run("UPDATE chats SET who = 'customer' WHERE ref = 'a'; UPDATE chats SET who = 'ai' WHERE ref = 'b'");
    assert_eq!(order(&mut session), ["a opened part 1", "c counted in part 1", "b counted in part 1"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn an_order_that_is_no_integer_is_refused() {
    let database = Database::fresh("same_instant");
    let mut session = database.connect();
    session.run("CREATE TABLE m (id text PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz)");
    let call = r#"SELECT talkmeter.attach('m', 'lutingenie', '{"order": "created_at", "kinds": [{"kind": "note"}]}')"#;
    assert_eq!(session.refused(call).code(), "42804");
}

// --- What one transaction does ---

/// Tickets whose state is set before the message is written that belongs to it, as `"reply and close"` does.
fn tickets(time: &str) -> (Database, Session) {
    let (database, mut session) = metered("ai_resolution");
    session.run(&format!(
        r#"CREATE TABLE tickets (id text PRIMARY KEY, tenant_id text, state text, updated_at timestamptz);
           INSERT INTO tickets VALUES ('c', 'acme', 'open', '2026-03-01 10:00+00');
           SELECT talkmeter.attach_status('tickets', '{{"column": "state", "status": {{"closed": "close", "open": "reopen"}}{time}}}');
           INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
           VALUES ('acme', 'c', '2026-03-01 10:00+00', 'customer_message')"#
    ));
    (database, session)
}

const UPDATED: &str = r#", "occurred_at": "updated_at""#;

fn reply(kind: &str, at: &str) -> String {
    format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'c', '2026-03-01 {at}+00', '{kind}');"
    )
}

fn close(at: &str) -> String {
    format!("UPDATE tickets SET state = 'closed', updated_at = '2026-03-01 {at}+00';")
}

fn part(session: &mut Session) -> String {
    session.line(
        "SELECT concat_ws(' ', end_reason, to_char(ended_at, 'HH24:MI:SS.MS'), billable, not_billable_because, message_count)
         FROM talkmeter.parts",
    )
}

#[test]
fn a_close_that_is_set_before_its_reply_is_written_counts_after_it() {
    for (kind, wanted) in
        [("ai_reply", "close 10:10:00.150 t 2"), ("staff_reply", "close 10:10:00.150 f staff_replied 2")]
    {
        let (_database, mut session) = tickets(UPDATED);
        session.run(&format!("BEGIN; {}{} COMMIT", close("10:10:00.100"), reply(kind, "10:10:00.150")));
        assert_eq!(part(&mut session), wanted);
        assert_eq!(
            session.line("SELECT to_char(occurred_at, 'MI:SS.MS') FROM talkmeter.marked"),
            "10:00.150",
            "the mark is stored where it counts"
        );
        assert_eq!(session.lines("SELECT tenant FROM talkmeter.unevaluated"), NOTHING);
    }
}

#[test]
fn the_same_in_two_transactions_is_as_their_times_say() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&close("10:10:00.100"));
    session.run(&reply("ai_reply", "10:10:00.150"));
    assert_eq!(part(&mut session), "close 10:10:00.100 f no_ai_reply 1");
}

#[test]
fn a_close_after_all_that_its_transaction_wrote_keeps_its_time() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&format!("BEGIN; {}{} COMMIT", close("10:20"), reply("ai_reply", "10:10")));
    assert_eq!(part(&mut session), "close 10:20:00.000 t 2");
}

#[test]
fn a_close_does_not_wait_for_rows_that_come_and_go_or_are_of_other_conversations() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&format!(
        "BEGIN; {}{}{} DELETE FROM messages WHERE kind = 'staff_reply';
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'd', '2026-03-01 10:50+00', 'ai_reply'); COMMIT",
        close("10:10"),
        reply("ai_reply", "10:05"),
        reply("staff_reply", "10:40")
    ));
    assert_eq!(part(&mut session), "close 10:10:00.000 t 2");
}

#[test]
fn a_reopening_stays_before_the_message_that_is_written_with_it() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&format!("{}{}", reply("ai_reply", "10:01"), close("10:10")));
    session.run(&format!(
        "BEGIN; UPDATE tickets SET state = 'open', updated_at = '2026-03-01 11:00+00'; {} COMMIT",
        reply("customer_message", "11:00:01")
    ));
    assert_eq!(
        session.lines("SELECT to_char(started_at, 'HH24:MI:SS') FROM talkmeter.parts ORDER BY started_at"),
        ["10:00:00", "11:00:00"]
    );
}

#[test]
fn a_mark_without_a_time_counts_after_the_messages_of_its_transaction_and_one_with_a_time_at_it() {
    let ahead = "clock_timestamp() + interval '1 minute'";
    for (at, wanted) in [("", "t"), (", clock_timestamp()", "f"), (", at => NULL", "t")] {
        let (_database, mut session) = metered("lutingenie");
        session.run(&format!(
            "BEGIN; SELECT talkmeter.mark('acme', 'c', 'close'{at});
             INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('acme', 'c', {ahead}, 'exchange'); COMMIT"
        ));
        let ended = session.line("SELECT end_reason IS NOT NULL FROM talkmeter.parts");
        assert_eq!(ended, wanted, "mark{at}");
    }
}

#[test]
fn marks_of_one_transaction_keep_the_order_of_their_calls_when_they_move() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&format!(
        "BEGIN; {}UPDATE tickets SET state = 'open', updated_at = '2026-03-01 10:10:00.200+00'; {}{} COMMIT",
        close("10:10:00.100"),
        close("10:10:00.300"),
        reply("ai_reply", "10:10:00.400"),
    ));
    assert_eq!(
        session.lines("SELECT kind || to_char(occurred_at, ' SS.MS') FROM talkmeter.marked ORDER BY mark"),
        ["close 00.400", "reopen 00.200", "close 00.400"]
    );
    assert_eq!(part(&mut session), "close 10:10:00.400 t 2");
}

// --- When a status changed ---

#[test]
fn a_time_that_the_update_left_as_it_was_says_nothing_of_the_change() {
    let (_database, mut session) = tickets(UPDATED);
    session.run(&reply("staff_reply", "10:20"));
    session.run("UPDATE tickets SET state = 'closed'");
    let marked = "SELECT clock_timestamp() - occurred_at < '1 minute' FROM talkmeter.marked";
    assert_eq!(session.line(marked), "t");
    assert_eq!(session.line("SELECT not_billable_because FROM talkmeter.parts"), "staff_replied");
}

#[test]
fn a_time_that_is_null_says_nothing_of_the_change() {
    let (_database, mut session) = tickets(UPDATED);
    session.run("UPDATE tickets SET state = 'closed', updated_at = '2026-03-01 10:10+00'");
    session.run("UPDATE tickets SET state = 'open', updated_at = NULL");
    session.run("INSERT INTO tickets VALUES ('d', 'acme', 'closed', NULL)");
    let marked = "SELECT conversation || ' ' || kind, clock_timestamp() - occurred_at < '1 minute'
        FROM talkmeter.marked ORDER BY 1";
    assert_eq!(session.lines(marked), ["c close|f", "c reopen|t", "d close|t"]);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
}

#[test]
fn a_status_that_waited_for_a_key_keeps_its_own_time_when_the_key_comes() {
    let (_database, mut session) = tickets(UPDATED);
    session.run("INSERT INTO tickets VALUES ('d', NULL, 'closed', '2026-03-01 10:10+00')");
    session.run("UPDATE tickets SET tenant_id = 'acme' WHERE id = 'd'");
    assert_eq!(session.line("SELECT occurred_at FROM talkmeter.marked"), "2026-03-01 10:10:00+00");
}

// --- Marks that find no part ---

#[test]
fn a_mark_that_finds_no_part_and_opens_none_is_without_effect_and_kept() {
    for kind in ["close", "resolve", "escalate", "note", "system_message", "error", "new_topic", "reopen"] {
        let (_database, mut session) = metered("lutingenie");
        session.run(&format!("SELECT talkmeter.mark('acme', 'c', '{kind}', '2026-03-01 10:05+00')"));
        assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING, "{kind}");
        assert_eq!(
            session.lines("SELECT problem FROM talkmeter.health() WHERE problem <> 'posted_late'"),
            NOTHING,
            "{kind}"
        );
        assert_eq!(session.lines("SELECT effect FROM talkmeter.explain('acme', 'c')"), ["without effect"], "{kind}");
    }
    // A row that comes late finds it.
    let (_database, mut session) = metered("lutingenie");
    session.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:05+00')");
    session.run(&reply("exchange", "10:00"));
    assert_eq!(part(&mut session), "close 10:05:00.000 t 2");
}

#[test]
fn every_older_conversation_that_is_closed_after_the_attach_is_nothing_to_report() {
    let (_database, mut session) = tickets(UPDATED);
    session
        .run("INSERT INTO tickets SELECT 'old ' || n, 'acme', 'open', '2026-03-01' FROM generate_series(1, 50) AS n");
    session.run("UPDATE tickets SET state = 'closed', updated_at = '2026-03-02' WHERE id LIKE 'old%'");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.marked"), "50");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
}
